"""A grid of data and updates: what is tuned at its corners is interpolated between them."""

import itertools
import math
from collections.abc import Iterator, Mapping

from ablate.config.search_space import values
from ablate.config.study_spec import StudySpec
from ablate.config.trial_spec import Recipe, TrialSpec, accepts
from ablate.runs.record import Record
from ablate.search.design_cells import Cell, Tuned
from ablate.search.tuning import Tuning, cell_trial

Place = tuple[float, float]  # fraction, image views
Corners = dict[Place, Tuning]


class Between(Tuning):
    """A cell of a grid that has what its corners chose, interpolated in log D and log T.

    It is trained on the tuning seeds as well: they say which length is the best one.

    Args:
        study: The study.
        cell: The cell.
        corners: The tunings of its arm at the corners; none where nothing is tuned.
    """

    may_grow = False  # only its corners do

    def __init__(self, study: StudySpec, cell: Cell, corners: Corners) -> None:
        super().__init__(study, cell)
        self.corners, self.to_come = corners, len(self.seeds)
        self.choices, self.keys, self.chosen = [], [], None

    @property
    def planned(self) -> Iterator[TrialSpec]:
        return (cell_trial(self.cell, self.cell.choices[0], seed) for seed in self.seeds)

    def advance(self, records: Mapping[str, Record]) -> None:
        """Interpolate once all corners have chosen; what is found is chosen when its trials have ended."""
        chosen = {place: corner.chosen for place, corner in self.corners.items() if corner.chosen is not None}
        if not self.keys and len(chosen) == len(self.corners):
            self.to_come = 0
            self._try([interpolated(chosen, place_of(self.cell)) if chosen else self.cell.choices[0]])
        if self.keys and all(key in records for key in self.keys[0]):
            self.chosen = self.choices[0]


def tunings_of_grid(study: StudySpec, cells: Mapping[str, Cell]) -> dict[str, Tuning]:
    """How each cell of a grid is tuned.

    Args:
        study: A study with a grid.
        cells: Its cells by name.

    Returns:
        By cell, in the same order: the corners of an arm by trials, where it has something to tune, and all
        others from them.
    """
    places = {*itertools.product(*corners_of(study))}
    corners: dict[str, Corners] = {cell.step: {} for cell in cells.values()}
    for cell in cells.values():
        if cell.tunings and place_of(cell) in places:
            corners[cell.step][place_of(cell)] = Tuning(study, cell)
    return {
        name: corners[cell.step].get(place_of(cell)) or Between(study, cell, corners[cell.step])
        for name, cell in cells.items()
    }


def corners_of(study: StudySpec) -> tuple[tuple[float, float], tuple[float, float]]:
    """The two fractions and the two numbers of image views at which a grid is tuned, the smaller first."""
    axes = {"fraction": study.space.fraction, "image_views": study.space.recipe["image_views"]}
    ends = (study.tune_at.get(name) or values(axis) for name, axis in axes.items())  # type: ignore[call-overload]
    fractions, views = ((float(min(named)), float(max(named))) for named in ends)
    return fractions, views


def place_of(cell: Cell) -> Place:
    """Where a cell lies in its grid."""
    return cell.spec.fraction, float(cell.spec.recipe.image_views or math.nan)


def interpolated(corners: Mapping[Place, Tuned], place: Place) -> Tuned:
    """What is tuned at a place, from the corners: bilinear in log D and log T, in the logarithm of the value.

    Args:
        corners: What was chosen, at each pair of two values of D and two of T, or one of either.
        place: Beyond the corners it has what the nearest place between them has.

    Returns:
        The value of each field, to 3 significant digits; exactly the corners' where they agree.
    """
    weights = {corner: _weight(corner, place, corners) for corner in corners}
    near = {corner: weight for corner, weight in weights.items() if weight > 0}
    return {
        field: _mean([(corners[corner][field], weight) for corner, weight in near.items()], field)
        for field in next(iter(corners.values()))
    }


def _mean(weighted: list[tuple[float, float]], field: str) -> float:
    """The geometric mean of (value, weight)."""
    if len({value for value, _ in weighted}) == 1:
        return weighted[0][0]
    value = math.exp(sum(weight * math.log(value) for value, weight in weighted))
    return float(f"{value:.3g}") if accepts(Recipe, field, 0.5) else round(value)


def _weight(corner: Place, place: Place, corners: Mapping[Place, Tuned]) -> float:
    """The bilinear weight of a corner."""
    weight = 1.0
    for axis in range(2):
        low, high = (end({at[axis] for at in corners}) for end in (min, max))
        if low < high:
            share = min(1.0, max(0.0, math.log(place[axis] / low) / math.log(high / low)))
            weight *= share if corner[axis] == high else 1 - share
    return weight
