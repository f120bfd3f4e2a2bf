"""Proposes trials: ask() and tell(record) over Optuna, with anchors first, no point twice, and an end."""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Any

import numpy as np
import optuna

from ablate.config.canonical import effective, key_of
from ablate.config.study_spec import StudySpec
from ablate.config.trial_spec import TrialSpec
from ablate.profiling.cost_model import Count
from ablate.runs.record import Record
from ablate.search.additive_sampler import AdditiveSampler
from ablate.search.distributions import choices, draw
from ablate.search.encoding import OrdinalEncoder
from ablate.search.history import CostBounds, History
from ablate.search.optuna_samplers import N_STARTUP, sampler_factory
from ablate.search.parameter_space import Point, Points

TRIES = 3  # rejected proposals of the sampler in a row, until the last of them is moved
MOVES = 20  # of it, one axis at a time, until a point is drawn at random
ENUMERABLE = 100_000  # points of a space that is small enough to be listed
COUNTABLE = 5_000  # the same where each point's cost must be counted, which takes milliseconds


class Rejection(Enum):
    """Why a point is not proposed."""

    INFEASIBLE = "its values exclude each other"
    DUPLICATE = "it was proposed before"
    OUT_OF_BOUNDS = "it is counted to cost more than the study allows"


class Search:
    """A multi-objective search over a study's space.

    What it proposes is a function of the seed, of the records told so far in their order, and of how many
    points it has proposed. So a search that is given a ledger's records goes on as the one that wrote them
    would have.

    Args:
        study: The study. A user's own sampler is imported here.
        groups: Names of the layer groups that the space applies to.
        records: Of earlier trials, in the order of the ledger.
        count: Counts the costs of a trial before it is trained.

    Raises:
        BadInput: The study's sampler is unknown, cannot be imported, or is not a sampler.
    """

    def __init__(
        self,
        study: StudySpec,
        groups: list[str],
        records: Iterable[Record] = (),
        count: Count = lambda spec: {},
    ) -> None:
        self.study, self.groups = study, groups
        self.points = Points(study, groups)
        self.encoder = OrdinalEncoder(self.points.distributions)
        self.factory = sampler_factory(study.sampler)
        self.bounds = CostBounds(study, count)
        # Without axes there is nothing to solve.
        is_additive = study.sampler == "additive" and self.points.axes
        self.additive = AdditiveSampler(study, self.points, self.encoder, count) if is_additive else None
        specs = itertools.starmap(self._spec_at, self._anchor_points())
        self._anchors = {key_of(spec): spec for spec in specs if spec}  # of all their seeds
        self._rejected: Counter[Rejection] = Counter()  # of the sampler's proposals
        self._latest: Point = {}  # proposal of the sampler, or a point near it
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.history = History(study, self.points, self.encoder, self.factory, self.bounds)
        self.history.replay(records)

    @property
    def size(self) -> float:
        """How many points there are, equal trials counted apart; infinite with a continuous axis."""
        return self.points.size

    @property
    def max_trials(self) -> float:
        """How many trials there can be: the points, and the anchors' further seeds."""
        return self.size + sum(spec.seed != self.study.seed for spec in self._anchors.values())

    @property
    def waits(self) -> bool:
        """Whether there can be no proposal before a pending trial is told."""
        return False

    @property
    def pending(self) -> list[dict[str, Any]]:
        """The specs, as plain data, that were proposed and not told yet."""
        return self.history.pending_specs

    @property
    def duplicates(self) -> int:
        """How many proposals of the sampler were proposed before."""
        return self._rejected[Rejection.DUPLICATE]

    @property
    def out_of_bounds(self) -> int:
        """How many proposals of the sampler would cost more than the study allows, and are not trained."""
        return self._rejected[Rejection.OUT_OF_BOUNDS]

    def ask(self) -> TrialSpec | None:
        """The next trial, never one that was proposed before; None when the space is exhausted."""
        self.bounds.clear_cache()
        rng = np.random.default_rng([self.study.seed, len(self.history.proposed)])
        n_startup = N_STARTUP + len(self.history.infeasible)
        seed = int(rng.integers(2**31))
        self.history.optuna_study.sampler = self.factory.build(self.encoder.distributions, seed, n_startup)
        proposals = itertools.chain(
            itertools.starmap(self._propose, self._anchor_points()),
            self._by_sampler(rng),
            map(self._propose, self._near(rng)),
            map(self._propose, self._unseen(rng)),
        )
        return next((spec for spec in proposals if isinstance(spec, TrialSpec)), None)

    def tell(self, record: Record) -> None:
        """Take in how a trial ended. Only a complete one with every objective teaches an Optuna sampler."""
        self.history.tell(record)

    def requeue(self, spec: TrialSpec) -> bool:
        """Propose a trial that an earlier driver had pending.

        Args:
            spec: The trial.

        Returns:
            Whether it is proposed; False where it was before, or is no point of this space.
        """
        return (
            spec not in self.history
            and self.holds(spec)
            and self._propose(self.points.point(spec), spec.seed) == spec
        )

    def holds(self, spec: TrialSpec) -> bool:
        """Whether a trial is a point of this space, or an anchor with a further seed."""
        return self.is_anchor(spec) or self.points.spec_at(self.points.point(spec)) == effective(spec)

    def is_anchor(self, spec: TrialSpec) -> bool:
        """Whether a trial is one of the references for the others: all full, all binary, ..."""
        return key_of(effective(spec)) in self._anchors

    def _anchor_points(self) -> Iterator[tuple[Point, int]]:
        """The anchors with their seeds: the first with all, then the others with one seed after the other.

        So the full-precision checkpoints of all seeds are trained side by side.
        """
        first, *others = self.points.anchors()
        seeds = self.study.seeds_of_anchors
        yield from ((first, seed) for seed in seeds)
        yield from ((point, seed) for seed in seeds for point in others)

    def _spec_at(self, point: Point, seed: int) -> TrialSpec | None:
        """The trial at a point, with a seed; None where its values exclude each other."""
        spec = self.points.spec_at(point)
        return None if spec is None else spec.model_copy(update={"seed": seed})

    def _propose(self, point: Point, seed: int | None = None) -> TrialSpec | Rejection:
        """Propose the trial at a point, with the study's seed or another one, or say why not."""
        spec = self._checked(point, self.study.seed if seed is None else seed)
        if isinstance(spec, TrialSpec):
            self.history.add(spec, self.history.ask(self.encoder.encode(point)))
        return spec

    def _by_sampler(self, rng: np.random.Generator) -> Iterator[TrialSpec | Rejection]:
        """The proposals of the study's sampler."""
        if self.additive:
            yield from map(self._propose, self._solutions(self.additive, rng))
        else:
            yield from (self._sample() for _ in range(TRIES))

    def _sample(self) -> TrialSpec | Rejection:
        """Propose the trial that Optuna's sampler chooses, or say why not."""
        trial = self.history.ask()
        self._latest = self.encoder.decode(trial.params)
        spec = self._checked(self._latest, self.study.seed)
        if isinstance(spec, TrialSpec):
            self.history.add(spec, trial)
        else:
            self.history.discard(trial)
            self._rejected[spec] += 1
        return spec

    def _checked(self, point: Point, seed: int) -> TrialSpec | Rejection:
        """The trial at a point, or why it cannot be proposed."""
        spec = self._spec_at(point, seed)
        if spec is None:
            return Rejection.INFEASIBLE
        if spec in self.history:
            return Rejection.DUPLICATE
        return Rejection.OUT_OF_BOUNDS if self.bounds.excess(spec) else spec

    def _solutions(self, additive: AdditiveSampler, rng: np.random.Generator) -> Iterator[Point]:
        """Points that the additive sampler proposes, the best first."""
        history, pending = self.history, [trial.params for trial in self.history.pending.values()]
        proposed = additive.propose(history.complete, history.pruned, pending, rng)
        for point in itertools.chain(additive.initial_points(), proposed):
            self._latest = self.encoder.decode(point)
            yield self._latest

    def _near(self, rng: np.random.Generator) -> Iterator[Point]:
        """A random walk from the sampler's last proposal, an axis at a time, never farther out of bounds."""
        axes, limits = self.points.distributions, self.bounds.limits
        moves = max(MOVES, 10 * len(axes)) if limits else MOVES
        for name in rng.choice(list(axes), moves) if axes else ():
            moved = self._latest | {name: draw(axes[name], rng)}
            if limits:
                here, there = (self.points.spec_at(point) for point in (self._latest, moved))
                if here and (not there or self.bounds.excess(there) > self.bounds.excess(here)):
                    continue
            self._latest = moved
            yield moved

    def _unseen(self, rng: np.random.Generator) -> Iterator[Point]:
        """Points at random: all of a small space, and a few of a large one."""
        if self.size > (COUNTABLE if self.bounds.limits else ENUMERABLE):
            yield from (self.points.draw(rng) for _ in range(MOVES))
            return
        listed = {name: choices(axis) for name, axis in self.points.distributions.items()}
        varied = {name: values for name, values in listed.items() if len(values) > 1}
        shape = [len(values) for values in varied.values()] or [1]  # NumPy counts in 64 dimensions at most
        for number in rng.permutation(int(self.size)):
            index = np.unravel_index(number, shape)
            chosen = {name: values[i] for (name, values), i in zip(varied.items(), index, strict=False)}
            yield {name: values[0] for name, values in listed.items()} | chosen
