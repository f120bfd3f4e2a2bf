"""A sampler that knows how precisions add up: a model of their effects, solved for many budgets as an integer programme.

Accuracy is taken as a sum of effects, one a choice of each axis, and of products of two of them: a Gaussian process with
the kernel k + r k^2, where k adds up over the axes (the polynomial kernel of Rasmussen & Williams 2006, sec. 4.2.2). The
likelihood decides how large both are against the noise, and whether pairs are left out (r = 0). A function drawn from
its posterior (Thompson sampling) is maximised within a series of budgets by `scipy.optimize.milp`, and what would add the
most hypervolume by that function is proposed, as in TSEMO [Bradford et al. 2018, J. Glob. Optim. 71(2)].
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import moocore
import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from scipy import linalg, optimize

from ablate.constraints import Count
from ablate.ledger import Record
from ablate.points import Point, Points
from ablate.samplers import Code
from ablate.spec import StudySpec, TrialSpec
from ablate.effective import effective

Array = NDArray[np.float64]

START = 8  # balanced points at random, after the anchors
BUDGETS = 8  # programmes a proposal
STEPS = 7  # levels of a range in the programme; a finer list of integers is a range
PAIRS = (0.0, 0.03, 0.1, 0.3, 1.0)  # r: variance of the pairs over that of the single effects
SIGNAL = np.geomspace(0.03, 300.0, 14)  # variance of the single effects over that of the noise
JUDGED = 200  # latest trials by which both are chosen
FLAT = 1e4  # variance of an intercept over that of the noise
HEAT = 1.0
FLOOR = 1e-12


class Levels:
    """The axes of a space as levels, a range as a few, and points as numbers (n, p) in which neighbours on an axis are near.

    An axis with an order is coded cumulatively, a step from one level to the next being one effect; any other axis has an
    effect a choice, a range a straight line and a parabola. Each is centred and scaled to one mean square for all axes.
    """

    def __init__(self, axes: Mapping[str, BaseDistribution]) -> None:
        self.axes = dict(axes)  # as `Code` has them: an order is one of integers
        self.values = [_values(axis) for axis in axes.values()]
        raw = [_raw(axis, values) for axis, values in zip(axes.values(), self.values, strict=True)]
        self.means = [block.mean(axis=0) for block in raw]
        squares = [(block - mean).var(axis=0).sum() for block, mean in zip(raw, self.means, strict=True)]
        self.scales = [1 / math.sqrt(square * len(raw)) if square else 0.0 for square in squares]
        self.of = np.repeat(np.arange(len(raw)), [len(block) for block in raw])  # (levels,): the axis of each
        self.features = linalg.block_diag(*(self._scaled(i, block) for i, block in enumerate(raw)))  # (levels, p)

    def code(self, points: Sequence[Point]) -> Array:
        """(n, p)."""
        blocks = [self._scaled(i, _raw(axis, [p[name] for p in points])) for i, (name, axis) in enumerate(self.axes.items())]
        return np.hstack(blocks) if len(points) else np.zeros((0, self.features.shape[1]))

    def point(self, chosen: NDArray[np.int64], rng: np.random.Generator) -> Point:
        """The point with the chosen levels (axes,), of a range anywhere around its level."""
        starts = np.searchsorted(self.of, np.arange(len(self.values)))
        at = {name: v[k] for name, v, k in zip(self.axes, self.values, chosen - starts, strict=True)}
        return at | {name: _around(axis, at[name], rng) for name, axis in self.axes.items() if _continuous(axis)}

    def _scaled(self, i: int, block: Array) -> Array:
        return (block - self.means[i]) * self.scales[i]


def _continuous(axis: BaseDistribution) -> bool:
    return isinstance(axis, FloatDistribution) or (isinstance(axis, IntDistribution) and axis.high - axis.low > STEPS)


def _values(axis: BaseDistribution) -> list[Any]:
    if isinstance(axis, CategoricalDistribution):
        return list(axis.choices)
    assert isinstance(axis, FloatDistribution | IntDistribution)
    return _at(axis, np.linspace(0, 1, STEPS)) if _continuous(axis) else list(range(axis.low, axis.high + 1))


def _raw(axis: BaseDistribution, values: Sequence[Any]) -> Array:
    if isinstance(axis, CategoricalDistribution):
        return np.array([[value == choice for choice in axis.choices] for value in values], dtype=float)
    assert isinstance(axis, FloatDistribution | IntDistribution)
    if _continuous(axis):
        unit = _unit(axis, values)
        return np.column_stack([unit, (2 * unit - 1) ** 2])
    return (np.asarray(values)[:, None] > np.arange(axis.low, axis.high)).astype(float)


def _unit(axis: FloatDistribution | IntDistribution, values: Sequence[float]) -> Array:
    low, high, given = (np.log(v) if axis.log else np.asarray(v, dtype=float) for v in (axis.low, axis.high, values))
    return (given - low) / (high - low)


def _at(axis: FloatDistribution | IntDistribution, unit: Array) -> list[float]:
    found = axis.low * (axis.high / axis.low) ** unit if axis.log else axis.low + (axis.high - axis.low) * unit
    found = np.clip(found, axis.low, axis.high)
    return [round(v) for v in found] if isinstance(axis, IntDistribution) else found.tolist()


def _around(axis: BaseDistribution, value: float, rng: np.random.Generator) -> float:
    assert isinstance(axis, FloatDistribution | IntDistribution)
    unit = _unit(axis, [value]) + rng.uniform(-0.5, 0.5) / (STEPS - 1)
    return _at(axis, np.clip(unit, 0, 1))[0]


@dataclass(frozen=True)
class Sum:
    """A sum of effects and pairs of a point's numbers z (p,): constant + single z + z pairs z."""

    constant: float
    single: Array  # (p,)
    pairs: Array  # (p, p)

    def __call__(self, z: Array) -> Array:
        """(n, p) -> (n,)."""
        return self.constant + z @ self.single + ((z @ self.pairs) * z).sum(axis=1)


