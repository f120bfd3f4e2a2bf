"""What early stopping saves: the same search on real trainings, with MO-ASHA and without, over paired seeds.

    python benchmarks/early_stopping.py run --seeds 0 1 2   # below runs/early_stopping; goes on where it was
    python benchmarks/early_stopping.py report              # results/early_stopping.json, .png and .pdf

A search over layers_bits by the default sampler, nine epochs a trial, validated after each; the same with
rungs after the first and the third. hypervolume: of the complete trials by measured validation accuracy and
log bytes, up to chance (0.1) and the size in full precision. epochs and seconds: of all trials so far, the
stopped ones too; seconds are wall time of training and validation on one thread beside whatever else ran, so
that the epochs compare better. The checkpoint that all trials of a seed start from is not counted, nor are
the proposals.
"""

import argparse
import json
import math
import os
import platform
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from ablate import load_run, run_study
from ablate.analysis.hypervolume import hypervolume_over_trials
from ablate.config.designs import EarlyStopping
from ablate.config.search_space import load_space
from ablate.config.study_spec import StudySpec
from ablate.engine.resume import resume_study
from ablate.execution.ray_cluster import Resources
from ablate.runs import ledger
from ablate.runs.run import write_study

matplotlib.use("Agg")
HERE = Path(__file__).parent
RUNS, LEDGERS, RESULTS = (
    HERE.parent / name for name in ("runs/early_stopping", "results/early_stopping", "benchmarks/results")
)
RULES = {"to the end": None, "stopped": EarlyStopping()}
TRIALS = {"to the end": 12, "stopped": 32}  # about the same seconds
ANCHORS = 4
FRACTION = 0.032  # 128 images of cifar10-mini: 4 steps an epoch
RECIPE = {
    "epochs": 9,
    "full_epochs": 9,
    "batch_size": 32,
    "learning_rate": 1e-3,
    "warmup": 0.1,
    "augment": True,
}
CHANCE = 0.1


def study(arm: str, seed: int) -> StudySpec:
    space = load_space("layers_bits").model_copy(update={"fraction": FRACTION})
    common = {
        "question": "What does early stopping save?",
        "objectives": ("accuracy", "size_bytes"),
        "model": "vit-micro",  # the default of its time
        "data": "cifar10-mini",
    }
    return StudySpec(
        **common, space=space, recipe=RECIPE, seed=seed, trials=TRIALS[arm], early_stopping=RULES[arm]
    )


def search(arm: str, seed: int) -> None:
    path, here = RUNS / f"{arm.replace(' ', '-')}-{seed}", Resources(concurrency=1)
    if arm == "stopped" and not path.exists():
        begin(path, RUNS / f"to-the-end-{seed}")
    if (path / "ledger.jsonl").exists():
        resume_study(path, trials=TRIALS[arm], resources=here)
    else:
        run_study(study(arm, seed), path, resources=here)
    LEDGERS.mkdir(parents=True, exist_ok=True)
    (LEDGERS / f"{path.name}.jsonl").write_bytes((path / "ledger.jsonl").read_bytes())


def begin(path: Path, plain: Path) -> None:
    """A stopped search with the anchors of the plain one, which run to their end in both."""
    anchors = ledger.read(plain / "ledger.jsonl")[:ANCHORS]
    assert len(anchors) == ANCHORS, f"{plain} must have the anchors first"
    shutil.copytree(
        plain, path, ignore=shutil.ignore_patterns("ledger.jsonl", "state.json", "tables", "figures", ".tune")
    )
    for record in anchors:
        ledger.append(path / "ledger.jsonl", record)
    changed = {"trials": TRIALS["stopped"], "early_stopping": RULES["stopped"]}
    write_study(path, load_run(plain).study.model_copy(update=changed))


def curve(path: Path) -> dict[str, list[Any]]:
    """Of a ledger, after each trial: epochs and seconds so far, hypervolume, and how the trial ended."""
    records = ledger.read(path)
    full = max(record["size_bytes"] or 0 for record in records)
    points = [(r["accuracy"], r["size_bytes"]) if r["status"] == "complete" else (0.0, full) for r in records]
    volumes = hypervolume_over_trials(
        np.array([[accuracy, math.log(size)] for accuracy, size in points]),
        [CHANCE, math.log(full)],
        ["max", "min"],
    )
    return {
        "epochs": np.cumsum([len(record["curve"]) for record in records]).tolist(),
        "seconds": np.cumsum([record["train_seconds"] or 0.0 for record in records]).round(1).tolist(),
        "hypervolume": np.round(volumes, 4).tolist(),
        "status": [record["status"] for record in records],
    }


