"""Early stopping with several objectives: asynchronous successive halving by non-dominated rank.

MO-ASHA [Schmucker et al. 2021, arXiv 2106.12639] in the form that stops trials and pauses none: one that reaches a rung
is compared with all that reached it before, and goes on if it is among the best 1/eta of them. A rung is an epoch, or the
whole training on a part of the trial's images. What is counted (size, bit operations, latency, all its images) is known
from the start; accuracy and loss are those at the rung.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import moocore
import numpy as np
from numpy.typing import ArrayLike

from ablate.config.designs import EarlyStopping
from ablate.config.objectives import SIGN, TABLE, Direction
from ablate.config.study_spec import StudySpec
from ablate.runs.record import Record


class Rungs:
    """What trials had reached at each rung, a function of the records told and of the trials under way.

    The driver's holds those that race with each other, the anchors left out; the additive sampler's all that were told.
    """

    def __init__(self, study: StudySpec, records: Iterable[Record] = ()) -> None:
        self.rule = study.early_stopping or EarlyStopping()
        self.directions = {
            name: best for name, best in study.directions.items() if TABLE[name].known != "measured"
        }
        self.reached: dict[int, dict[str, list[float]]] = defaultdict(dict)  # rung -> trial -> its objectives
        self.ended: dict[str, list[float]] = {}  # trial -> its objectives at its end
        self.stopped: dict[str, int] = {}  # trial -> its last rung
        for record in records:
            self.tell(record)

    def should_prune(self, name: str, so_far: Record) -> str:
        """Why a trial ends where its record has come to by now; "" where it goes on."""
        fresh = {rung: row for rung, row in self._passed(so_far).items() if name not in self.reached[rung]}
        for rung, row in fresh.items():
            self.reached[rung][name] = self._objectives(so_far, row)
        epoch = so_far["curve"][-1]["epoch"] if so_far["curve"] else 0
        if not fresh or epoch >= so_far["epochs"]:
            return ""
        last = [*fresh][-1]
        there = self.reached[last]
        most = len(there) // self.rule.reduction
        if not most or [*there].index(name) in best([*there.values()], [*self.directions.values()], most):
            return ""
        where = f"epoch {epoch}" if self.rule.over == "epochs" else f"1/{last} of its images"
        return f"after {where} not among the best {most} of {len(there)}"

    def tell(self, record: Record) -> None:
        """Take in how a trial ended; one that failed is compared with no more."""
        for there in self.reached.values():
            there.pop(record["trial_id"], None)
        if record["status"] != "failed":
            for rung, row in self._passed(record).items():
                self.reached[rung][record["trial_id"]] = self._objectives(record, row)
        ends = [record[name] for name in self.directions]
        if record["status"] == "complete" and all(
            value is not None and math.isfinite(value) for value in ends
        ):
            self.ended[record["trial_id"]] = ends
        elif record["status"] == "pruned" and (passed := [*self._passed(record)]):
            self.stopped[record["trial_id"]] = passed[-1]

    def extrapolated_objectives(self) -> dict[str, dict[str, float]]:
        """What stopped trials might have come to, by trial and objective: what they had at their last rung, and a gain.

        The gain is the mean of those that ended, from that rung to their end; where none did, nothing is promised.
        """
        gains = {}
        for rung, there in self.reached.items():
            if both := [name for name in there if name in self.ended]:
                gains[rung] = np.mean([self.ended[name] for name in both], axis=0) - np.mean(
                    [there[n] for n in both], axis=0
                )
        return {
            name: dict(zip(self.directions, self.reached[rung][name] + gains[rung], strict=True))
            for name, rung in self.stopped.items()
            if rung in gains
        }

    def _objectives(self, record: Record, row: Mapping[str, Any]) -> list[float]:
        return [float((row if TABLE[name].known == "scored" else record)[name]) for name in self.directions]

    def _passed(self, record: Record) -> dict[int, dict[str, Any]]:
        """The rungs that a trial has passed, in order, and what was seen at each: first, first * eta, ... epochs, or parts."""
        if self.rule.over == "fraction":
            return {row["one_in"]: row for row in record.get("rungs", ()) if row["epoch"] == record["epochs"]}
        passed, rung = {}, self.rule.first
        while row := next((row for row in record["curve"] if row["epoch"] >= rung), None):
            passed[rung] = row
            rung *= self.rule.reduction
        return passed


def best(points: ArrayLike, directions: Sequence[Direction], k: int) -> set[int]:
    """Indices of the best k of the points (n, m): whole non-dominated ranks first, then of the next rank an epsilon-net.

    The net is the order in which each next point is farthest from those before it, objectives scaled to their range
    [Clarkson 2006; Salinas et al. 2021, "A multi-objective perspective on jointly tuning hardware and hyperparameters"].
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
    """The first k of the farthest-first order of points (n, m), from the best in the first objective on."""
    order = [int(np.lexsort(points.T[::-1])[0])]
    distance = np.full(len(points), np.inf)
    while len(order) < k:
        distance = np.minimum(distance, np.linalg.norm(points - points[order[-1]], axis=1))
        distance[order] = -1.0
        order.append(int(distance.argmax()))
    return order
