"""Proposes trials: ask() and tell(record) over Optuna, with anchors first, no point twice, and an end."""

import itertools
import json
import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from pydantic import ValidationError

from ablate.analysis import pareto
from ablate.effective import USUAL, effective, is_outer
from ablate.ledger import Record
from ablate.spec import Axis, Each, LayerSpec, Range, Recipe, Spec, StudySpec, TrialSpec, Value, accepts

Point = dict[str, Any]  # axis name -> value
TRIES = 3  # proposals of the sampler in a row that were seen before, until the last of them is moved
MOVES = 20  # of it, one axis at a time, until a new point is drawn at random
MEMORY = 500  # the sampler learns from the front and from this many to twice as many latest trials: its time grows with them
ENUMERABLE = 100_000  # points of a space that is small enough to be listed


class Search:
    """A multi-objective search over a study's space. `groups` are the layer groups that the space applies to.

    What it proposes is a function of the seed, the records told so far in their order, and how many points it has
    proposed. So a search that is told a ledger's records goes on as the one that wrote them would have.
    """

    def __init__(self, study: StudySpec, groups: list[str], records: Iterable[Record] = ()) -> None:
        self.study, self.groups = study, groups
        self.axes = dict(sorted(_axes(study, groups)))  # what varies; sorted, since a TOML file keeps no order
        self.running: dict[str, optuna.trial.Trial] = {}  # by the key of what was proposed
        self.seen: set[str] = set()
        self.duplicates = 0  # proposals of the sampler that were seen before
        self._latest: Point = {}
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna = self._study([])
        records = list(records)
        taught = [record for record in records if self._teaches(record)]
        self._learned, whole = len(taught), len(taught) // MEMORY * MEMORY  # so many when it last forgot
        kept = [taught[i] for i in self._remembered([self._values(record) for record in taught[:whole]])] + taught[whole:]
        ids = {id(record) for record in kept}
        for record in records:
            spec = effective(TrialSpec.model_validate(record["spec"]))
            self.seen.add(key_of(spec))
            if id(record) in ids:
                self._learn(spec, record)

    @property
    def size(self) -> float:
        """Points of the space, counted before those that coincide are merged; infinite with a continuous axis."""
        return math.prod(_levels(axis) for axis in self.axes.values())

    @property
    def waits(self) -> bool:
        """Whether a trial under way must be told before there can be another."""
        return False

    @property
    def under_way(self) -> list[dict[str, Any]]:
        """The specs, as plain data, that were proposed and not told yet."""
        return [json.loads(key) for key in self.running]

    def ask(self) -> TrialSpec | None:
        """The next point, never one that was proposed before; None when the space is exhausted."""
        rng = np.random.default_rng([self.study.seed, len(self.seen)])
        self._optuna.sampler = _Sampler(self.axes, seed=int(rng.integers(2**31)), multivariate=True, constant_liar=True)
        tries = itertools.repeat(None, TRIES)  # None: where the sampler chooses
        points = itertools.chain(self._anchors(), tries, self._near(rng), self._unseen(rng))
        return next(filter(None, map(self._propose, points)), None)

    def tell(self, record: Record) -> None:
        """Take in how a trial ended. Only a complete one with every objective teaches the sampler."""
        spec = effective(TrialSpec.model_validate(record["spec"]))
        self.seen.add(key := key_of(spec))
        if key in self.running:
            self._optuna.tell(self.running.pop(key), state=TrialState.FAIL)  # replaced by what it came to, below
        if self._teaches(record):
            self._learn(spec, record)
            self._learned += 1
            if self._learned % MEMORY == 0:
                self._forget()

    def again(self, spec: TrialSpec) -> bool:
        """Propose a trial that another driver had under way; False where it is no new point of this space."""
        point = self._point(spec)
        return key_of(spec) not in self.seen and self.spec_at(point) == spec and self._propose(point) == spec

    def _teaches(self, record: Record) -> bool:
        values = self._values(record)
        return record["status"] == "complete" and all(v is not None and math.isfinite(v) for v in values)

    def _values(self, record: Record) -> list[Any]:
        return [record[name] for name in self.study.objectives]

    def _learn(self, spec: TrialSpec, record: Record) -> None:
        told = {"params": self._point(spec), "distributions": self.axes, "values": self._values(record)}
        self._optuna.add_trial(optuna.create_trial(**told))

    def _study(self, trials: list[optuna.trial.FrozenTrial]) -> optuna.Study:
        directions = ["maximize" if d == "max" else "minimize" for d in self.study.directions.values()]
        study = optuna.create_study(directions=directions)
        study.add_trials(trials)
        return study

    def _remembered(self, values: list[list[float]]) -> list[int]:
        """Of all trials up to now, those that the sampler goes on with: the front and the latest."""
        front = set(pareto.front(values, list(self.study.directions.values())))
        return [i for i in range(len(values)) if i in front or i >= len(values) - MEMORY]

    def _forget(self) -> None:
        """Go on with what is remembered, and with what is running."""
        complete = self._optuna.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        self._optuna = self._study([complete[i] for i in self._remembered([trial.values for trial in complete])])
        for key, trial in self.running.items():
            self._optuna.enqueue_trial(trial.params)
            self.running[key] = self._optuna.ask(self.axes)

    def _propose(self, point: Point | None) -> TrialSpec | None:
        """The trial at a point, or where the sampler chooses; None when it was proposed before or cannot be."""
        if point is not None and ((spec := self.spec_at(point)) is None or key_of(spec) in self.seen):
            return None
        if point is not None:
            self._optuna.enqueue_trial(point)
        trial = self._optuna.ask(self.axes)
        spec = self.spec_at(trial.params)
        if spec is None or (key := key_of(spec)) in self.seen:
            self._optuna.tell(trial, state=TrialState.FAIL)
            self.duplicates += spec is not None
            self._latest = trial.params
            return None
        self.seen.add(key)
        self.running[key] = trial
        return spec

    def _near(self, rng: np.random.Generator) -> Iterator[Point]:
        """Points ever farther from what the sampler proposed last, one axis drawn anew at a time."""
        for name in rng.choice(list(self.axes), MOVES) if self.axes else ():
            self._latest = self._latest | {name: _draw(self.axes[name], rng)}
            yield self._latest

    def _unseen(self, rng: np.random.Generator) -> Iterator[Point]:
        """Points at random: all that a small space has, and a few of a large one."""
        if self.size <= ENUMERABLE:
            choices = [_choices(axis) for axis in self.axes.values()]
            for number in rng.permutation(int(self.size)):
                index = np.unravel_index(number, [len(c) for c in choices] or [1])
                yield {name: c[i] for name, c, i in zip(self.axes, choices, index, strict=False)}
        else:
            for _ in range(MOVES):
                yield {name: _draw(axis, rng) for name, axis in self.axes.items()}

    def spec_at(self, point: Point) -> TrialSpec | None:
        """The trial at a point; None where the point's values exclude each other. Axes without effect leave no trace."""
        space, chosen = self.study.space, {}
        for group in self.groups:
            fields = {key: point.get(f"{group}.{key}", point.get(key, axis)) for key, axis in space.layer.items()}
            if fields["weights"] != "full":
                chosen[group] = fields
        recipe = self.study.recipe.model_dump() | {key: point.get(f"recipe.{key}", axis) for key, axis in space.recipe.items()}
        try:
            spec = TrialSpec(
                model=self.study.model,
                data=self.study.data,
                layers={group: LayerSpec(**fields) for group, fields in chosen.items()},
                fraction=point.get("fraction", space.fraction),
                recipe=Recipe(**recipe),
                seed=self.study.seed,
            )
        except ValidationError:
            return None
        return effective(spec)

    def _point(self, spec: TrialSpec) -> Point:
        """The point of a trial: the inverse of `_spec`, with the usual value on an axis that left no trace."""
        point = {}
        for name, axis in self.axes.items():
            owner, _, key = name.rpartition(".")
            layers = [spec.layers[owner]] if owner in spec.layers else [] if owner in self.groups else [*spec.layers.values()]
            value: Any
            if key == "fraction":
                value = spec.fraction
            elif key == "outer_full":  # it left its trace in the layers, if anywhere
                value = any(map(is_outer, self.groups)) and bool(spec.layers) and not any(map(is_outer, spec.layers))
            elif owner == "recipe":
                value = getattr(spec.recipe, key)
            elif key == "weights":
                value = layers[0].weights if layers else "full"
            else:  # layers share an axis' value, but for those where it has no effect
                value = next((v for layer in layers if (v := getattr(layer, key)) != USUAL[key]), USUAL[key])
            value = "none" if value is None else value
            point[name] = value if _on(axis, value) else _usual(name, axis)
        return point

    def _anchors(self) -> Iterator[Point]:
        """All full, all binary, all ternary, ...; then head and first block full with the rest binary."""
        usual = {name: _usual(name, axis) for name, axis in self.axes.items()}
        weights = {name: axis for name, axis in self.axes.items() if name.rpartition(".")[2] == "weights"}
        allowed = dict.fromkeys(kind for axis in weights.values() for kind in _choices(axis))
        for kind in allowed or [None]:
            yield usual | {name: kind for name, axis in weights.items() if kind in _choices(axis)}
        outer = {name for name in weights if name.startswith(("head.", "block0."))}
        if outer and {"full", "binary"} <= set(allowed):
            yield usual | {name: "full" if name in outer else "binary" for name in weights}


