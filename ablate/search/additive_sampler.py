"""A sampler that knows how precisions add up: a model of their effects, solved for many budgets as an integer programme.

What is learned (accuracy, loss) is modelled by `surrogate`; what is counted (bytes) is a sum over the axes, or nearly, and
other costs (bit operations, seconds) are regressed on the records. `scipy.optimize.milp` finds the largest predicted score
within each of a series of budgets, and proposed is what would add the most hypervolume. It goes by the mean of the
posterior until that promises nothing new, then by functions drawn from the posterior ever more freely (Thompson sampling),
as TSEMO does throughout [Bradford et al. 2018, J. Glob. Optim. 71].
"""

from collections.abc import Iterator, Sequence

import moocore
import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from ablate.config.objectives import SIGN, TABLE
from ablate.config.study_spec import StudySpec
from ablate.profiling.cost_model import Count
from ablate.search.optuna_samplers import Code
from ablate.search.parameter_space import Point, Points
from ablate.search.surrogate import LEAST, Array, Effects, Form, Levels, straight

START = 4  # balanced points at random after the anchors: each tells something of every axis
BUDGETS = 8  # programmes a proposal
PASSES = 2  # programmes a budget, where there are pairs
NODES = 50  # of a programme's tree, after which the best so far is taken: a limit in seconds would not be repeatable
HEATS = (0.0, 0.3, 1.0)  # how freely functions are drawn
SPAN = 1e4  # of budgets, at most, from the largest down

Told = tuple[Sequence[Point], Sequence[Sequence[float]]]  # coded points, and their objectives


