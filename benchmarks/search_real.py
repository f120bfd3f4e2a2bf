"""The comparison of `benchmarks/search.py` on real trainings: the table's recipe on the bundled images.

    python benchmarks/search_real.py stock                 # 150 trials of Ray Tune's OptunaSearch
    python benchmarks/search_real.py additive              # 50 trials
    python benchmarks/search_real.py report                # benchmarks/results/search_real.json

Each search has a ledger below results/search_real, and goes on from it: what a trial came to is told again,
not trained again. Searches may run beside each other; a trial trains on one thread. A trial is what it is in
`studies/search_table.toml`, but with cifar10-mini: its accuracy is on 1,000 validation images, and the
hypervolume that of what was measured, noise and all.
"""

import argparse
import json
import logging
import os
import platform
import warnings
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from search import RESULTS, World, run, summary

from ablate.config.canonical import effective, key_of
from ablate.config.study_spec import StudySpec, load_study
from ablate.config.trial_spec import TrialSpec
from ablate.hardware import device_name
from ablate.profiling.cost_model import Counter
from ablate.runs import ledger
from ablate.runs.record import Record
from ablate.search.parameter_space import Points
from ablate.training.run_trial import run_trial

SEED = 100
TRIALS = {"stock": 150}
LEDGERS = Path(__file__).parents[1] / "results" / "search_real"


@dataclass
class Real:
    """What a trial comes to: it is trained, unless the ledger has it."""

    path: Path
    count: Counter
    groups: list[str]
    full: int
    trains: bool = True  # what the ledger lacks
    known: dict[str, Record] = field(default_factory=dict)

    def __post_init__(self) -> None:
        records = ledger.read(self.path) if self.path.exists() else []
        self.known = {key_of_any(TrialSpec.model_validate(record["spec"])): record for record in records}

    def study(self, sampler: str, seed: int, trials: int) -> StudySpec:
        changed = {
            "sampler": sampler,
            "seed": seed,
            "trials": trials,
            "objectives": ("accuracy", "size_bytes"),
        }
        changed["data"] = "cifar10-mini"
        return load_study("search_table").model_copy(update=changed)

    def __call__(
        self, points: Points, spec: TrialSpec, rng: np.random.Generator
    ) -> tuple[float, float, float, int]:
        if (key := key_of_any(spec)) not in self.known:
            assert self.trains, (
                f"{self.path} lacks trial {len(self.known) + 1}: run the search to its end first"
            )
            self.known[key] = run_trial(spec)
            ledger.append(self.path, self.known[key])
            print(len(self.known), self.known[key]["accuracy"], self.known[key]["size_bytes"], flush=True)
        record = self.known[key]
        accuracy = record["accuracy"]
        return accuracy, accuracy, record["train_seconds"], record["size_bytes"]


def key_of_any(spec: TrialSpec) -> str:
    """A trial's key, whatever its bf16 came to."""
    spec = effective(spec)
    return key_of(spec.model_copy(update={"recipe": spec.recipe.model_copy(update={"bf16": "auto"})}))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sampler", help='"stock", a sampler of `ablate study`, or "report" of all ledgers')
    parser.add_argument("--trials", type=int, help="150 for stock, 50 for the others")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--ledgers", type=Path, default=LEDGERS)
    parser.add_argument("--out", type=Path, default=RESULTS / "search_real.json")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("ray").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    names = (
        [path.stem for path in sorted(options.ledgers.glob("*.jsonl"))]
        if options.sampler == "report"
        else [options.sampler]
    )
    options.ledgers.mkdir(parents=True, exist_ok=True)
    about = World(table=None)  # type: ignore[arg-type]  # for the model: it never reads the table
    runs = {}
    for name in sorted(names, key=lambda name: name != "stock"):
        real = Real(
            options.ledgers / f"{name}.jsonl",
            about.count,
            about.groups,
            about.full,
            options.sampler != "report",
        )
        runs[name] = run(real, name, options.seed, options.trials or TRIALS.get(name, 50))
    if options.sampler == "report":
        versions = {
            name: version(name) for name in ("ablate-vit", "torch", "transformers", "optuna", "ray", "numpy")
        }
        target = runs["stock"]["hypervolume"][-1]
        result = {
            "hardware": {"device": device_name(), "cpus": os.cpu_count()},
            "versions": {"python": platform.python_version(), **versions},
            "seed": options.seed,
            "target": target,
            "samplers": {name: summary([found], target) for name, found in runs.items()},
        }
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