class _Sampler(optuna.samplers.TPESampler):
    """TPE over axes that are known; Optuna would gather them from all trials at each proposal."""

    def __init__(self, axes: dict[str, BaseDistribution], **options: Any) -> None:
        super().__init__(**options)
        self.axes = {name: axis for name, axis in axes.items() if not axis.single()}

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, BaseDistribution]:
        return self.axes


def _axes(study: StudySpec, groups: list[str]) -> Iterator[tuple[str, BaseDistribution]]:
    """The axes that vary, by name: `block0.fc1.weights` (each group's own), `activation_bits`, `recipe.…`, `fraction`."""
    space = study.space
    named: list[tuple[str, type[Spec], str, Axis]] = []
    for key, axis in space.layer.items():
        names = [f"{group}.{key}" for group in groups] if isinstance(axis, Each) else [key]
        named += [(name, LayerSpec, key, axis) for name in names]
    named += [(f"recipe.{key}", Recipe, key, axis) for key, axis in space.recipe.items()]
    named += [("fraction", TrialSpec, "fraction", space.fraction)]
    for name, spec, key, axis in named:
        if isinstance(axis, Range):
            between = axis.low + (axis.high - axis.low) / math.pi
            whole = not accepts(spec, key, between)  # a field that refuses such a number is an integer
            kind = IntDistribution if whole else FloatDistribution
            yield name, kind(axis.low, axis.high, log=axis.log)
        elif isinstance(axis, Each | tuple):
            yield name, CategoricalDistribution(axis.each if isinstance(axis, Each) else axis)