class Additive:
    """Proposes coded points. What it knows is a function of the study and of `count`."""

    def __init__(self, study: StudySpec, points: Points, coded: Code, count: Count) -> None:
        self.study, self.points, self.coded, self.count = study, points, coded, count
        self.levels = Levels(coded.axes)
        self.names = list(study.objectives)
        self.signs = np.array([SIGN[direction] for direction in study.directions.values()])
        self.scores = [i for i, name in enumerate(self.names) if TABLE[name].known == "scored"] or [0]
        self.costs = [i for i in range(len(self.names)) if i not in self.scores]
        self.counted = self._counted()

    def starts(self) -> list[Point]:
        """A few random points in which each axis has its levels equally often."""
        rng = np.random.default_rng([self.study.seed, START])
        rounds = [[rng.permutation(len(v)) for _ in range(START // len(v) + 1)] for v in self.levels.values]
        orders = [np.concatenate(parts)[:START] for parts in rounds]
        return [self.levels.point([int(order[i]) for order in orders], rng) for i in range(START)]

    def propose(
        self, told: Told, running: Sequence[Point], rng: np.random.Generator, stopped: Told = ((), ())
    ) -> Iterator[Point]:
        """Points, the best first. told: those that ended; running: those under way; stopped: with what they promised."""
        (ended, values), (others, promised) = told, stopped
        every = np.array(
            [*promised, *values], dtype=float
        )  # (n or more, objectives); the surest are the latest
        n, seen, known = len(ended), self.levels.code([*ended, *running]), self.levels.code([*others, *ended])
        if not n:  # as where many trials run at once, and none has ended yet
            yield from (
                self.levels.point([int(rng.integers(len(v))) for v in self.levels.values], rng)
                for _ in range(START)
            )
            return
        forms: dict[int, Form] = {
            i: self.counted.get(self.names[i]) or straight(known, every[:, i]) for i in self.costs
        }
        models = {i: Effects(known, every[:, i] * self.signs[i]) for i in self.scores}
        for heat in HEATS:
            forms |= {i: model.draw(rng, heat) for i, model in models.items()}
            before = np.column_stack([forms[i](seen) for i in range(len(self.names))])
            before[:n, self.costs] = every[-n:, self.costs]
            found = list(self._solved(forms, np.ptp(before, axis=0), rng))
            gains = self._gains(before, self._predicted(forms, found)) if found else np.zeros(0)
            for i in np.argsort(-gains, kind="stable"):
                if gains[i] > 0 or heat == HEATS[-1]:
                    yield found[i]

    def _solved(self, forms: dict[int, Form], spans: Array, rng: np.random.Generator) -> Iterator[Point]:
        """The points with the best score within budgets that are spread evenly, on a log scale, over all that is possible."""
        features, of = self.levels.features, self.levels.of
        shares = rng.dirichlet(np.ones(len(self.scores)))  # of several scores
        weights = {i: share / max(spans[i], LEAST) for i, share in zip(self.scores, shares, strict=True)}
        single = sum(weight * features @ forms[i].single for i, weight in weights.items())  # (levels,)
        pairs = sum(
            weight * features @ (forms[i].pairs + forms[i].pairs.T) @ features.T
            for i, weight in weights.items()
        )
        limits = {name: bound for name, bound in self.study.within.items() if name in self.counted}
        fixed = [
            (features @ self.counted[k].single, bound - self.counted[k].constant)
            for k, bound in limits.items()
        ]
        each = (np.arange(BUDGETS) + rng.random(BUDGETS)) / BUDGETS
        for row in zip(*(rng.permutation(each) for _ in self.costs), strict=True) if self.costs else [()]:
            rows = [_budget(forms[i], features, of, share) for i, share in zip(self.costs, row, strict=True)]
            if (chosen := solve(-single, -pairs, of, rows + fixed)) is not None:
                yield self.levels.point(chosen, rng)

    def _predicted(self, forms: dict[int, Form], found: list[Point]) -> Array:
        """Objectives of points, (k, m), those that can be counted exactly; a score with its sign, so that less is better."""
        z = self.levels.code(found)
        predicted = np.column_stack([forms[i](z) for i in range(len(self.names))])
        for row, point in zip(predicted, found, strict=True):
            spec = self.points.spec_at(self.coded.decode(point))
            counted = self.count(spec) if spec is not None else {}
            for i in self.costs:
                row[i] = counted.get(self.names[i], row[i])
        return predicted

    def _gains(self, before: Array, after: Array) -> Array:
        """The hypervolume that each of `after` (k, m) adds to `before` (n, m), with costs on a log scale: (k,)."""
        both = np.vstack([before, after])
        for i in self.costs:
            both[:, i] = np.log(np.maximum(both[:, i], both[: len(before), i].max() / SPAN))
        before, after = np.split(both, [len(before)])
        worst, best = before.max(axis=0), before.min(axis=0)
        reference = worst + np.where(worst > best, 0.1 * (worst - best), 1.0)
        if "accuracy" in self.names and (least := self.study.within.get("accuracy")):
            reference[self.names.index("accuracy")] = -least
        front = before[moocore.is_nondominated(before)]
        volumes = [moocore.hypervolume(np.vstack([front, point]), reference) for point in after]
        return np.array(volumes) * (1 - 1e-9) - moocore.hypervolume(
            front, reference
        )  # a seen point adds nothing

    def _counted(self) -> dict[str, Form]:
        """What is known of a trial before it is trained, by points at random; exact where each level adds its own."""
        rng = np.random.default_rng([self.study.seed, BUDGETS])
        sizes = [len(values) for values in self.levels.values]
        drawn = [
            self.levels.point([int(rng.integers(size)) for size in sizes], rng) for _ in range(2 * sum(sizes))
        ]
        rows = [
            (point, self.count(spec))
            for point in drawn
            if (spec := self.points.spec_at(self.coded.decode(point)))
        ]
        z = self.levels.code([point for point, _ in rows])
        names = rows[0][1] if rows else ()
        return {
            name: straight(z, np.array([costs[name] for _, costs in rows], dtype=float)) for name in names
        }


def _budget(form: Form, features: Array, of: NDArray[np.int64], share: float) -> tuple[Array, float]:
    """A row of the programme: what the levels cost (levels,), and at most how much; share 0 leaves only the cheapest."""
    costs = features @ form.single
    starts = np.flatnonzero(np.diff(of, prepend=-1))
    most = form.constant + np.maximum.reduceat(costs, starts).sum()
    least = max(form.constant + np.minimum.reduceat(costs, starts).sum(), most / SPAN)
    return costs, least * (most / least) ** share - form.constant


def solve(
    single: Array, pairs: Array, of: NDArray[np.int64], budgets: Sequence[tuple[Array, float]]
) -> list[int] | None:
    """The level of each axis, by its place there, with the largest x single + x pairs x / 2; None where nothing is possible.

    x (levels,) is 1 for the levels chosen, one an axis; pairs is symmetric; of (levels,): the axis of each; within budgets
    x costs <= limit. The best without pairs; with them, of programmes with the pairs as they are at the last one's solution.
    """
    starts = np.flatnonzero(np.diff(of, prepend=-1))
    rows = [optimize.LinearConstraint((np.arange(len(starts))[:, None] == of).astype(float), 1, 1)]
    for costs, limit in budgets:
        unit = np.abs(costs).max() or 1.0  # HiGHS' absolute tolerance is then a millionth of the largest cost
        rows.append(optimize.LinearConstraint(costs / unit, -np.inf, limit / unit))
    x, best, most = 1 / np.bincount(of)[of], None, -np.inf
    for _ in range(PASSES if pairs.any() else 1):
        options = {"node_limit": NODES}
        done = optimize.milp(
            -(single + pairs @ x),
            integrality=np.ones(len(of)),
            bounds=(0, 1),
            constraints=rows,
            options=options,
        )
        if done.x is None:
            break
        x = np.round(done.x)
        if (value := single @ x + x @ pairs @ x / 2) > most:
            best, most = x, value
    return None if best is None else (np.flatnonzero(best) - starts).tolist()
