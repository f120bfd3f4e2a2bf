"""What a search has proposed and what it learns from: the Optuna study behind it, rebuilt from records."""

import json
import math
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from ablate.analysis import pareto
from ablate.analysis.bounds import excess, out_of_bounds
from ablate.config.canonical import effective, key_of
from ablate.config.study_spec import StudySpec
from ablate.config.trial_spec import TrialSpec
from ablate.profiling.cost_model import Count
from ablate.runs.ledger import trial_of
from ablate.runs.record import Record, value_of
from ablate.search.additive_sampler import Observations
from ablate.search.distributions import draw
from ablate.search.encoding import OrdinalEncoder
from ablate.search.optuna_samplers import SamplerFactory
from ablate.search.parameter_space import Point, Points
from ablate.search.successive_halving import Rungs

# The sampler learns from the front, the latest MEMORY to 2 MEMORY complete trials and MEMORY pruned ones.
MEMORY = 500
N_INFEASIBLE = 16  # random points, of which the sampler is told those that are out of bounds


class CostBounds:
    """The study's bounds on costs that are counted before a trial is trained.

    Args:
        study: The study.
        count: Counts the costs of a trial, which takes milliseconds.

    Attributes:
        limits: The bounds by cost; empty where nothing is bounded.
    """

    def __init__(self, study: StudySpec, count: Count) -> None:
        self.count = count
        self.limits = {name: bound for name, bound in study.within.items() if name != "accuracy"}
        self._excess: dict[str, float] = {}  # by trial key

    def excess(self, spec: TrialSpec) -> float:
        """How far a trial is out of bounds, as the sum of the shares of each bound; 0 within them."""
        if not self.limits:
            return 0.0
        if (key := key_of(spec)) not in self._excess:
            self._excess[key] = out_of_bounds(self.count(spec), self.limits)
        return self._excess[key]

    def clear_cache(self) -> None:
        """Forget the costs counted so far."""
        self._excess.clear()


