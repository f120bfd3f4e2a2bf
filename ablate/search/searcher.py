"""Proposes trials: ask() and tell(record) over Optuna, with anchors first, no point twice, and an end."""

import itertools
import json
import math
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState

from ablate.analysis import pareto
from ablate.analysis.bounds import excess, out_of_bounds
from ablate.config.canonical import effective, key_of
from ablate.config.study_spec import StudySpec
from ablate.config.trial_spec import TrialSpec
from ablate.profiling.cost_model import Count
from ablate.runs.ledger import trial_of
from ablate.runs.record import Record
from ablate.search.additive_sampler import Additive
from ablate.search.optuna_samplers import Code, attributes, sampler_of
from ablate.search.parameter_space import Point, Points, choices, draw
from ablate.search.successive_halving import Rungs

TRIES = 3  # proposals of the sampler in a row that were seen before, until the last of them is moved
MOVES = 20  # of it, one axis at a time, until a new point is drawn at random
MEMORY = 500  # the sampler learns from the front and from this many to twice as many latest trials, and from as many stopped
ENUMERABLE = 100_000  # points of a space that is small enough to be listed
COUNTABLE = 5_000  # the same where each point's cost must be counted, which takes milliseconds
WARNINGS = 16  # points at random, of which TPE is told those that are out of bounds


