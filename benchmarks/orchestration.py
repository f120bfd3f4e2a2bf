"""What running a trial costs beside its training: by the driver, by Ray Tune, and with a long ledger.

    python benchmarks/orchestration.py                              # all three parts, about half an hour

nothing: 16 trials that do nothing, here and with plain Ray Tune and its stock OptunaSearch, alternating.
sleep:   10,000 trials that only sleep, in 64 logical slots: the driver's processor time and memory a trial.
ledger:  with 10,000 records of points at random: how long `ablate resume` takes to its first proposal, and
`ablate status`.
"""

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import ray
from ray import tune
from ray.tune.search.optuna import OptunaSearch
from setting import machine

from ablate.config.canonical import key_of
from ablate.config.study_spec import load_study
from ablate.config.trial_spec import TrialSpec
from ablate.engine.controller import Driver
from ablate.engine.plan import plan
from ablate.execution import ray_cluster
from ablate.execution.ray_cluster import Resources
from ablate.execution.tune_runner import distribute
from ablate.runs.ledger import append
from ablate.runs.record import Record, blank_record
from ablate.runs.run import create_run, load_run


def pretend(
    spec: TrialSpec, name: str, state: Any, *, threads: int, seconds: float
) -> Generator[Any, None, Any]:
    """A trial of one epoch that sleeps."""
    time.sleep(seconds)
    record = record_of(spec, name, seconds)
    yield SimpleNamespace(epoch=1, accuracy=record["accuracy"], state={})
    return SimpleNamespace(record=record, predictions={}, weights={})


def record_of(spec: TrialSpec, name: str, seconds: float) -> Record:
    """A complete record whose accuracy follows from its layers."""
    quantized = len(spec.layers) / 19
    accuracy = 0.55 - 0.05 * quantized + 0.02 * random.Random(name).random()
    row = {"epoch": 1, "train_loss": 1.5, "loss": 1.4, "accuracy": accuracy}
    found = {
        "status": "complete",
        "accuracy": accuracy,
        "loss": 1.4,
        "images": 4000,
        "steps": 126,
        "train_seconds": seconds,
    }
    found |= {
        "size_bytes": int(1.1e7 - 1e7 * quantized) + len(name),
        "parameters": 2_692_618,
        "macs": 183_498_624,
        "threads": 1,
    }
    found |= {"bitops": int(1.9e11 - 1.7e11 * quantized * 4 / 8), "device": "none", "curve": [row, row]}
    return blank_record(spec, name) | found


def study_of(trials: int, path: Path, seconds: float, concurrency: int) -> dict[str, float]:
    """The default study with simulated trials, real search, driver, Ray and writer. Ray must be connected."""
    planned = plan(load_study("default").model_copy(update={"trials": trials}))
    run = create_run(path, planned.study, {})
    resources = Resources(concurrency=concurrency, gpus_per_trial=0.0)
    started = time.monotonic()
    driver = Driver(run, planned, [], resources, "", None)
    driver.show([])
    cpu = time.process_time()
    after: dict[int, int] = {}  # resident bytes, by how many trials are recorded

    def tell(record: Record) -> list[str]:
        after[len(driver.records)] = memory()
        return driver.tell(record)

    distribute(
        driver.ask,
        tell,
        driver.watch,
        stop=lambda: False,
        steps=partial(pretend, seconds=seconds),
        path=path,
        writer=ray_cluster.writer_of(path),
        resources=resources,
    )
    driver.end("finished")
    wall = time.monotonic() - started
    result = {"trials": len(driver.records), "seconds_a_trial": wall / trials, "wall_seconds": wall}
    result["driver_cpu_ms_a_trial"] = 1000 * (time.process_time() - cpu) / trials
    half = trials // 2  # the first half has the imports and the sampler's memory, which does not grow
    result["driver_kb_a_trial"] = (after[trials - 1] - after[half]) / 1024 / (trials - 1 - half)
    result["driver_mb"] = after[trials - 1] / 1024**2
    return result | {"duplicates_avoided": driver.search.duplicates}


def define(trial: optuna.Trial) -> None:
    for i in range(19):
        trial.suggest_categorical(f"group{i}", ["full", "binary", "ternary"])


