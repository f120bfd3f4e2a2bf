"""Kills drivers, workers and raylets of real studies at random moments, resumes, and counts what was lost.

    python benchmarks/faults.py                                     # 20 drivers, 20 workers, 5 raylets
    python benchmarks/faults.py --drivers 1 --workers 1 --raylets 1 --trials 6   # short, as a test runs it

A study is 30 fine-tunings of a ViT of 2 blocks on real images, about a second each. Per part the result says
how many trials were recorded, lost, recorded twice, and left as ghosts: still "running" in the state, or as
live processes. Needs pip install --editable '.[test]'.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from ray.cluster_utils import Cluster  # what Ray's own tests use
from setting import machine, make_model

from ablate.runs.run import load_run

STUDY = """
question = "does it survive?"
model = "{model}"
trials = {trials}
[recipe]
epochs = 2
bf16 = false
[space]
description = "which layer groups"
objectives = ["accuracy", "size_bytes"]
fraction = 0.02
[space.layer]
weights = {{ each = ["full", "binary", "ternary"] }}
"""
MARK = {"ABLATE_FAULTS": str(os.getpid())}  # in the environment of all that is started here


def drivers(folder: Path, kills: int, rng: random.Random) -> dict:
    """SIGKILL of the driver at random moments, at concurrency 1; after the last the run ends."""
    undisturbed, seconds = folder / "undisturbed", time.monotonic()
    finish(start(folder, undisturbed, "--concurrency", "1"))
    seconds = time.monotonic() - seconds
    runs, done = [], 0
    while done < kills:
        runs.append(path := folder / f"drivers{len(runs)}")
        code = None
        while code is None:
            driver = start(folder, path, "--concurrency", "1")
            if done == kills:
                finish(driver)
                break
            try:
                code = driver.wait(rng.uniform(0, 1.2 * seconds))
            except subprocess.TimeoutExpired:
                driver.kill()
                driver.wait()
                done += 1
                gone(path)
    same = [ids(path) == ids(undisturbed) for path in runs]
    return {"kills": done, "same_trials_as_undisturbed": same} | count(runs)


def workers(folder: Path, kills: int, rng: random.Random) -> dict:
    """SIGKILL of random workers, two at once."""
    runs, done = [], 0
    while done < kills:
        runs.append(path := folder / f"workers{len(runs)}")
        driver = start(folder, path, "--concurrency", "2")
        while driver.poll() is None and done < kills:
            time.sleep(rng.uniform(0.5, 3))
            if found := [p for p in below(driver.pid) if is_worker(p)]:
                rng.choice(found).kill()
                done += 1
        finish(driver)
    return {"kills": done} | count(runs)


def raylets(folder: Path, kills: int, rng: random.Random) -> dict:
    """SIGKILL of raylets: in turn one of a joined cluster and the driver's own, which needs a resume."""
    runs, done = [], 0
    while done < kills:
        runs.append(path := folder / f"raylets{len(runs)}")
        if len(runs) % 2:
            done += _nodes(folder, path, min(2, kills - done), rng)
        else:
            done += _own_raylet(folder, path)
    return {"kills": done} | count(runs)


def _nodes(folder: Path, path: Path, kills: int, rng: random.Random) -> int:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
        driver = start(folder, path, "--address", cluster.address)
        recorded(path, 1)
        for _ in range(kills):
            time.sleep(rng.uniform(0, 6))
            cluster.remove_node(nodes.pop(rng.randrange(2)), allow_graceful=False)
            nodes.append(cluster.add_node(num_cpus=1))
        finish(driver)
    finally:
        cluster.shutdown()
    return kills


def _own_raylet(folder: Path, path: Path) -> int:
    driver = start(folder, path, "--concurrency", "2")
    recorded(path, 2)
    next(p for p in below(driver.pid) if p.name() == "raylet").kill()
    driver.wait(300)
    gone(path)
    finish(start(folder, path))
    return 1


def start(folder: Path, path: Path, *options: str) -> subprocess.Popen:
    """`ablate study`, or `ablate resume` where there is a run already."""
    verb = (
        ["resume", str(path)]
        if (path / "ledger.jsonl").exists()
        else ["study", "study.toml", "--out", str(path)]
    )
    log = (folder / "log").open("ab")
    command = [sys.executable, "-m", "ablate", *verb, *options]
    return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=os.environ | MARK)


def finish(driver: subprocess.Popen) -> None:
    assert driver.wait(1200) == 0, f"exit {driver.returncode}"


def below(pid: int) -> list[psutil.Process]:
    try:
        return [p for p in psutil.Process(pid).children(recursive=True) if p.status() != psutil.STATUS_ZOMBIE]
    except psutil.NoSuchProcess:
        return []


def is_ours(process: psutil.Process) -> bool:
    """Whether it was started from here, and not by another Ray of this machine."""
    try:
        return MARK.items() <= process.environ().items()
    except psutil.Error:  # gone, or another user's
        return False


def is_worker(process: psutil.Process) -> bool:
    """Whether it runs trials, or is about to."""
    try:
        return any(name in " ".join(process.cmdline()) for name in ("ResourceTrainable", "TrialWorker"))
    except psutil.Error:  # gone already
        return False


def recorded(path: Path, n: int) -> None:
    until(lambda: (path / "ledger.jsonl").exists() and (path / "ledger.jsonl").read_bytes().count(b"\n") >= n)


def gone(path: Path) -> None:
    """Wait until the dead driver's Ray has let go of the run."""
    if (path / "study.toml").exists():
        until(lambda: not load_run(path).alive)


def until(done, seconds: float = 300) -> None:
    limit = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < limit
        time.sleep(0.1)


def ids(path: Path) -> list[str]:
    return list(load_run(path).records["trial_id"])


def count(runs: list[Path]) -> dict:
    """The result of the runs. Lost: proposed and not recorded. Ghosts: still running, by state or process."""
    tables = [load_run(path).records for path in runs]
    planned = [load_run(path).study.trials for path in runs]
    states = [load_run(path).state for path in runs]
    time.sleep(10)
    return {
        "studies": len(runs),
        "trials_recorded": sum(map(len, tables)),
        "lost": sum(n - table["trial_id"].nunique() for n, table in zip(planned, tables, strict=True)),
        "duplicated": sum(int(table["trial_id"].duplicated().sum()) for table in tables),
        "ghosts": sum(len(s["running"]) + len(s["unfinished"]) for s in states),
        "processes_left": sum(
            is_ours(p) for p in psutil.process_iter(["name"]) if p.info["name"] in ("raylet", "gcs_server")
        ),
        "failed": sum(int((table["status"] == "failed").sum()) for table in tables),
        "statuses": [state["status"] for state in states],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for part, n in (("drivers", 20), ("workers", 20), ("raylets", 5)):
        parser.add_argument(f"--{part}", type=int, default=n, help="kills")
    parser.add_argument("--trials", type=int, default=30, help="of a study")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a JSON file for the result")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    result = machine("ablate-vit", "ray", "optuna", "torch") | {
        "seed": options.seed,
        "trials": options.trials,
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "study.toml").write_text(STUDY.format(model=make_model(folder), trials=options.trials))
        for part in (drivers, workers, raylets):
            started = time.monotonic()
            if kills := getattr(options, part.__name__):
                result[part.__name__] = part(folder, kills, random.Random(options.seed))
                result[part.__name__]["seconds"] = round(time.monotonic() - started)
            if options.out:
                options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
