"""How long the analysis takes: a front of 100,000 points, a fit with 1,000 bootstrap samples, a large page.

    python benchmarks/analysis.py [--rounds 5]

The points are random and uniform. The page is that of 2,000 trials of `layers_bits` on a ViT of 12 blocks
with made-up accuracies; its time is that of the whole command, imports included. All times are medians.
Writes results/analysis-HARDWARE.json; takes two minutes.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np

from ablate.analysis.hypervolume import hypervolume, hypervolume_over_trials, reference_point
from ablate.analysis.pareto import front
from ablate.analysis.scaling import fit
from ablate.config.search_space import load_space
from ablate.config.study_spec import StudySpec
from ablate.hardware import device_name
from ablate.runs.record import blank_record
from ablate.runs.run import create_run
from ablate.search.searcher import Search
from ablate.training.trial import trial_id

PACKAGES = ("ablate-vit", "numpy", "scipy", "pandas", "moocore", "plotly")
POINTS, TRIALS, SAMPLES = 100_000, 2000, 1000
GROUPS = [f"block{i}.{part}" for i in range(12) for part in ("attention", "fc1", "fc2")] + ["head"]
D = np.tile(np.geomspace(200, 20_000, 5), 8)  # the sizes and seeds of studies/data_volume.toml


def median_seconds(call: Callable[[], object], rounds: int) -> float:
    """Of some calls, after one that does not count."""
    seconds = []
    for _ in range(rounds + 1):
        begun = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begun)
    return round(statistics.median(seconds[1:]), 3)


def made_up_run(path: Path) -> None:
    """A searched run; the fewer layer groups stay full, the smaller and the worse."""
    study = StudySpec(question="made up", space=load_space("layers_bits"), trials=TRIALS, sampler="random")
    run, search, random = (
        create_run(path, study, {"classes": ["a", "b"]}),
        Search(study, GROUPS),
        np.random.default_rng(0),
    )
    lines = []
    while len(lines) < TRIALS and (spec := search.ask()):
        full = 1 - len(spec.layers) / len(GROUPS)
        record = blank_record(spec, trial_id(spec)) | {
            "status": "complete",
            "images": 5000,
            "loss": 1.0,
            "latency_ms": 10.0,
        }
        record |= {
            "accuracy": 0.5 + 0.2 * full + 0.1 * random.random(),
            "size_bytes": round(1e7 * (0.05 + full)) + len(lines),
        }
        record |= {"bitops": round(1e11 * (0.05 + full)) + len(lines)}
        search.tell(record)
        lines.append(json.dumps(record) + "\n")
    (run.path / "ledger.jsonl").write_text("".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    random = np.random.default_rng(0)
    points, ways = random.random((POINTS, 2)), ("max", "min")
    limit = reference_point(points, ways)
    loss = (0.15 + 5.0 / D**0.4) * np.exp(random.normal(0, 0.02, len(D)))
    found = {
        "front and hypervolume": median_seconds(
            lambda: hypervolume(points[front(points, ways)], limit, ways), rounds
        ),
        "hypervolume over trials": median_seconds(
            lambda: hypervolume_over_trials(points, limit, ways), rounds
        ),
        "fit of a power law with floor": median_seconds(
            lambda: fit("power_floor", {"D": D}, loss, samples=SAMPLES), rounds
        ),
    }
    with tempfile.TemporaryDirectory() as folder:
        made_up_run(Path(folder) / "run")
        command = [sys.executable, "-m", "ablate", "report", str(Path(folder) / "run")]
        found["report"] = median_seconds(
            lambda: subprocess.run(command, check=True, capture_output=True), rounds
        )
        size_bytes = (Path(folder) / "run" / "report.html").stat().st_size
    result = {
        "points": POINTS,
        "on_the_front": len(front(points, ways)),
        "samples": SAMPLES,
        "trials": TRIALS,
    }
    result |= {
        "rounds": rounds,
        "hardware": device_name(),
        "versions": {name: version(name) for name in PACKAGES},
    }
    result |= {"seconds": found, "report_bytes": size_bytes}
    print(json.dumps(result, indent=1))
    name = "-".join(["analysis", *device_name().lower().split()[:2]])
    (Path(__file__).parent / "results" / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