def stock(trials: int, concurrency: int) -> dict[str, float]:
    """As many trials that do nothing by plain Ray Tune with its own OptunaSearch."""

    def train(config: dict[str, Any]) -> None:
        quantized = sum(kind != "full" for kind in config.values()) / 19
        tune.report({"accuracy": 0.55 - 0.05 * quantized, "size_bytes": 1e7 * (1 - quantized)})

    search = OptunaSearch(space=define, metric=["accuracy", "size_bytes"], mode=["max", "min"])
    config = tune.TuneConfig(search_alg=search, num_samples=trials, max_concurrent_trials=concurrency)
    started, cpu = time.monotonic(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        tune.Tuner(train, tune_config=config, run_config=tune.RunConfig(storage_path=folder, verbose=0)).fit()
    spent = time.monotonic() - started
    return {
        "seconds_a_trial": spent / trials,
        "driver_cpu_ms_a_trial": 1000 * (time.process_time() - cpu) / trials,
    }


def nothing(folder: Path, rounds: int) -> dict[str, Any]:
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ours, theirs = [], []
    for i in range(rounds):
        ours.append(study_of(16, folder / f"nothing{i}", 0, 2))
        theirs.append(stock(16, 2))
    ray.shutdown()
    key = "seconds_a_trial"
    return {"ours": median(ours), "stock_optuna_search": median(theirs), "n": rounds, "limit": {key: 0.5}}


def sleep(folder: Path, trials: int, slots: int, seconds: float) -> dict[str, Any]:
    ray.init("local", num_cpus=slots, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    result = study_of(trials, folder / "sleep", seconds, slots)
    ray.shutdown()
    return result | {
        "slots": slots,
        "sleep_seconds": seconds,
        "goal": {"driver_cpu_ms_a_trial": 50, "driver_kb_a_trial": 60},
    }


def filled(path: Path, trials: int) -> None:
    """A run of the default study with pretended records."""
    planned, rng = plan(load_study("default").model_copy(update={"trials": trials})), np.random.default_rng(0)
    run, points, specs = create_run(path, planned.study, {}), planned.search.points, set()
    while len(specs) < trials:
        spec = points.spec_at(points.draw(rng))
        if (key := key_of(spec)) not in specs:
            specs.add(key)
            append(run.path / "ledger.jsonl", record_of(spec, f"{len(specs):012x}", 0.0))


def ledger(folder: Path, n: int, rounds: int) -> dict[str, Any]:
    """`status` and `resume` on a long ledger, as commands, from their start."""
    filled(path := folder / "ledger", n)
    statuses, resumes = [], []
    for _ in range(rounds):
        started = time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "ablate", "status", str(path)], check=True, stdout=subprocess.DEVNULL
        )
        statuses.append(time.monotonic() - started)
        started = time.monotonic()
        command = [sys.executable, "-m", "ablate", "resume", str(path), "--trials", str(n + 4)]
        driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not (
            (state := load_run(path).state).get("pid") == driver.pid
            and (state["running"] or state["waiting"])
        ):
            assert driver.poll() is None
            time.sleep(0.1)
        resumes.append(time.monotonic() - started)
        driver.kill()
        driver.wait()
        while load_run(path).alive:
            time.sleep(0.1)
    limits = {"resume_seconds": 15, "status_seconds": 2}
    found = {"resume_seconds": statistics.median(resumes), "status_seconds": statistics.median(statuses)}
    return {"records": n, **found, "n": rounds, "limit": limits}


def median(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(row[key] for row in rows) for key in rows[0]}


def memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--parts", nargs="+", choices=("nothing", "sleep", "ledger"), default=["nothing", "sleep", "ledger"]
    )
    parser.add_argument("--trials", type=int, default=10_000, help="that sleep, and records of the ledger")
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=3.0, help="that each sleeps")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the runs stay; else they are deleted")
    parser.add_argument(
        "--out", type=Path, help="a JSON file for the result; parts that it has already are kept"
    )
    options = parser.parse_args()
    result = machine("ablate-vit", "ray", "optuna")
    if options.out and options.out.exists():
        result = json.loads(options.out.read_text()) | result
    with tempfile.TemporaryDirectory() as name:
        folder = options.folder or Path(name)
        if "nothing" in options.parts:
            result["nothing"] = nothing(folder, options.rounds)
        if "sleep" in options.parts:
            result["sleep"] = sleep(folder, options.trials, options.slots, options.seconds)
        if "ledger" in options.parts:
            result["ledger"] = ledger(folder, options.trials, options.rounds)
    text = json.dumps(result, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
