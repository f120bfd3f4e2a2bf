"""How a cell's tuned fields are chosen: on seeds of their own, on a grid that grows beyond its edges."""

import itertools
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, cached_property
from typing import Literal

from ablate.analysis.t_interval import mean_interval
from ablate.config.canonical import effective, key_of
from ablate.config.designs import LENGTHS
from ablate.config.study_spec import StudySpec
from ablate.config.trial_spec import Half, Recipe, TrialSpec, Value, accepts
from ablate.runs.record import Record
from ablate.search.design_cells import Cell, Tuned

Side = Literal["lower", "upper"]
SIDES: tuple[Side, Side] = ("lower", "upper")


class Tuning:
    """The trials that choose what is tuned in a cell.

    They are as many for each choice as the study has tuning seeds, the seeds after the paired ones, and never
    see the test images. While the best choice lies on the edge of a grid, the next value beyond it is tried.

    Args:
        study: The study.
        cell: The cell.

    Attributes:
        cell: The cell.
        seeds: The tuning seeds.
        choices: What is tried, first the grid and then what lies beyond its edges.
        keys: Of each choice the trials, one a seed.
        chosen: The choice; None before all these trials have ended.
        to_come: How many trials, at least, are not among `keys` yet.
    """

    to_come = 0

    def __init__(self, study: StudySpec, cell: Cell) -> None:
        self.cell, self.limit = cell, study.grid_extension
        self.seeds = tuning_seeds(study)
        self.choices: list[Tuned] = []
        self.keys: list[tuple[str, ...]] = []
        self.chosen = None if cell.tunings else cell.choices[0]
        self._scores: list[float] = []  # once all trials have ended
        self._try(cell.tunings)

    def _try(self, choices: Iterable[Tuned]) -> None:
        for tuned in choices:
            self.choices.append(tuned)
            specs = (cell_trial(self.cell, tuned, seed) for seed in self.seeds)
            self.keys.append(tuple(map(key_of, specs)))

    def trial(self, k: int) -> tuple[Tuned, TrialSpec]:
        """The k-th trial with its choice; the seeds of a choice follow each other."""
        choice, seed = divmod(k, len(self.seeds))
        tuned = self.choices[choice]
        return tuned, cell_trial(self.cell, tuned, self.seeds[seed])

    @property
    def trials(self) -> Iterator[tuple[Tuned, TrialSpec]]:
        """All trials so far, each with its choice."""
        return map(self.trial, range(len(self.choices) * len(self.seeds)))

    @property
    def planned(self) -> Iterator[TrialSpec]:
        """The trials before any grid is extended."""
        return (cell_trial(self.cell, tuned, seed) for tuned in self.cell.tunings for seed in self.seeds)

    @property
    def kind(self) -> frozenset[str]:
        """Equal for cells with the same paired trials, as far as is known before the choice."""
        choices = self.cell.choices if self.chosen is None else [self.chosen]
        return frozenset(key_of(cell_trial(self.cell, tuned, self.seeds[0])) for tuned in choices)

    @property
    def may_grow(self) -> bool:
        """Whether values beyond a grid may still be tried."""
        return self.chosen is None and self._has_further

    @cached_property
    def _has_further(self) -> bool:
        return any(_further(field, line, self.limit) for field, _, line in _lines(self.cell.tune))

    def advance(self, records: Mapping[str, Record]) -> None:
        """Extend the grids, and choose, as far as the records say.

        Args:
            records: Of the design's trials, by key.
        """
        while self.chosen is None and all(key in records for keys in self.keys for key in keys):
            self._scores = [score([records[key] for key in keys]) for keys in self.keys]
            best = self.choices[self._best]
            beyond = {field: value for (field, _), value in self._edges(best).items() if value is not None}
            further = [best | {field: value} for field, value in beyond.items()]
            if new := [tuned for tuned in further if tuned not in self.choices]:
                self._try(new)
            else:
                self.chosen = best

    @property
    def _best(self) -> int:
        """The choice of the best mean validation accuracy, the first of equals."""
        return self._scores.index(max(self._scores))

    def _edges(self, best: Tuned) -> dict[tuple[str, Side], float | None]:
        # Where every trial failed there is no best choice.
        return edges(self.cell.tune, best, self.limit) if max(self._scores) > -1 else {}

    @property
    def edge(self) -> str:
        """The side on which the choice lies at the end of all that was tried: "lower", "upper" or "".

        Where several fields are tuned, each side with its field, as in "learning_rate upper".
        """
        if not self._scores or self.chosen is None:
            return ""
        sides = [key for key, value in self._edges(self.chosen).items() if value is None]
        return ", ".join(side if len(self.cell.tune) == 1 else f"{field} {side}" for field, side in sides)

    def lead(self, records: Mapping[str, Record]) -> tuple[float, float, float]:
        """How far the choice is ahead of the second best, in validation accuracy paired over the seeds.

        Args:
            records: Of the design's trials, by key.

        Returns:
            The mean and its 95 % t interval over the tuning seeds on which both completed; NaN before the
            choice, and without a second one.
        """
        if not self._scores or self.chosen is None:
            return math.nan, math.nan, math.nan
        best = self.keys[self._best]
        # Choices that differ in a field that changes nothing have the same trials.
        others = [i for i, keys in enumerate(self.keys) if keys != best]
        second = self.keys[max(others, key=self._scores.__getitem__)] if others else best
        accuracies = [[_accuracy(records[key]) for key in keys] for keys in (best, second)]
        return mean_interval([a - b for a, b in zip(*accuracies, strict=True)] if others else [])