class History:
    """Which points were proposed, which of them are pending, and what the sampler learns from their records.

    It is a function of the study and of the records in their order, however they arrive: all at first by
    `replay`, or one after the other by `tell`.

    Args:
        study: The study.
        points: Its search space.
        encoder: Encodes the points for the sampler.
        factory: Of the sampler.
        bounds: On the costs of a trial.

    Attributes:
        proposed: Keys of all trials that were proposed or recorded.
        pending: Optuna's trials of the proposals without a record, by key.
        optuna_study: Of encoded points; the sampler reads it.
        infeasible: Random points out of bounds, without values, for a sampler that learns from such.
    """

    def __init__(
        self,
        study: StudySpec,
        points: Points,
        encoder: OrdinalEncoder,
        factory: SamplerFactory,
        bounds: CostBounds,
    ) -> None:
        self.study, self.points, self.encoder, self.factory = study, points, encoder, factory
        self.proposed: set[str] = set()
        self.pending: dict[str, optuna.trial.Trial] = {}
        self._n_complete = 0  # complete records, whether remembered or not
        self._rungs = Rungs(study)
        known_at_rungs = {*study.objectives} <= {*self._rungs.directions}
        self._learns_pruned = factory.learns_pruned and bool(study.early_stopping) and known_at_rungs
        self._pruned: dict[str, Point] = {}  # encoded points by trial id, the latest MEMORY of them
        learns_infeasible = factory.learns_infeasible and bool(bounds.limits)
        self.infeasible = self._draw_infeasible(bounds) if learns_infeasible else []
        self.optuna_study = self._new_study([])

    def __contains__(self, spec: TrialSpec) -> bool:
        return key_of(spec) in self.proposed

    @property
    def complete(self) -> Observations:
        """The complete trials that are remembered."""
        trials = self.optuna_study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return Observations([trial.params for trial in trials], [trial.values for trial in trials])

    @property
    def pruned(self) -> Observations:
        """The latest trials that were stopped early, with their extrapolated objectives."""
        extrapolated = self._rungs.extrapolated_objectives()
        rows = {name: values for name, values in extrapolated.items() if name in self._pruned}
        return Observations(
            [self._pruned[name] for name in rows],
            [[values[objective] for objective in self.study.objectives] for values in rows.values()],
        )

    @property
    def pending_specs(self) -> list[dict[str, Any]]:
        """The specs, as plain data, of the pending trials."""
        return [json.loads(key) for key in self.pending]

    def replay(self, records: Iterable[Record]) -> None:
        """Take in the records of an earlier search, as if they had been told one after the other.

        Args:
            records: In the order of the ledger.
        """
        records = list(records)
        complete = [record for record in records if self._is_complete(record)]
        n_settled = len(complete) // MEMORY * MEMORY  # so many there were when trials were last forgotten
        remembered = self._remembered([self._objectives(record) for record in complete[:n_settled]])
        kept = {id(record) for record in [complete[i] for i in remembered] + complete[n_settled:]}
        for record in records:
            spec = effective(trial_of(record))
            self.proposed.add(key_of(spec))
            if id(record) in kept:
                self._learn(spec, record)
            self._n_complete += self._is_complete(record)
            self._learn_pruned(spec, record)

    def tell(self, record: Record) -> None:
        """Take in how a trial ended. Only a complete one with every objective teaches an Optuna sampler.

        Args:
            record: Of a proposed trial, or of another one.
        """
        spec = effective(trial_of(record))
        self.proposed.add(key := key_of(spec))
        if key in self.pending:
            self.discard(self.pending.pop(key))  # `_learn` adds it with its values
        if self._is_complete(record):
            self._learn(spec, record)
            self._n_complete += 1
            if self._n_complete % MEMORY == 0:
                self._forget()
        self._learn_pruned(spec, record)

    def ask(self, point: Point | None = None) -> optuna.trial.Trial:
        """An Optuna trial.

        Args:
            point: The encoded point that the trial must have; None: the sampler chooses.

        Returns:
            The trial; its `params` are the encoded point.
        """
        if point is not None:
            self.optuna_study.enqueue_trial(point)
        return self.optuna_study.ask(self.encoder.distributions)

    def add(self, spec: TrialSpec, trial: optuna.trial.Trial) -> None:
        """Note that a trial was proposed and is pending."""
        key = key_of(spec)
        self.proposed.add(key)
        self.pending[key] = trial

    def discard(self, trial: optuna.trial.Trial) -> None:
        """End an Optuna trial without values."""
        self.optuna_study.tell(trial, state=TrialState.FAIL)

    def _is_complete(self, record: Record) -> bool:
        values = self._objectives(record)
        return record["status"] == "complete" and all(v is not None and math.isfinite(v) for v in values)

    def _objectives(self, record: Record) -> list[Any]:
        return [value_of(record, name) for name in self.study.objectives]

    def _encoded(self, spec: TrialSpec) -> Point:
        """The encoded point of a trial. An axis without effect has a random value: any one is right."""
        rng = np.random.default_rng(zlib.crc32(key_of(spec).encode()))
        idle = {name: draw(self.points.distributions[name], rng) for name in self.points.idle(spec)}
        return self.encoder.encode(self.points.point(spec) | idle)

    def _learn(self, spec: TrialSpec, record: Record) -> None:
        trial = optuna.create_trial(
            params=self._encoded(spec),
            distributions=self.encoder.distributions,
            values=self._objectives(record),
            system_attrs=self.factory.system_attrs(self._n_complete),
            constraints=self._constraints(record),
        )
        self.optuna_study.add_trial(trial)

    def _learn_pruned(self, spec: TrialSpec, record: Record) -> None:
        if self._learns_pruned:
            self._rungs.tell(record)
            if record["status"] == "pruned":
                self._pruned[record["trial_id"]] = self._encoded(spec)
                self._pruned = dict([*self._pruned.items()][-MEMORY:])

    def _constraints(self, costs: Any) -> dict[str, float]:
        """Optuna's constraints: how far each bound is exceeded; an unknown cost exceeds none."""
        return dict.fromkeys(self.study.within, 0.0) | excess(costs, self.study.within)

    def _draw_infeasible(self, bounds: CostBounds) -> list[FrozenTrial]:
        """Random points that are out of bounds.

        They depend on the seed alone, because the ledger does not hold rejected proposals.
        """
        rng = np.random.default_rng(self.study.seed)
        drawn = [self.points.draw(rng) for _ in range(N_INFEASIBLE)]
        costs = [(point, bounds.count(spec)) for point in drawn if (spec := self.points.spec_at(point))]
        return [
            optuna.create_trial(
                state=TrialState.PRUNED,
                params=self.encoder.encode(point),
                distributions=self.encoder.distributions,
                constraints=self._constraints(cost),
            )
            for point, cost in costs
            if out_of_bounds(cost, bounds.limits)
        ]

    def _new_study(self, trials: Sequence[FrozenTrial]) -> optuna.Study:
        directions = [{"max": "maximize", "min": "minimize"}[d] for d in self.study.directions.values()]
        study = optuna.create_study(directions=directions)
        study.add_trials([*self.infeasible, *trials])
        return study

    def _remembered(self, values: Sequence[Sequence[float]]) -> list[int]:
        """Indices of the complete trials that the sampler goes on with: the front and the latest."""
        front = set(pareto.front(values, list(self.study.directions.values())))
        return [i for i in range(len(values)) if i in front or i >= len(values) - MEMORY]

    def _forget(self) -> None:
        """Go on with the remembered and the pending trials alone."""
        complete = self.optuna_study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        remembered = self._remembered([trial.values for trial in complete])
        self.optuna_study = self._new_study([complete[i] for i in remembered])
        for key, trial in self.pending.items():
            self.pending[key] = self.ask(trial.params)
