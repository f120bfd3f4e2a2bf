"""Every sampler, and Ray Tune's OptunaSearch, on a table of real trials: 150 trials each, over 20 seeds.

    pip install --editable ".[benchmark]"                 # scikit-learn, for the surrogate
    python benchmarks/search.py                           # all samplers but gp; half an hour of one core
    python benchmarks/search.py --samplers additive       # only this one; the others stay in the result
    python benchmarks/search.py --samplers additive --time-only   # seconds per proposal, on an idle machine
    python benchmarks/search.py --samplers tpe additive --seeds 5 --trials 60 --out few.json

Between the trials of the table (`make_search_table.py`) a surrogate answers: gradient-boosted trees, of a
class that no sampler here models with. Its error on points held out stands in the result, beside the SD of
the noise between seeds, and what training in float32 comes to beside bfloat16, for the table has both. A
sampler gets the surrogate's accuracy with noise, residuals of the repeated points drawn at random; the
size is exact.

hypervolume: of all points trained so far, by accuracy without noise and log bytes, up to chance (0.1) and the
size in full precision. chosen: the same of the points that are on the front by what the sampler was given,
which is what a user gets. Both as medians over seeds with their 95 % intervals by order statistics.
"""

import argparse
import json
import logging
import math
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pyarrow.parquet as pq
from ray.tune.search.optuna import OptunaSearch
from scipy import stats
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.model_selection import GroupKFold
from threadpoolctl import threadpool_limits

from ablate.analysis.hypervolume import hypervolume, hypervolume_over_trials
from ablate.analysis.pareto import front
from ablate.analysis.t_interval import mean_interval
from ablate.config.canonical import key_of
from ablate.config.precisions import WEIGHTS
from ablate.config.search_space import load_space
from ablate.config.study_spec import StudySpec
from ablate.config.trial_spec import TrialSpec
from ablate.data import datasets
from ablate.hardware import device_name
from ablate.models import checkpoints, layer_groups, loading
from ablate.profiling.cost_model import Counter
from ablate.runs.record import blank_record
from ablate.search.parameter_space import Point, Points
from ablate.search.searcher import Search

matplotlib.use("Agg")
RESULTS = Path(__file__).parent / "results"
CHANCE = 0.1
OURS = ("tpe", "nsga2", "random", "additive")  # gp takes seconds a proposal
MARKS = (25, 50, 100, 150)
DIRECTIONS = ["max", "min"]


class Table:
    """Real trials, and a surrogate between them: gradient-boosted trees on the axes, values in order."""

    def __init__(self, path: Path) -> None:
        frame = pq.read_table(path).to_pandas()
        self.axes = [name.removeprefix("axis.") for name in frame if name.startswith("axis.")]
        x = np.array(
            [self.code(row) for row in frame[[f"axis.{name}" for name in self.axes]].to_numpy().tolist()]
        )
        y, bf16 = frame["accuracy"].to_numpy(), frame["bf16"].to_numpy()
        points = frame.groupby([f"axis.{name}" for name in self.axes]).ngroup().to_numpy()
        self.accuracy = trees().fit(x, y)
        self.seconds = trees().fit(x[bf16], frame["train_seconds"].to_numpy()[bf16])  # of one kind of machine
        alike = frame["accuracy"].groupby([points, bf16])
        counts, means = alike.transform("size").to_numpy(), alike.transform("mean").to_numpy()
        many = counts > 1
        self.residuals = ((y - means) * np.sqrt(counts / np.maximum(counts - 1, 1)))[many]
        held = np.empty(len(y))
        for train, test in GroupKFold(5).split(x, y, points):
            held[test] = trees().fit(x[train], y[train]).predict(x[test])
        pairs = frame["accuracy"].groupby([points, frame["seed"], bf16]).mean().unstack().dropna()
        self.about = {
            "trials": len(y),
            "points": len(np.unique(points)),
            "points_of_3_seeds": len(np.unique(points[counts > 2])),
            "accuracy_sd": float(y.std()),
            "noise_sd": float(np.sqrt((self.residuals**2).mean())),
            "float32_less_bf16": dict(
                zip(("mean", "low", "high"), mean_interval(pairs[False] - pairs[True]), strict=True)
            ),
            "held_out_rmse": float(np.sqrt(((held - y) ** 2).mean())),
            "held_out_r2": float(1 - ((held - y) ** 2).mean() / y.var()),
            "held_out_spearman": float(stats.spearmanr(held, y).statistic),
        }

    def code(self, values: list[Any]) -> list[float]:
        return [
            float(WEIGHTS.index(v)) if v in WEIGHTS else math.nan if v == "none" else float(v) for v in values
        ]

    def __call__(self, point: Point) -> tuple[float, float]:
        """Accuracy without noise, and seconds of training."""
        x = np.array([self.code([point[name] for name in self.axes])])
        return float(self.accuracy.predict(x)[0]), float(self.seconds.predict(x)[0])


