"""What early stopping saves: the same search on real trainings, with MO-ASHA and without, over paired seeds.

    python benchmarks/early_stopping.py run --seeds 0 1 2   # below runs/early_stopping; goes on where it was
    python benchmarks/early_stopping.py report              # benchmarks/results/early_stopping.json, .png, .pdf

A search over layers_bits by the default sampler, nine epochs a trial, validated after each; the same with rungs after the
first and the third. seconds: of training and validation, of all trials so far, the stopped ones too. hypervolume: of the
complete ones by measured validation accuracy and log bytes, up to chance (0.1) and the size in full precision.
"""

import argparse
import json
import math
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from ablate import ledger, run_study
from ablate.analysis import pareto
from ablate.cluster import Resources
from ablate.resume import resume_study
from ablate.spec import EarlyStopping, StudySpec, load_space
from ablate.trial import device_name

matplotlib.use("Agg")
HERE = Path(__file__).parent
RUNS, LEDGERS, RESULTS = (
    HERE.parent / name for name in ("runs/early_stopping", "results/early_stopping", "benchmarks/results")
)
RULES = {"to the end": None, "stopped": EarlyStopping()}
TRIALS = {"to the end": 12, "stopped": 24}  # about the same seconds
FRACTION = 0.032  # 128 images of cifar10-mini: 4 steps an epoch
RECIPE = {"epochs": 9, "full_epochs": 9, "batch_size": 32, "learning_rate": 1e-3, "warmup": 0.1, "augment": True}
CHANCE = 0.1


def study(arm: str, seed: int) -> StudySpec:
    space = load_space("layers_bits").model_copy(update={"fraction": FRACTION})
    asked = {"question": "What does early stopping save?", "objectives": ("accuracy", "size_bytes"), "data": "cifar10-mini"}
    return StudySpec(**asked, space=space, recipe=RECIPE, seed=seed, trials=TRIALS[arm], early_stopping=RULES[arm])


def search(arm: str, seed: int) -> None:
    path, here = RUNS / f"{arm.replace(' ', '-')}-{seed}", Resources(concurrency=1)
    if (path / "ledger.jsonl").exists():
        resume_study(path, trials=TRIALS[arm], resources=here)
    else:
        run_study(study(arm, seed), path, resources=here)
    LEDGERS.mkdir(parents=True, exist_ok=True)
    (LEDGERS / f"{path.name}.jsonl").write_bytes((path / "ledger.jsonl").read_bytes())


def curve(path: Path) -> dict[str, Any]:
    """Of a ledger: seconds and hypervolume after each trial, both (trials,)."""
    records = ledger.read(path)
    seconds = np.cumsum([record["train_seconds"] for record in records])
    full = max(record["size_bytes"] for record in records)
    done = [[r["accuracy"], math.log(r["size_bytes"])] if r["status"] == "complete" else [0.0, math.log(full)] for r in records]
    volumes = pareto.hypervolume_over_trials(np.array(done), [CHANCE, math.log(full)], ["max", "min"])
    status = [record["status"] for record in records]
    return {"seconds": seconds.round(1).tolist(), "hypervolume": np.round(volumes, 4).tolist(), "status": status}


def compare(plain: dict[str, Any], stopped: dict[str, Any]) -> dict[str, Any]:
    """How far the stopped search is once it has what the plain one came to; None where it does not get there."""
    target, whole = plain["hypervolume"][-1], plain["seconds"][-1]
    there = [s for s, volume in zip(stopped["seconds"], stopped["hypervolume"], strict=True) if volume >= target]
    at = {
        share: max(
            (v for s, v in zip(stopped["seconds"], stopped["hypervolume"], strict=True) if s <= share * whole), default=0
        )
        for share in (0.5, 1.0)
    }
    return {"target": target, "seconds": whole, "share_of_seconds": there[0] / whole if there else None, "stopped_at": at}


def draw(curves: dict[str, dict[str, Any]], path: Path) -> None:
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(5.2, 3.6), layout="constrained")
    for name, found in curves.items():
        arm, _, seed = name.rpartition("-")
        label = {"to-the-end": "every trial to its end", "stopped": "MO-ASHA"}[arm] if seed == "0" else None
        color = "C0" if arm == "stopped" else "C1"
        axes.step(np.array(found["seconds"]) / 60, found["hypervolume"], color, where="post", label=label)
    axes.set(xlabel="training and validation (minutes of one core)", ylabel="hypervolume, as measured")
    axes.legend(frameon=False)
    for suffix in ("png", "pdf"):
        figure.savefig(path.with_suffix(f".{suffix}"), metadata={"CreationDate": None} if suffix == "pdf" else None, dpi=150)


def report() -> None:
    curves = {path.stem: curve(path) for path in sorted(LEDGERS.glob("*.jsonl"))}
    seeds = sorted({name.rpartition("-")[2] for name in curves})
    result = {
        "hardware": {"device": device_name(), "cpus": os.cpu_count()},
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("ablate-vit", "torch", "transformers", "optuna", "ray", "numpy")},
        "study": study("stopped", 0).model_dump(mode="json", include={"space", "recipe", "data", "sampler", "early_stopping"}),
        "seeds": {seed: compare(curves[f"to-the-end-{seed}"], curves[f"stopped-{seed}"]) for seed in seeds},
        "curves": curves,
    }
    (RESULTS / "early_stopping.json").write_text(json.dumps(result, indent=1) + "\n")
    draw(curves, RESULTS / "early_stopping")
    print(json.dumps(result["seeds"], indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("run", "report"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=RULES, default=[*RULES])
    asked = parser.parse_args()
    if asked.verb == "report":
        return report()
    for seed in asked.seeds:
        for arm in asked.arms:
            search(arm, seed)


if __name__ == "__main__":
    main()