def _usual(name: str, axis: BaseDistribution) -> Any:
    """The field's own default where the axis has it, else the axis' last value."""
    key = name.rpartition(".")[2]
    defaults: dict[str, Value | None] = {**Recipe().model_dump(), **LayerSpec().model_dump(), "fraction": 1.0}
    default = "none" if defaults[key] is None else defaults[key]
    if _on(axis, default):
        return default
    if isinstance(axis, CategoricalDistribution):
        return axis.choices[-1]
    assert isinstance(axis, FloatDistribution | IntDistribution)
    return axis.high


def _on(axis: BaseDistribution, value: Any) -> bool:
    if isinstance(axis, CategoricalDistribution):
        return value in axis.choices
    assert isinstance(axis, FloatDistribution | IntDistribution)
    return isinstance(value, int | float) and axis.low <= value <= axis.high


def _draw(axis: BaseDistribution, rng: np.random.Generator) -> Any:
    if isinstance(axis, CategoricalDistribution):
        return axis.choices[rng.integers(len(axis.choices))]
    assert isinstance(axis, FloatDistribution | IntDistribution)
    unit = rng.random()
    value = axis.low * (axis.high / axis.low) ** unit if axis.log else axis.low + (axis.high - axis.low) * unit
    return round(value) if isinstance(axis, IntDistribution) else value


def _choices(axis: BaseDistribution) -> tuple[Any, ...]:
    if isinstance(axis, CategoricalDistribution):
        return axis.choices
    assert isinstance(axis, IntDistribution)
    return tuple(range(axis.low, axis.high + 1))


def _levels(axis: BaseDistribution) -> float:
    if isinstance(axis, IntDistribution):
        return axis.high - axis.low + 1
    return len(axis.choices) if isinstance(axis, CategoricalDistribution) else math.inf


def key_of(spec: TrialSpec) -> str:
    return json.dumps(spec.model_dump(), sort_keys=True)
