"""Early stopping with several objectives: asynchronous successive halving by non-dominated rank.

MO-ASHA [Schmucker et al. 2021, arXiv 2106.12639] in the form that stops trials and pauses none: a trial that
reaches a rung is compared with all trials that reached it before, and goes on if it is among the best 1/eta
of them. A rung is an epoch, or the whole training on a part of the trial's images. What is counted (size, bit
operations, latency, images) is known from the start; accuracy and loss are those at the rung.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, cast

import moocore
import numpy as np
from numpy.typing import ArrayLike

from ablate.config.designs import EarlyStopping
from ablate.config.objectives import SIGN, TABLE, Direction
from ablate.config.study_spec import StudySpec
from ablate.runs.record import CurveRow, Record, value_of


class Rungs:
    """The objectives of trials at each rung, a function of the finished records and of the running trials.

    The driver's `Rungs` hold the trials that are compared with each other, which leaves the anchors out;
    those of the additive sampler hold all finished trials.

    Args:
        study: The study, with its early stopping and its objectives.
        records: Records of finished trials.

    Attributes:
        reached: By rung and trial, the objectives there.
        ended: By trial that ran to its end, its objectives then.
        stopped: By trial that was stopped early, its last rung.
    """

    def __init__(self, study: StudySpec, records: Iterable[Record] = ()) -> None:
        self.rule = study.early_stopping or EarlyStopping()
        self.directions = {
            name: direction
            for name, direction in study.directions.items()
            if TABLE[name].known in ("counted", "scored")
        }
        self.reached: dict[int, dict[str, list[float]]] = defaultdict(dict)
        self.ended: dict[str, list[float]] = {}
        self.stopped: dict[str, int] = {}
        for record in records:
            self.tell(record)

    def should_prune(self, name: str, record: Record) -> str:
        """Decide at a rung whether a running trial ends.

        Args:
            name: The trial's id.
            record: Its record so far.

        Returns:
            Why the trial ends now; "" where it goes on.
        """
        new = {rung: row for rung, row in self._passed(record).items() if name not in self.reached[rung]}
        for rung, row in new.items():
            self.reached[rung][name] = self._objectives(record, row)
        epoch = record["curve"][-1]["epoch"] if record["curve"] else 0
        if not new or epoch >= (record["epochs"] or 0):
            return ""
        last = [*new][-1]
        trials = self.reached[last]
        k = len(trials) // self.rule.reduction
        directions = [*self.directions.values()]
        if not k or [*trials].index(name) in best([*trials.values()], directions, k):
            return ""
        where = f"epoch {epoch}" if self.rule.over == "epochs" else f"1/{last} of its images"
        return f"after {where} not among the best {k} of {len(trials)}"

    def tell(self, record: Record) -> None:
        """Take in a finished trial's record. A failed trial is no longer compared with others."""
        name = record["trial_id"]
        for trials in self.reached.values():
            trials.pop(name, None)
        if record["status"] != "failed":
            for rung, row in self._passed(record).items():
                self.reached[rung][name] = self._objectives(record, row)
        objectives = [value_of(record, objective) for objective in self.directions]
        finite = [v for v in objectives if v is not None and math.isfinite(v)]
        if record["status"] == "complete" and len(finite) == len(objectives):
            self.ended[name] = finite
        elif record["status"] == "pruned" and (passed := [*self._passed(record)]):
            self.stopped[name] = passed[-1]

    def extrapolated_objectives(self) -> dict[str, dict[str, float]]:
        """What stopped trials might have reached: their objectives at their last rung, and a gain.

        The gain is the mean, over the trials that ran to their end, from that rung to the end.

        Returns:
            By trial and objective; without the trials at whose last rung no trial ran on to its end.
        """
        gains = {}
        for rung, trials in self.reached.items():
            if both := [name for name in trials if name in self.ended]:
                at_end = np.mean([self.ended[name] for name in both], axis=0)
                gains[rung] = at_end - np.mean([trials[name] for name in both], axis=0)
        return {
            name: dict(zip(self.directions, self.reached[rung][name] + gains[rung], strict=True))
            for name, rung in self.stopped.items()
            if rung in gains
        }

    def _objectives(self, record: Record, row: CurveRow) -> list[float]:
        rows = {name: row if TABLE[name].known == "scored" else record for name in self.directions}
        return [float(cast(float, value_of(rows[name], name))) for name in self.directions]

    def _passed(self, record: Record) -> dict[int, CurveRow]:
        """The rungs that a trial has passed, in order, each with a row of its curve or smaller trainings.

        Over epochs a rung is first, first * eta, ...; over the fraction it is the divisor of the trial's
        images.
        """
        if self.rule.over == "fraction":
            return {row["one_in"]: row for row in record.get("rungs", ()) if row["epoch"] == record["epochs"]}
        passed: dict[int, CurveRow] = {}
        rung = self.rule.first
        while row := next((row for row in record["curve"] if row["epoch"] >= rung), None):
            passed[rung] = row
            rung *= self.rule.reduction
        return passed


def best(points: ArrayLike, directions: Sequence[Direction], k: int) -> set[int]:
    """The best k points: whole non-dominated ranks first, then an epsilon-net of the next rank.

    The net is the order in which each next point is farthest from those before it, objectives scaled to their
    range [Clarkson 2006; Salinas et al. 2021, "A multi-objective perspective on jointly tuning hardware and
    hyperparameters"].

    Args:
        points: Objectives, (n, m).
        directions: What is better, for each objective.
        k: How many points.

    Returns:
        Indices of the points.
    """
    costs = np.asarray(points, dtype=float) * [SIGN[direction] for direction in directions]
    span = np.ptp(costs, axis=0)
    scaled = (costs - costs.min(axis=0)) / np.where(span > 0, span, 1.0)  # (n, m)
    ranks = moocore.pareto_rank(costs)
    chosen: list[int] = []
    for rank in np.unique(ranks):
        members = np.flatnonzero(ranks == rank)
        if len(chosen) + len(members) > k:
            members = members[_net(scaled[members], k - len(chosen))]
        chosen += members.tolist()
        if len(chosen) >= k:
            break
    return set(chosen)


def _net(points: Any, k: int) -> list[int]:
    """The first k points (n, m) in farthest-first order, beginning with the best in the first objective."""
    order = [int(np.lexsort(points.T[::-1])[0])]
    distance = np.full(len(points), np.inf)
    while len(order) < k:
        distance = np.minimum(distance, np.linalg.norm(points - points[order[-1]], axis=1))
        distance[order] = -1.0
        order.append(int(distance.argmax()))
    return order