def compare(plain: dict[str, list[Any]], stopped: dict[str, list[Any]]) -> dict[str, Any]:
    """The share that the stopped search spent until it reached the plain one's end; None if it never did."""
    target = plain["hypervolume"][-1]
    there = next((i for i, volume in enumerate(stopped["hypervolume"]) if volume >= target), None)
    found: dict[str, Any] = {"target": target}
    for unit in ("epochs", "seconds"):
        whole = plain[unit][-1]
        at = {share: _volume(stopped, unit, share * whole) for share in (0.5, 1.0)}
        found[unit] = {
            "plain": whole,
            "share": there if there is None else round(stopped[unit][there] / whole, 3),
        }
        found[unit] |= {"stopped_has": at, "plain_has": {0.5: _volume(plain, unit, 0.5 * whole)}}
    return found


def _volume(found: dict[str, list[Any]], unit: str, spent: float) -> float:
    return max((v for s, v in zip(found[unit], found["hypervolume"], strict=True) if s <= spent), default=0.0)


def draw(curves: dict[str, dict[str, list[Any]]], seeds: list[str], path: Path) -> None:
    from matplotlib import pyplot as plt

    figure, row = plt.subplots(
        1, len(seeds), figsize=(3.2 * len(seeds), 3.0), layout="constrained", sharey=True, squeeze=False
    )
    for axes, seed in zip(row[0], seeds, strict=True):
        for color, arm, label in (
            ("C1", "to-the-end", "all to their end"),
            ("C0", "stopped", "early stopping"),
        ):
            found = curves[f"{arm}-{seed}"]
            axes.step(found["epochs"], found["hypervolume"], color, where="post", label=label)
        axes.set(title=f"seed {seed}", xlabel="epochs trained and validated", xlim=9 * ANCHORS)
    anchored = [found["hypervolume"][ANCHORS - 1] for found in curves.values()]
    row[0][0].set_ylim(min(anchored) - 0.005)
    row[0][0].set(ylabel="hypervolume, as measured")
    row[0][0].legend(frameon=False, loc="upper left")
    for suffix in ("png", "pdf"):
        figure.savefig(
            path.with_suffix(f".{suffix}"),
            metadata={"CreationDate": None} if suffix == "pdf" else None,
            dpi=150,
        )


def report() -> None:
    """Of the seeds with both searches."""
    curves = {path.stem: curve(path) for path in sorted(LEDGERS.glob("*.jsonl"))}
    seeds = [name.removeprefix("stopped-") for name in curves if name.startswith("stopped-")]
    seeds = [seed for seed in seeds if f"to-the-end-{seed}" in curves]
    names = ("ablate-vit", "torch", "transformers", "optuna", "ray", "numpy")
    result = {
        "hardware": {
            "device": ledger.read(LEDGERS / f"stopped-{seeds[0]}.jsonl")[0]["device"],
            "cpus": os.cpu_count(),
        },
        "versions": {"python": platform.python_version()} | {name: version(name) for name in names},
        "study": study("stopped", 0).model_dump(
            mode="json", include={"recipe", "data", "sampler", "early_stopping"}
        ),
        "fraction": FRACTION,
        "seeds": {seed: compare(curves[f"to-the-end-{seed}"], curves[f"stopped-{seed}"]) for seed in seeds},
        "curves": curves,
    }
    (RESULTS / "early_stopping.json").write_text(json.dumps(result, indent=1) + "\n")
    draw(curves, seeds, RESULTS / "early_stopping")
    print(json.dumps(result["seeds"], indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=("run", "report"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=RULES, default=[*RULES])
    options = parser.parse_args()
    if options.verb == "report":
        return report()
    for seed in options.seeds:
        for arm in options.arms:
            search(arm, seed)


if __name__ == "__main__":
    main()