class Effects:
    """What is known of a sum after n values of it, with noise. of: (n,) whose records they are, each with its intercept."""

    def __init__(self, z: Array, values: Array, of: NDArray[np.int64]) -> None:
        self.z, self.of = z, of
        self.mean, self.scale = values.mean(), values.std() or 1.0
        self.y = (values - self.mean) / self.scale
        late = slice(max(0, len(z) - JUDGED), None)
        self.r, self.signal, self.noise = _judge(z[late], self.y[late], of[late])
        k = z @ z.T
        cov = self.signal * (k + self.r * k**2) + FLAT * (of[:, None] == of) + np.eye(len(z))
        self.factor = linalg.cho_factor(cov, lower=True, check_finite=False)

    def draw(self, rng: np.random.Generator, heat: float = 1.0) -> Sum:
        """One function of the posterior, by Matheron's rule; with heat 0 its mean. The intercept is that of `of` 0."""
        n, p = self.z.shape
        one = heat * math.sqrt(self.noise)
        single = one * math.sqrt(self.signal) * rng.standard_normal(p)
        pairs = one * math.sqrt(self.signal * self.r) * rng.standard_normal((p, p))
        rest = self.y - Sum(0.0, single, pairs)(self.z) - one * rng.standard_normal(n)
        a = linalg.cho_solve(self.factor, rest, check_finite=False)  # (n,)
        single = single + self.signal * self.z.T @ a
        pairs = pairs + self.signal * self.r * (self.z.T * a) @ self.z
        constant = FLAT * a[self.of == 0].sum()
        return Sum(self.mean + self.scale * constant, self.scale * single, self.scale * pairs)


def _judge(z: Array, y: Array, of: NDArray[np.int64]) -> tuple[float, float, float]:
    """r, the signal and the variance of the noise that the values are likeliest with, their intercepts left out."""
    same = (of[:, None] == of).astype(float)
    centre = np.eye(len(z)) - same / same.sum(axis=1)  # takes the mean of its own kind from each
    centred, free, k = centre @ y, max(1, len(z) - len(np.unique(of))), z @ z.T
    best = (-math.inf, 0.0, 1.0, 1.0)
    for r in PAIRS:
        values, vectors = np.linalg.eigh(centre @ (k + r * k**2) @ centre)
        spread = 1 + SIGNAL[:, None] * np.maximum(values, 0)  # (signals, n)
        noise = ((vectors.T @ centred) ** 2 / spread).sum(axis=1) / free
        likely = -np.log(spread).sum(axis=1) / 2 - free / 2 * np.log(noise + FLOOR)
        i = int(likely.argmax())
        best = max(best, (float(likely[i]), r, float(SIGNAL[i]), float(noise[i])))
    return best[1:]