def trees() -> HistGradientBoostingRegressor:
    return HistGradientBoostingRegressor(
        max_iter=400, learning_rate=0.05, max_leaf_nodes=8, min_samples_leaf=8, random_state=0
    )


@dataclass
class World:
    """What a trial comes to, without training it."""

    table: Table
    space: str = "layers_bits"
    known: dict[str, tuple[float, float, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        model, preprocess = (
            checkpoints.load("vit-micro", datasets.load("cifar10-mini").classes),
            loading.preprocess("vit-micro"),
        )
        self.count = Counter(model, preprocess, layer_groups.groups(model))
        self.groups = list(self.count.groups)
        self.full = self.count(TrialSpec())["size_bytes"]

    def study(self, sampler: str, seed: int, trials: int) -> StudySpec:
        objectives = ("accuracy", "size_bytes")
        space = load_space(self.space)
        return StudySpec(
            question="?", space=space, objectives=objectives, sampler=sampler, seed=seed, trials=trials
        )

    def __call__(
        self, points: Points, spec: TrialSpec, rng: np.random.Generator
    ) -> tuple[float, float, float, int]:
        """Accuracy with and without noise, seconds, bytes."""
        if (
            key := json.dumps(
                {group: layer.model_dump() for group, layer in spec.layers.items()}, sort_keys=True
            )
        ) not in self.known:
            self.known[key] = *self.table(points.point(spec)), int(self.count(spec)["size_bytes"])
        true, seconds, size = self.known[key]
        return min(1.0, max(0.0, true + rng.choice(self.table.residuals))), true, seconds, size


Trials = list[tuple[float, float, float, int, str]]  # accuracy with noise, true accuracy, seconds, bytes, key
Proposer = Iterator[tuple[TrialSpec, Callable[[float, int], None]]]


def ours(world: World, sampler: str, seed: int, trials: int) -> Proposer:
    """Trials of `ablate.search.searcher`, each with what takes its outcome."""
    search = Search(world.study(sampler, seed, trials), world.groups, count=world.count)
    while spec := search.ask():

        def tell(accuracy: float, size: int, spec: TrialSpec = spec) -> None:
            record = blank_record(spec, key_of(spec)) | {
                "status": "complete",
                "accuracy": accuracy,
                "size_bytes": size,
            }
            search.tell(record)

        yield spec, tell


def stock(world: World, seed: int, trials: int) -> Proposer:
    """Trials of Ray Tune's OptunaSearch with its defaults, given space, metrics and seed; without Ray."""
    points = Points(world.study("random", seed, trials), world.groups)
    search = OptunaSearch(
        points.distributions, metric=["accuracy", "size_bytes"], mode=["max", "min"], seed=seed
    )
    for i in range(trials):
        spec = points.spec_at(search.suggest(str(i)))
        assert spec is not None, "every point of the space is a trial"

        def tell(accuracy: float, size: int, name: str = str(i)) -> None:
            search.on_trial_complete(name, {"accuracy": accuracy, "size_bytes": size})

        yield spec, tell


def run(world: World, sampler: str, seed: int, trials: int) -> dict[str, Any]:
    """One search: its curves (trials,), how often it trained a point again, and its seconds a proposal."""
    points = Points(world.study("random", seed, trials), world.groups)
    rng = np.random.default_rng([seed, 1])  # of the noise, the same for all samplers
    proposer = stock(world, seed, trials) if sampler == "stock" else ours(world, sampler, seed, trials)
    done: Trials = []
    waits = []
    while len(done) < trials:
        started = time.perf_counter()
        spec, tell = next(proposer)
        waits.append(time.perf_counter() - started)
        accuracy, true, seconds, size = world(points, spec, rng)
        done.append((accuracy, true, seconds, size, key_of(spec)))
        tell(accuracy, size)
    seen, sizes = np.array([row[:2] for row in done]), np.log([row[3] for row in done])
    reference = [CHANCE, math.log(world.full)]
    at = [n for n in MARKS if n <= trials]
    fronts = [front(np.column_stack([seen[:n, 0], sizes[:n]]), DIRECTIONS) for n in at]
    return {
        "hypervolume": hypervolume_over_trials(np.column_stack([seen[:, 1], sizes]), reference, DIRECTIONS),
        "chosen": [
            hypervolume(np.column_stack([seen[i, 1], sizes[i]]), reference, DIRECTIONS) for i in fronts
        ],
        "seconds": np.cumsum([row[2] for row in done]),
        "duplicates": trials - len({row[4] for row in done}),
        "proposal_s": waits,
    }


def median(values: Any) -> list[float | None]:
    """[median, low, high], the ends of its 95 % interval by order statistics; None for an infinite value."""
    found = np.sort(np.asarray(values, dtype=float))
    k = int(stats.binom.ppf(0.025, len(found), 0.5))
    low, high = found[max(0, k - 1)], found[min(len(found) - 1, len(found) - k)]
    return [float(v) if math.isfinite(v) else None for v in (statistics.median(found), low, high)]


def summary(runs: list[dict[str, Any]], target: float) -> dict[str, Any]:
    curves = np.array([found["hypervolume"] for found in runs])  # (seeds, trials)
    first = [int(np.argmax(curve >= target)) if (curve >= target).any() else None for curve in curves]
    seconds = [math.inf if i is None else found["seconds"][i] for i, found in zip(first, runs, strict=True)]
    waits = np.concatenate([found["proposal_s"] for found in runs])
    at = [n for n in MARKS if n <= curves.shape[1]]
    return {
        "hypervolume": [median(column) for column in curves.T],
        "chosen": {n: median([found["chosen"][i] for found in runs]) for i, n in enumerate(at)},
        "trials_to_stock": median([math.inf if i is None else i + 1 for i in first]),
        "seconds_to_stock": median(seconds),
        "seconds_of_all": median([found["seconds"][-1] for found in runs]),
        "duplicates": median([found["duplicates"] for found in runs]),
        "proposal_s": {
            "median": float(np.median(waits)),
            "p95": float(np.quantile(waits, 0.95)),
            "max": float(waits.max()),
        },
    }


def proposals_at(world: World, sampler: str, records: int, proposals: int = 10) -> dict[str, float]:
    """Seconds a proposal once a search knows so many records, of points at random."""
    study, rng = world.study("random", 0, records), np.random.default_rng(0)
    points, source, known = Points(study, world.groups), Search(study, world.groups), []
    while len(known) < records:
        source.history.proposed.add(key_of(spec := source.ask() or TrialSpec()))
        accuracy, _, _, size = world(points, spec, rng)
        known.append(
            blank_record(spec, "") | {"status": "complete", "accuracy": accuracy, "size_bytes": size}
        )
    search, waits = Search(world.study(sampler, 0, records), world.groups, known, world.count), []
    for _ in range(proposals):
        started = time.perf_counter()
        search.ask()
        waits.append(time.perf_counter() - started)
    return {"median": statistics.median(waits), "max": max(waits)}


def draw(result: dict[str, Any], path: Path) -> None:
    """The curves, with their intervals: all of them, and ours alone."""
    from matplotlib import pyplot as plt

    figure, (everyone, mine) = plt.subplots(1, 2, figsize=(9.6, 4.0), layout="constrained")
    for i, (name, found) in enumerate(result["samplers"].items()):
        curve = np.array(found["hypervolume"])  # (trials, 3)
        trials = np.arange(1, len(curve) + 1)
        for axes in (everyone,) if name == "stock" else (everyone, mine):
            axes.plot(
                trials, curve[:, 0], f"C{i}", label="Ray Tune's OptunaSearch" if name == "stock" else name
            )
            axes.fill_between(trials, curve[:, 1], curve[:, 2], color=f"C{i}", alpha=0.15, linewidth=0)
    ours = np.array([found["hypervolume"] for name, found in result["samplers"].items() if name != "stock"])
    mine.set(ylim=(0.995 * ours[:, 3].min(), 1.005 * ours.max()), title="ours, from the four anchors on")
    everyone.set(ylabel="hypervolume (accuracy above chance x log bytes)")
    everyone.axhline(result["target"], color="0.5", linewidth=0.8, linestyle=":")
    for axes in (everyone, mine):
        axes.set(xlabel="trials", xlim=(1, result["trials"]))
    everyone.legend(frameon=False, loc="lower right")
    for suffix in ("png", "pdf"):
        figure.savefig(path.with_suffix(f".{suffix}"), dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", type=Path, default=RESULTS / "search_table.parquet")
    parser.add_argument(
        "--samplers", nargs="+", choices=[*OURS, "gp"], help="these anew; all but gp by default"
    )
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--trials", type=int, default=150)
    parser.add_argument(
        "--records", type=int, default=1000, help="known when a proposal is timed; 0: none is"
    )
    parser.add_argument(
        "--time-only", action="store_true", help="with --samplers: time those proposals again, nothing else"
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "search.json")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # Optuna's experimental options
    logging.getLogger("ray").setLevel(logging.ERROR)
    threadpool_limits(1)  # the surrogate's trees are too small for more
    world = World(Table(options.table))
    names = ["ablate-vit", "optuna", "ray", "scipy", "scikit-learn", "numpy"]
    result: dict[str, Any] = {
        "hardware": {"device": device_name(), "cpus": os.cpu_count()},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in names}},
        "table": world.table.about,
        "trials": options.trials,
        "seeds": list(range(options.seeds)),
        "reference": {"accuracy": CHANCE, "size_bytes": world.full},
        "samplers": {},
    }
    print(json.dumps(result["table"], indent=1), flush=True)
    before = json.loads(options.out.read_text()) if options.samplers and options.out.exists() else {}
    if other := [
        key for key, value in result.items() if key != "samplers" and before.get(key, value) != value
    ]:
        parser.error(
            f"{options.out} must be of the same {other[0]} for its other samplers to stay; give another --out"
        )
    result |= before
    for name in [*([] if before else ["stock"]), *(options.samplers or OURS)]:
        if options.time_only:
            result["samplers"][name]["proposal_s_at"] = {
                options.records: proposals_at(world, name, options.records)
            }
            continue
        runs = [run(world, name, seed, options.trials) for seed in range(options.seeds)]
        if name == "stock":
            result["target"] = statistics.median(found["hypervolume"][-1] for found in runs)
        result["samplers"][name] = summary(runs, result["target"])
        if options.records and name != "stock":
            result["samplers"][name]["proposal_s_at"] = {
                options.records: proposals_at(world, name, options.records)
            }
        brief = {key: value for key, value in result["samplers"][name].items() if key != "hypervolume"}
        at = {n: result["samplers"][name]["hypervolume"][n - 1] for n in MARKS if n <= options.trials}
        print(name, json.dumps({"hypervolume": at} | brief), flush=True)
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    draw(result, options.out)


if __name__ == "__main__":
    main()