def tuning_seeds(study: StudySpec) -> range:
    """The seeds of a study's tuning trials: those directly after the paired ones."""
    first = study.seed + study.seeds
    return range(first, first + study.tuning_seeds)


def cell_trial(cell: Cell, tuned: Tuned, seed: int, *, test: bool | Half = False) -> TrialSpec:
    """A trial of a cell, in its canonical form.

    Args:
        cell: The cell.
        tuned: Values for what is tuned.
        seed: The trial's.
        test: Whether it is tested at its end.
    """
    recipe = Recipe.model_validate(cell.spec.recipe.model_dump() | tuned)
    return effective(cell.spec.model_copy(update={"recipe": recipe, "seed": seed, "test": test}))


def score(records: Sequence[Record]) -> float:
    """The mean validation accuracy of a choice's trials, by which the best choice is taken.

    A failed trial counts as -1: a choice that fails on one of three seeds would lose a third of its cell's
    paired trials, and is taken only where all others are about as bad.
    """
    accuracies = map(_accuracy, records)
    return statistics.fmean(-1.0 if math.isnan(accuracy) else accuracy for accuracy in accuracies)


def _accuracy(record: Record) -> float:
    """NaN where the trial failed."""
    return math.nan if record["accuracy"] is None else record["accuracy"]


def edges(
    tune: Mapping[str, Sequence[Value]], chosen: Tuned, limit: int
) -> dict[tuple[str, Side], float | None]:
    """The edges of the grids that a choice lies on.

    A grid of one value, or of values that are not all numbers, has no edge; nor is there one where the field
    itself ends, as a weight decay does at 0.

    Args:
        tune: The values to choose from, by field of the recipe.
        chosen: A value of each field, which may lie beyond the grid.
        limit: How many values are tried beyond an edge at most.

    Returns:
        By field and side the next value beyond; None where no more is tried.
    """
    found: dict[tuple[str, Side], float | None] = {}
    for field, side, line in _lines(tune):
        further = _further(field, line, limit)
        beyond = dict(zip((line[-1], *further), (*further, None), strict=True))
        if chosen[field] in beyond and _goes_on(field, chosen[field], side):
            found[field, side] = beyond[chosen[field]]
    return found


def _lines(tune: Mapping[str, Sequence[Value]]) -> Iterator[tuple[str, Side, tuple[float, ...]]]:
    """(field, side, grid towards that side) of every grid of two numbers or more."""
    for (field, grid), side in itertools.product(tune.items(), SIDES):
        numbers = {value for value in grid if isinstance(value, int | float)}
        if len(numbers) > 1 and not any(isinstance(value, bool | str) for value in grid):
            yield field, side, tuple(sorted(numbers, reverse=side == "lower"))


@cache
def _further(field: str, line: tuple[float, ...], limit: int) -> tuple[float, ...]:
    """The values that may be tried beyond the end of a grid, as far as the field takes them."""
    values = list(line)
    for _ in range(0 if field in LENGTHS else limit):
        value = _next(values, whole=not accepts(Recipe, field, 0.5))
        if (value - values[-1]) * (line[-1] - line[0]) <= 0 or not accepts(Recipe, field, value):
            break
        values.append(value)
    return tuple(values[len(line) :])


def _next(values: Sequence[float], whole: bool) -> float:
    """The next value of a grid, to 3 significant digits: 0.1, 0.2, 0.4 -> 0.8; 0.01, 0.03, 0.1 -> 0.3.

    It continues the ratio of the last two values or, where not all are above 0, their difference. Three
    values that span a decade repeat a decade on.
    """
    before, last = values[-2:]
    if min(values) <= 0:
        value = last + (last - before)
    elif len(values) > 2 and any(math.isclose(last / values[-3], decade) for decade in (10, 0.1)):
        value = before * (last / values[-3])
    else:
        value = last * (last / before)
    return round(value) if whole and math.isfinite(value) else float(f"{value:.3g}")


def _goes_on(field: str, value: float, side: Side) -> bool:
    """Whether a field takes anything beyond a value."""
    step = 1 if side == "upper" else -1
    beyond = math.nextafter(value, step * math.inf) if accepts(Recipe, field, 0.5) else value + step
    return accepts(Recipe, field, beyond)