class Additive:
    """Proposes points of a study's space. known: records of other runs, which teach the effects of precisions alone."""

    def __init__(self, study: StudySpec, points: Points, coded: Code, count: Count, known: Sequence[Record] = ()) -> None:
        self.study, self.points, self.coded, self.count = study, points, coded, count
        self.levels = Levels(coded.axes)
        self.signs = np.array([-1.0 if best == "max" else 1.0 for best in study.directions.values()])
        names = list(study.objectives)
        self.scores = [i for i, name in enumerate(names) if name in ("accuracy", "loss")] or [0]
        self.costs = [i for i in range(len(names)) if i not in self.scores]
        self._counted()
        self._recall(known)

    def _counted(self) -> None:
        """What each level adds to what is counted before training, by least squares over points at random."""
        rng = np.random.default_rng(self.study.seed)
        drawn = [self.random(rng) for _ in range(2 * len(self.levels.of))]
        rows = [(p, self.count(spec)) for p in drawn if (spec := self.points.spec_at(self.coded.decode(p))) is not None]
        self.counted: dict[str, Linear] = {}
        z = self.levels.code([p for p, _ in rows])
        for name in rows[0][1] if rows else ():
            self.counted[name] = Linear.fit(z, np.array([cost[name] for _, cost in rows], dtype=float))

    def random(self, rng):
        return self.levels.point(np.array([rng.choice(np.flatnonzero(self.levels.of == i)) for i in range(len(self.levels.values))]), rng)

    def _recall(self, known: Sequence[Record]) -> None:
        self.known_points, self.known_values, self.known_of = [], [], []
        sources: dict[str, int] = {}
        for record in known:
            spec = effective(TrialSpec.model_validate(record["spec"]))
            point = self.points.point(spec)
            at = self.points.spec_at(point)
            values = [record[self.study.objectives[i]] for i in self.scores]
            if record["status"] != "complete" or None in values or at is None or at.layers != spec.layers:
                continue
            source = json.dumps([spec.model, spec.data, spec.fraction, spec.recipe.model_dump()])
            self.known_points.append(self.coded.code(point))
            self.known_values.append(values)
            self.known_of.append(sources.setdefault(source, len(sources) + 1))

    def start(self, number: int) -> Point | None:
        if not 0 <= number < START:
            return None
        rng = np.random.default_rng([self.study.seed, 1])
        columns = []
        for i in range(len(self.levels.values)):
            own = np.flatnonzero(self.levels.of == i)
            columns.append(np.concatenate([rng.permutation(own) for _ in range(START // len(own) + 1)])[number])
        return self.coded.decode(self.levels.point(np.array(columns), np.random.default_rng([self.study.seed, 2, number])))

    def propose(self, told: Sequence[Point], values: Array, running: Sequence[Point], rng: np.random.Generator) -> Iterator[Point]:
        z = self.levels.code([*told, *running])
        n = len(told)
        zk = self.levels.code(self.known_points)
        of = np.concatenate([np.array(self.known_of, dtype=np.int64), np.zeros(n, dtype=np.int64)])
        seen = np.zeros((len(z), len(self.signs)))
        sums = {}
        for j, i in enumerate(self.scores):
            kv = np.array([v[j] for v in self.known_values], dtype=float)
            model = Effects(np.vstack([zk, z[:n]]), np.concatenate([kv, values[:, i]]) * self.signs[i], of)
            self.model = model
            sums[i] = model.draw(rng, HEAT)
            seen[:, i] = sums[i](z)
        linear = {}
        for i in self.costs:
            name = self.study.objectives[i]
            linear[i] = self.counted.get(name) or Linear.fit(z[:n], values[:, i])
            seen[:n, i] = values[:, i]
            seen[n:, i] = linear[i](z[n:])
        # programme
        weights = rng.dirichlet(np.ones(len(self.scores))) if len(self.scores) > 1 else [1.0]
        single = sum(w * sums[i].single / max(np.ptp(seen[:, i]), FLOOR) for w, i in zip(weights, self.scores))
        pairs = sum(w * sums[i].pairs / max(np.ptp(seen[:, i]), FLOOR) for w, i in zip(weights, self.scores))
        f = self.levels.features
        gain, gains = -f @ single, -f @ pairs @ f.T
        gains = gains + gains.T
        bounds = [(self.counted[name].rows(self.levels), bound) for name, bound in self.study.within.items() if name in self.counted]
        costs = [linear[i].rows(self.levels) for i in self.costs]
        found = []
        grid = (np.arange(BUDGETS) + rng.random(BUDGETS)) / BUDGETS
        share = np.column_stack([rng.permutation(grid) for _ in costs]) if costs else np.zeros((1, 0))
        x = None
        for row in share:
            budgets = []
            for u, (coef, const) in zip(row, costs):
                least, most = (const + sum(pick(coef[self.levels.of == a]) for a in range(len(self.levels.values))) for pick in (min, max))
                least = max(least, most / 1e4)
                budgets.append((coef, least * (most / least) ** u - const))
            budgets += [(coef, bound - const) for (coef, const), bound in bounds]
            x = solve(gain, gains, self.levels.of, budgets)
            if x is not None:
                found.append(self.levels.point(x, rng))
        if not found:
            return
        zc = self.levels.code(found)
        cand = np.zeros((len(found), len(self.signs)))
        for i in self.scores:
            cand[:, i] = sums[i](zc)
        specs = [self.points.spec_at(self.coded.decode(p)) for p in found]
        counted = [self.count(s) if s is not None else {} for s in specs]
        for i in self.costs:
            name = self.study.objectives[i]
            cand[:, i] = [c.get(name, v) for c, v in zip(counted, linear[i](zc))]
        both = np.vstack([seen, cand])
        for i in self.costs:
            if self.signs[i] > 0 and (both[:, i] > 0).all():
                both[:, i] = np.log(both[:, i])
        worst, best = both[: len(seen)].max(axis=0), both[: len(seen)].min(axis=0)
        ref = worst + 0.1 * (worst - best) + FLOOR
        for k, i in enumerate(self.scores):
            lim = self.study.within.get(self.study.objectives[i])
            if lim is not None:
                ref[i] = self.signs[i] * lim
        here = both[: len(seen)]
        here = here[moocore.is_nondominated(here)]
        vol = moocore.hypervolume(here, ref)
        gainv = [moocore.hypervolume(np.vstack([here, c]), ref) - vol for c in both[len(seen) :]]
        for i in np.argsort(-np.array(gainv), kind="stable"):
            yield self.coded.decode(found[i])


@dataclass(frozen=True)
class Linear:
    constant: float
    single: Array

    @classmethod
    def fit(cls, z, values):
        if not len(z):
            return cls(0.0, np.zeros(z.shape[1]))
        mean = values.mean()
        zm = z.mean(axis=0)
        single = np.linalg.lstsq(z - zm, values - mean, rcond=1e-6)[0]
        return cls(float(mean - zm @ single), single)

    def __call__(self, z):
        return self.constant + z @ self.single

    def rows(self, levels):
        return levels.features @ self.single, self.constant


def solve(gain: Array, gains: Array, of, budgets) -> NDArray[np.int64] | None:
    """The level of each axis, with the largest gain x + x gains x / 2 within the budgets: exact without pairs."""
    axes = of[-1] + 1
    one = optimize.LinearConstraint((np.arange(axes)[:, None] == of).astype(float), 1, 1)
    rows = [one] + [optimize.LinearConstraint(c / np.abs(c).max(), -np.inf, b / np.abs(c).max()) for c, b in budgets if np.abs(c).max() > 0]
    best, top = None, -np.inf
    tilt = gain + gains @ (1.0 / np.bincount(of))[of] if gains.any() else gain
    for _ in range(4):
        done = optimize.milp(-tilt, integrality=np.ones(len(of)), bounds=(0, 1), constraints=rows)
        if done.x is None:
            return best
        x = np.round(done.x)
        value = gain @ x + x @ gains @ x / 2
        if value <= top + 1e-12:
            break
        best, top = np.flatnonzero(x), value
        if not gains.any():
            break
        tilt = gain + gains @ x
    return best
