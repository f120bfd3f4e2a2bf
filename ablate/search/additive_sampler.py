"""A sampler for effects that add up: a model of them, solved for several budgets as an integer programme.

What is learned (accuracy, loss) is modelled by `surrogate`. What is counted (bytes) is a sum over the axes,
or nearly; other costs (bit operations, seconds) are regressed on the records. `scipy.optimize.milp` finds the
largest predicted score within each of a series of budgets, and the point that would add the most hypervolume
is proposed. The prediction is the posterior's mean until no point improves on the front by it; then it is
drawn from the posterior, at rising temperatures (Thompson sampling), as TSEMO does throughout [Bradford et
al. 2018, J. Glob. Optim. 71].
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import moocore
import numpy as np
from scipy import optimize

from ablate.config.objectives import SIGN, TABLE
from ablate.config.study_spec import StudySpec
from ablate.profiling.cost_model import Count
from ablate.search.encoding import OrdinalEncoder
from ablate.search.parameter_space import Point, Points
from ablate.search.surrogate import (
    EPSILON,
    Array,
    GaussianProcess,
    IntArray,
    Levels,
    QuadraticModel,
    fit_linear,
)

N_INITIAL = 4  # balanced random points after the anchors: each tells something of every axis
N_BUDGETS = 8  # programmes for a proposal
N_LINEARIZATIONS = 2  # programmes for a budget, where there are pairs
NODE_LIMIT = (
    50  # of a programme's search tree, after which the best so far counts; seconds would not be repeatable
)
TEMPERATURES = (0.0, 0.3, 1.0)  # of the posterior's draws
BUDGET_RANGE = 1e4  # largest budget over the smallest, at most


@dataclass(frozen=True)
class Observations:
    """Encoded points, and the objectives of each."""

    points: Sequence[Point] = ()
    values: Sequence[Sequence[float]] = ()


class AdditiveSampler:
    """Proposes encoded points. What it knows beforehand is a function of the study and of `count`.

    Args:
        study: The study.
        points: Its search space.
        encoder: Encodes the points of the space.
        count: Counts the costs of a trial before it is trained.
    """

    def __init__(self, study: StudySpec, points: Points, encoder: OrdinalEncoder, count: Count) -> None:
        self.study, self.points, self.encoder, self.count = study, points, encoder, count
        self.levels = Levels(encoder.distributions)
        self.names = list(study.objectives)
        self.signs = np.array([SIGN[direction] for direction in study.directions.values()])
        self.scores = [
            i for i, name in enumerate(self.names) if TABLE[name].known in ("scored", "computed")
        ] or [0]
        self.costs = [i for i in range(len(self.names)) if i not in self.scores]
        self.counted = self._fit_counted()

    def initial_points(self) -> list[Point]:
        """A few random points in which each axis has its levels equally often."""
        rng = np.random.default_rng([self.study.seed, N_INITIAL])
        sizes = [len(values) for values in self.levels.values]
        permutations = [[rng.permutation(n) for _ in range(N_INITIAL // n + 1)] for n in sizes]
        columns = [np.concatenate(parts)[:N_INITIAL] for parts in permutations]
        return [self.levels.point([int(column[i]) for column in columns], rng) for i in range(N_INITIAL)]

    def propose(
        self,
        complete: Observations,
        pruned: Observations,
        pending: Sequence[Point],
        rng: np.random.Generator,
    ) -> Iterator[Point]:
        """Encoded points, the best first.

        Args:
            complete: Trials that have ended.
            pruned: Trials that were stopped early, with extrapolated objectives.
            pending: Trials that run: what they would add is not counted twice.
            rng: Draws budgets, weights of the scores, and functions.

        Yields:
            Points that would add hypervolume; at the highest temperature the others, too.
        """
        if not complete.points:  # as where many trials run at once, and none has ended yet
            for _ in range(N_INITIAL):
                yield self._random_point(rng)
            return
        # (n, m); the surest are the latest.
        values = np.array([*pruned.values, *complete.values], dtype=float)
        features = self.levels.features_of([*pruned.points, *complete.points])
        n_complete, running = len(complete.points), self.levels.features_of([*complete.points, *pending])
        models: dict[int, QuadraticModel] = {
            i: self.counted.get(self.names[i]) or fit_linear(features, values[:, i]) for i in self.costs
        }
        processes = {i: GaussianProcess(features, values[:, i] * self.signs[i]) for i in self.scores}
        for temperature in TEMPERATURES:
            models |= {i: process.draw(rng, temperature) for i, process in processes.items()}
            known = np.column_stack([models[i](running) for i in range(len(self.names))])
            known[:n_complete, self.costs] = values[-n_complete:, self.costs]
            candidates = list(self._optima(models, np.ptp(known, axis=0), rng))
            gains = self._gains(known, self._predicted(models, candidates)) if candidates else np.zeros(0)
            for i in np.argsort(-gains, kind="stable"):
                if gains[i] > 0 or temperature == TEMPERATURES[-1]:
                    yield candidates[i]

    def _random_point(self, rng: np.random.Generator) -> Point:
        return self.levels.point([int(rng.integers(len(values))) for values in self.levels.values], rng)

    def _optima(
        self, models: dict[int, QuadraticModel], spans: Array, rng: np.random.Generator
    ) -> Iterator[Point]:
        """The points with the best score within budgets, which are spread evenly on a log scale."""
        features = self.levels.features
        shares = rng.dirichlet(np.ones(len(self.scores)))  # of several scores
        weights = {i: share / max(spans[i], EPSILON) for i, share in zip(self.scores, shares, strict=True)}
        single = sum(weight * features @ models[i].single for i, weight in weights.items())  # (levels,)
        # (levels, levels).
        pairs = sum(
            weight * features @ (models[i].pairs + models[i].pairs.T) @ features.T
            for i, weight in weights.items()
        )
        bounds = {name: bound for name, bound in self.study.within.items() if name in self.counted}
        bounded = [
            (features @ self.counted[name].single, bound - self.counted[name].constant)
            for name, bound in bounds.items()
        ]
        each = (np.arange(N_BUDGETS) + rng.random(N_BUDGETS)) / N_BUDGETS
        shuffled = [rng.permutation(each) for _ in self.costs]  # the budgets of each cost
        for fractions in zip(*shuffled, strict=True) if self.costs else [()]:
            budgets = [
                self._budget(models[i], fraction) for i, fraction in zip(self.costs, fractions, strict=True)
            ]
            chosen = solve(-single, -pairs, self.levels.axis_of, budgets + bounded)
            if chosen is not None:
                yield self.levels.point(chosen, rng)

    def _budget(self, model: QuadraticModel, fraction: float) -> tuple[Array, float]:
        """The cost of each level (levels,) and the limit of their sum; fraction 0 leaves the cheapest."""
        costs = self.levels.features @ model.single
        starts = _first_levels(self.levels.axis_of)
        largest = model.constant + np.maximum.reduceat(costs, starts).sum()
        smallest = model.constant + np.minimum.reduceat(costs, starts).sum()
        smallest = max(smallest, largest / BUDGET_RANGE)
        return costs, smallest * (largest / smallest) ** fraction - model.constant

    def _predicted(self, models: dict[int, QuadraticModel], candidates: list[Point]) -> Array:
        """Objectives of points, (k, m), all to be minimised; those that can be counted are exact."""
        z = self.levels.features_of(candidates)
        predicted = np.column_stack([models[i](z) for i in range(len(self.names))])
        for row, point in zip(predicted, candidates, strict=True):
            spec = self.points.spec_at(self.encoder.decode(point))
            counted = self.count(spec) if spec is not None else {}
            for i in self.costs:
                row[i] = counted.get(self.names[i], row[i])
        return predicted

    def _gains(self, known: Array, candidates: Array) -> Array:
        """The hypervolume (k,) that candidates (k, m) add to known points (n, m), costs on a log scale."""
        both = np.vstack([known, candidates])
        for i in self.costs:
            both[:, i] = np.log(np.maximum(both[:, i], both[: len(known), i].max() / BUDGET_RANGE))
        known, candidates = np.split(both, [len(known)])
        worst, best = known.max(axis=0), known.min(axis=0)
        reference = worst + np.where(worst > best, 0.1 * (worst - best), 1.0)
        if "accuracy" in self.names and (least := self.study.within.get("accuracy")):
            reference[self.names.index("accuracy")] = -least
        front = known[moocore.is_nondominated(known)]
        volumes = [moocore.hypervolume(np.vstack([front, point]), reference) for point in candidates]
        margin = 1 - 1e-9  # so that a known point adds nothing
        return np.array(volumes) * margin - moocore.hypervolume(front, reference)

    def _fit_counted(self) -> dict[str, QuadraticModel]:
        """Models of the counted costs, fitted at random points; exact where a cost is a sum over the axes."""
        rng = np.random.default_rng([self.study.seed, N_BUDGETS])
        n_levels = sum(len(values) for values in self.levels.values)
        drawn = [self._random_point(rng) for _ in range(2 * n_levels)]
        specs = ((point, self.points.spec_at(self.encoder.decode(point))) for point in drawn)
        rows = [(point, self.count(spec)) for point, spec in specs if spec]
        z = self.levels.features_of([point for point, _ in rows])
        names = rows[0][1] if rows else ()
        return {
            name: fit_linear(z, np.array([costs[name] for _, costs in rows], dtype=float)) for name in names
        }


def solve(
    single: Array, pairs: Array, axis_of: IntArray, budgets: Sequence[tuple[Array, float]]
) -> list[int] | None:
    """The level of each axis that maximises single x + x pairs x / 2, where x is 1 for a chosen level.

    Without pairs the solution is optimal. With pairs the objective is linearised: first around equal weights
    of an axis' levels, then around the last programme's solution; the best solution of them counts.

    Args:
        single: Score of each level, (levels,).
        pairs: Score of each pair of levels, symmetric, (levels, levels).
        axis_of: The number of each level's axis, in ascending order, (levels,).
        budgets: The cost of each level, (levels,), and the limit of the chosen levels' sum.

    Returns:
        The index of the chosen level on each axis; None where no choice keeps the budgets.
    """
    starts = _first_levels(axis_of)
    constraints = [
        optimize.LinearConstraint((np.arange(len(starts))[:, None] == axis_of).astype(float), 1, 1)
    ]
    for costs, limit in budgets:
        unit = np.abs(costs).max() or 1.0  # HiGHS' absolute tolerance is then a millionth of the largest cost
        constraints.append(optimize.LinearConstraint(costs / unit, -np.inf, limit / unit))
    x, best, best_value = 1 / np.bincount(axis_of)[axis_of], None, -np.inf
    for _ in range(N_LINEARIZATIONS if pairs.any() else 1):
        result = optimize.milp(
            -(single + pairs @ x),
            integrality=np.ones(len(axis_of)),
            bounds=(0, 1),
            constraints=constraints,
            options={"node_limit": NODE_LIMIT},
        )
        if result.x is None:
            break
        x = np.round(result.x)
        if (value := single @ x + x @ pairs @ x / 2) > best_value:
            best, best_value = x, value
    return None if best is None else (np.flatnonzero(best) - starts).tolist()


def _first_levels(axis_of: IntArray) -> IntArray:
    """Where the levels of each axis begin, (axes,)."""
    return np.flatnonzero(np.diff(axis_of, prepend=-1))