class Search:
    """A multi-objective search over a study's space. `groups` are the layer groups that the space applies to.

    What it proposes is a function of the seed, the records told so far in their order, and how many points it has
    proposed. So a search that is told a ledger's records goes on as the one that wrote them would have.
    """

    def __init__(
        self,
        study: StudySpec,
        groups: list[str],
        records: Iterable[Record] = (),
        count: Count = lambda spec: {},
    ) -> None:
        self.study, self.groups, self.count = study, groups, count
        self.points = Points(study, groups)
        self.axes = self.points.axes
        self.coded = Code(self.axes)
        additive = study.sampler == "additive" and self.axes  # where nothing varies there is nothing to solve
        self.additive = Additive(study, self.points, self.coded, count) if additive else None
        self._anchors = {
            key_of(spec) for point in self.points.anchors() if (spec := self.points.spec_at(point))
        }
        self.running: dict[str, optuna.trial.Trial] = {}  # by the key of what was proposed
        self.seen: set[str] = set()
        self.duplicates = 0  # proposals of the sampler that were seen before
        self.out_of_bounds = 0  # proposals of the sampler that would cost too much, and are not trained
        self._limits = {
            name: bound for name, bound in study.within.items() if name != "accuracy"
        }  # known before training
        self._latest: Point = {}
        self._rungs = Rungs(study)  # with what was stopped early, for the additive sampler
        self._stopped: dict[str, Point] = {}  # by trial, the latest MEMORY of them
        self._counted: dict[str, float] = {}  # how far out of bounds, by key; within one proposal
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._warnings = self._costly() if self._limits and study.sampler == "tpe" else []
        self._optuna = self._study([])
        records = list(records)
        taught = [record for record in records if self._teaches(record)]
        self._learned, whole = 0, len(taught) // MEMORY * MEMORY  # so many when it last forgot
        kept = [
            taught[i] for i in self._remembered([self._values(record) for record in taught[:whole]])
        ] + taught[whole:]
        ids = {id(record) for record in kept}
        for record in records:
            spec = effective(trial_of(record))
            self.seen.add(key_of(spec))
            if id(record) in ids:
                self._learn(spec, record)
            self._learned += self._teaches(record)
            self._race(spec, record)

    @property
    def size(self) -> float:
        """Points of the space, counted before those that coincide are merged; infinite with a continuous axis."""
        return self.points.size

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
        self._counted.clear()
        rng = np.random.default_rng([self.study.seed, len(self.seen)])
        self._optuna.sampler = sampler_of(
            self.study.sampler, self.coded.axes, int(rng.integers(2**31)), warned=len(self._warnings)
        )
        sampled = itertools.repeat(None, TRIES)  # None: where the sampler chooses
        tries = self._solved(self.additive, rng) if self.additive else sampled
        points = itertools.chain(self.points.anchors(), tries, self._near(rng), self._unseen(rng))
        return next(filter(None, map(self._propose, points)), None)

    def tell(self, record: Record) -> None:
        """Take in how a trial ended. Only a complete one with every objective teaches the sampler."""
        spec = effective(trial_of(record))
        self.seen.add(key := key_of(spec))
        if key in self.running:
            self._optuna.tell(
                self.running.pop(key), state=TrialState.FAIL
            )  # replaced by what it came to, below
        if self._teaches(record):
            self._learn(spec, record)
            self._learned += 1
            if self._learned % MEMORY == 0:
                self._forget()
        self._race(spec, record)

    def again(self, spec: TrialSpec) -> bool:
        """Propose a trial that another driver had under way; False where it is no new point of this space."""
        return (
            key_of(spec) not in self.seen
            and self.holds(spec)
            and self._propose(self.points.point(spec)) == spec
        )

    def holds(self, spec: TrialSpec) -> bool:
        """Whether a trial is a point of this space."""
        return self.points.spec_at(self.points.point(spec)) == effective(spec)

    def is_anchor(self, spec: TrialSpec) -> bool:
        """Whether a trial is one of the others' references: all full, all binary, ..."""
        return key_of(effective(spec)) in self._anchors

    def _teaches(self, record: Record) -> bool:
        values = self._values(record)
        return record["status"] == "complete" and all(v is not None and math.isfinite(v) for v in values)

    def _values(self, record: Record) -> list[Any]:
        return [record[name] for name in self.study.objectives]

    def _point(self, spec: TrialSpec) -> Point:
        """A coded point: an axis without effect on the trial has a value at random, as true as the usual one."""
        rng = np.random.default_rng(zlib.crc32(key_of(spec).encode()))
        return self.coded.code(
            self.points.point(spec) | {n: draw(self.axes[n], rng) for n in self.points.idle(spec)}
        )

    def _race(self, spec: TrialSpec, record: Record) -> None:
        """Where trials are stopped early, the additive sampler learns what they promised, by objectives known at a rung."""
        if (
            self.additive
            and self.study.early_stopping
            and {*self.study.objectives} <= {*self._rungs.directions}
        ):
            self._rungs.tell(record)
            if record["status"] == "pruned":
                self._stopped[record["trial_id"]] = self._point(spec)
                self._stopped = dict([*self._stopped.items()][-MEMORY:])

    def _learn(self, spec: TrialSpec, record: Record) -> None:
        told = {"params": self._point(spec), "distributions": self.coded.axes, "values": self._values(record)}
        known = {
            "system_attrs": attributes(self.study.sampler, self._learned),
            "constraints": self._excess(record),
        }
        self._optuna.add_trial(optuna.create_trial(**told, **known))

    def _excess(self, costs: Any) -> dict[str, float]:
        """By how much each bound is exceeded, as Optuna's constraints; what is not known exceeds none."""
        return dict.fromkeys(self.study.within, 0.0) | excess(costs, self.study.within)

    def _costly(self) -> list[optuna.trial.FrozenTrial]:
        """Points that cost too much, for TPE: it alone learns from a point without values.

        They are a function of the seed: what the sampler proposed in vain is in no ledger.
        """
        rng = np.random.default_rng(self.study.seed)
        points = [{name: draw(axis, rng) for name, axis in self.axes.items()} for _ in range(WARNINGS)]
        costs = [(point, self.count(spec)) for point in points if (spec := self.points.spec_at(point))]
        told = {"state": TrialState.PRUNED, "distributions": self.coded.axes}
        return [
            optuna.create_trial(params=self.coded.code(point), constraints=self._excess(cost), **told)
            for point, cost in costs
            if out_of_bounds(cost, self._limits)
        ]

    def _study(self, trials: list[optuna.trial.FrozenTrial]) -> optuna.Study:
        directions = ["maximize" if d == "max" else "minimize" for d in self.study.directions.values()]
        study = optuna.create_study(directions=directions)
        study.add_trials([*self._warnings, *trials])
        return study

    def _remembered(self, values: list[list[float]]) -> list[int]:
        """Of all trials up to now, those that the sampler goes on with: the front and the latest."""
        front = set(pareto.front(values, list(self.study.directions.values())))
        return [i for i in range(len(values)) if i in front or i >= len(values) - MEMORY]

    def _forget(self) -> None:
        """Go on with what is remembered, and with what is running."""
        complete = self._optuna.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        self._optuna = self._study(
            [complete[i] for i in self._remembered([trial.values for trial in complete])]
        )
        for key, trial in self.running.items():
            self._optuna.enqueue_trial(trial.params)
            self.running[key] = self._optuna.ask(self.coded.axes)

    def _propose(self, point: Point | None) -> TrialSpec | None:
        """The trial at a point, or where the sampler chooses; None when it was proposed before or cannot be."""
        if point is not None:
            if (
                (spec := self.points.spec_at(point)) is None
                or key_of(spec) in self.seen
                or self._beyond(spec)
            ):
                return None
            self._optuna.enqueue_trial(self.coded.code(point))
        trial = self._optuna.ask(self.coded.axes)
        proposed = self.coded.decode(trial.params)
        spec = self.points.spec_at(proposed)
        beyond = point is None and spec is not None and self._beyond(spec) > 0
        if spec is None or beyond or key_of(spec) in self.seen:
            self._optuna.tell(trial, state=TrialState.FAIL)
            self.duplicates += spec is not None and not beyond
            self.out_of_bounds += beyond
            self._latest = proposed
            return None
        key = key_of(spec)
        self.seen.add(key)
        self.running[key] = trial
        return spec

    def _beyond(self, spec: TrialSpec) -> float:
        """How far a trial's cost is out of bounds, as far as it is known before training."""
        if not self._limits:
            return 0.0
        if (key := key_of(spec)) not in self._counted:
            self._counted[key] = out_of_bounds(self.count(spec), self._limits)
        return self._counted[key]

    def _solved(self, additive: Additive, rng: np.random.Generator) -> Iterator[Point]:
        """Points that the additive model proposes, the best first."""
        trials = self._optuna.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        told = [trial.params for trial in trials], [trial.values for trial in trials]
        running = [trial.params for trial in self.running.values()]
        promised = {
            name: found
            for name, found in self._rungs.extrapolated_objectives().items()
            if name in self._stopped
        }
        values = [[found[name] for name in self.study.objectives] for found in promised.values()]
        proposed = additive.propose(told, running, rng, ([self._stopped[name] for name in promised], values))
        for point in itertools.chain(additive.starts(), proposed):
            self._latest = self.coded.decode(point)
            yield self._latest

    def _near(self, rng: np.random.Generator) -> Iterator[Point]:
        """Points ever farther from what the sampler proposed last, one axis drawn anew at a time; towards the bounds."""
        moves = max(MOVES, 10 * len(self.axes)) if self._limits else MOVES
        for name in rng.choice(list(self.axes), moves) if self.axes else ():
            moved = self._latest | {name: draw(self.axes[name], rng)}
            if self._limits:
                here, there = (self.points.spec_at(point) for point in (self._latest, moved))
                if here and (not there or self._beyond(there) > self._beyond(here)):
                    continue
            self._latest = moved
            yield moved

    def _unseen(self, rng: np.random.Generator) -> Iterator[Point]:
        """Points at random: all that a small space has, and a few of a large one."""
        if self.size <= (COUNTABLE if self._limits else ENUMERABLE):
            listed = {name: choices(axis) for name, axis in self.axes.items()}
            varied = {
                name: c for name, c in listed.items() if len(c) > 1
            }  # NumPy counts in 64 dimensions at most
            for number in rng.permutation(int(self.size)):
                index = np.unravel_index(number, [len(c) for c in varied.values()] or [1])
                chosen = {name: c[i] for (name, c), i in zip(varied.items(), index, strict=False)}
                yield {name: c[0] for name, c in listed.items()} | chosen
        else:
            for _ in range(MOVES):
                yield {name: draw(axis, rng) for name, axis in self.axes.items()}
