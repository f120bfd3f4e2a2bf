"""Early stopping with several objectives: asynchronous successive halving by non-dominated rank.

MO-ASHA [Schmucker et al. 2021, arXiv 2106.12639] in the form that stops trials and pauses none: one that reaches a rung
is compared with all that reached it before, and goes on if it is among the best 1/eta of them. What is counted (size,
bit operations, latency, images) is known from the start; accuracy and loss are those after the rung's epoch.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import moocore
import numpy as np
from numpy.typing import ArrayLike

from ablate.ledger import Record
from ablate.spec import Direction, EarlyStopping, StudySpec

COUNTED = ("images", "size_bytes", "bitops", "latency_ms")


class Rungs:
    """What trials had reached at each rung, a function of the records told and of the trials under way."""

    def __init__(self, study: StudySpec, records: Iterable[Record] = ()) -> None:
        self.rule = study.early_stopping or EarlyStopping()
        self.directions = {name: best for name, best in study.directions.items() if name in ("accuracy", "loss", *COUNTED)}
        self.reached: dict[int, dict[str, list[float]]] = defaultdict(dict)  # a rung's epoch -> trial -> its objectives
        for record in records:
            self.tell(record)

    def judge(self, name: str, seen: Mapping[str, Any]) -> str:
        """Why a trial ends after this epoch; "" where it goes on. seen: epoch, epochs (in all), and the objectives."""
        fresh = [rung for rung in self._up_to(seen["epoch"]) if name not in self.reached[rung]]
        for rung in fresh:
            self.reached[rung][name] = self._objectives(seen)
        if not fresh or seen["epoch"] >= seen["epochs"]:
            return ""
        there = self.reached[fresh[-1]]
        most = len(there) // self.rule.reduction
        if not most or [*there].index(name) in best([*there.values()], [*self.directions.values()], most):
            return ""
        return f"after epoch {seen['epoch']} not among the best {most} of {len(there)}"

    def tell(self, record: Record) -> None:
        """Take in how a trial ended; one that failed is compared with no more."""
        name, curve = record["trial_id"], record["curve"]
        for there in self.reached.values():
            there.pop(name, None)
        if record["status"] == "failed" or not curve:
            return
        for rung in self._up_to(curve[-1]["epoch"]):
            row = next(row for row in curve if row["epoch"] >= rung)
            self.reached[rung][name] = self._objectives(record | row)

    def _objectives(self, seen: Mapping[str, Any]) -> list[float]:
        return [float(seen[name]) for name in self.directions]

    def _up_to(self, epoch: int) -> list[int]:
        """The rungs that a trial has reached after so many epochs: first, first * eta, first * eta^2, ..."""
        rungs = [self.rule.first]
        while rungs[-1] <= epoch:
            rungs.append(rungs[-1] * self.rule.reduction)
        return rungs[:-1]


def best(points: ArrayLike, directions: Sequence[Direction], k: int) -> set[int]:
    """Indices of the best k of the points (n, m): whole non-dominated ranks first, then of the next rank an epsilon-net.

    The net is the order in which each next point is farthest from those before it, objectives scaled to their range
    [Clarkson 2006; Salinas et al. 2021, "A multi-objective perspective on jointly tuning hardware and hyperparameters"].
    """
    costs = np.asarray(points, dtype=float) * [-1.0 if direction == "max" else 1.0 for direction in directions]
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
