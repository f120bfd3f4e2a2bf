"""Trials of a study that does not search: every cell of its design with every seed, what is tuned first."""

import heapq
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import pandas as pd
from optuna.distributions import CategoricalDistribution

from ablate.config.canonical import effective, key_of
from ablate.config.designs import Step
from ablate.config.search_space import values
from ablate.config.study_spec import StudySpec
from ablate.config.trial_spec import Recipe, TrialSpec, Value
from ablate.errors import BadInput
from ablate.runs.ledger import trial_of
from ablate.runs.record import Record
from ablate.search.fractional_factorial import fraction
from ablate.search.parameter_space import Points, choices, usual

MOST = 100_000  # points of a design
MOST_TRIALS = 1_000_000
Tuned = dict[str, Any]  # a field of the recipe -> its value


@dataclass(frozen=True)
class Cell:
    """A trial but for its seed and for what is tuned. `step` is its name but for the space's choices."""

    step: str
    spec: TrialSpec
    tune: dict[str, tuple[Value, ...]]

    @property
    def choices(self) -> list[Tuned]:
        return [
            dict(zip(self.tune, values, strict=True)) for values in itertools.product(*self.tune.values())
        ]

    @property
    def tunings(self) -> list[Tuned]:
        """The choices, where there is more than one."""
        return self.choices if len(self.choices) > 1 else []


class Design:
    """In the shape of a Search: ask() and tell(record), a function of the study and of the records alone.

    Tuning runs on one seed beyond the paired ones and never sees the test set; the paired trials are tested at their end,
    but for those of a sensitivity design: a search may go on from them.
    """

    duplicates = out_of_bounds = 0

    def __init__(self, study: StudySpec, groups: list[str], records: Iterable[Record] = ()) -> None:
        self.study, self.groups = study, groups
        self.cells = _by_name(_cells(study, groups))
        self.asked: set[str] = set()
        _check_count(study, self.cells.values())
        self.found: dict[str, Record] = {}
        self._open: set[str] = set()  # asked and not told
        self._keys = {name: [*map(key_of, self._tuning(cell))] for name, cell in self.cells.items()}
        self._missing = {
            name: {*keys} for name, keys in self._keys.items()
        }  # tunings of a cell that have not ended
        self._waiting: dict[str, list[str]] = {}  # a tuning's key -> the cells that wait for it
        for name, keys in self._missing.items():
            for key in keys:
                self._waiting.setdefault(key, []).append(name)
        self._place = {name: i for i, name in enumerate(self.cells)}
        self._left = [
            (-1, i, k, name) for name, i in self._place.items() for k in range(len(self._keys[name]))
        ]
        self._left += [row for name, keys in self._keys.items() if not keys for row in self._paired(name)]
        heapq.heapify(
            self._left
        )  # (seed, cell, tuning, name) of what can be asked: tunings first, then seed after seed
        for record in records:
            self.tell(record)

    @property
    def planned(self) -> list[TrialSpec]:
        """The design's trials, but for the paired ones' seeds and what is chosen for them; cells that coincide share theirs."""
        test = "sensitivity" not in self.study.design
        tunings: dict[str, TrialSpec] = {}
        paired: dict[frozenset[str], TrialSpec] = {}
        for cell in self.cells.values():
            specs = [
                _at(cell.spec, tuned, self.study.seed + self.study.seeds, test=False)
                for tuned in cell.choices
            ]
            keys = [key_of(spec) for spec in specs]
            tunings |= dict(zip(keys, specs, strict=True)) if cell.tunings else {}
            paired[frozenset(keys)] = cell.spec.model_copy(update={"test": test})
        return [*tunings.values(), *(spec for spec in paired.values() for _ in range(self.study.seeds))]

    @property
    def size(self) -> int:
        """How many trials the design has."""
        return len(self.planned)

    @property
    def waits(self) -> bool:
        """Whether a trial under way must be told before there can be another."""
        return bool(self.under_way)

    @property
    def under_way(self) -> list[dict[str, Any]]:
        """The specs, as plain data, that were proposed and not told yet."""
        return [json.loads(key) for key in sorted(self._open)]

    def ask(self) -> TrialSpec | None:
        """The next trial; None when none is left, or none before a tuning under way has ended."""
        while self._left:
            seed, _, k, name = heapq.heappop(self._left)
            cell = self.cells[name]
            spec = self._tuning(cell)[k] if seed < 0 else self._trial(cell, self._best(name) or {}, seed)
            if (key := key_of(spec)) not in self.asked:
                self.asked.add(key)
                self._open.add(key)
                return spec
        return None

    def tell(self, record: Record) -> None:
        """Take in how a trial ended."""
        key = key_of(effective(trial_of(record)))
        self.asked.add(key)
        self._open.discard(key)
        self.found[key] = record
        for name in self._waiting.pop(key, ()):
            self._missing[name].discard(key)
            if not self._missing[name]:
                for row in self._paired(name):
                    heapq.heappush(self._left, row)

    def again(self, spec: TrialSpec) -> bool:
        """Whether a trial that another driver had under way must be proposed first: no, ask() comes to it by itself."""
        return False

    def table(self) -> pd.DataFrame:
        """A row a trial: cell, step (the cell's name but for the space's choices), role ("tune" or "seed"), the tuned fields,
        and what its record says, if there is one."""
        columns = (
            "trial_id",
            "status",
            "arm",
            "seed",
            "fraction",
            "images",
            "accuracy",
            "loss",
            "test_accuracy",
            "test_loss",
        )
        rows = []
        for row in self._rows():
            record = self.found.get(key_of(row["spec"]), {}) if row["spec"] else {}
            told = {column: record.get(column) for column in columns}
            head = {"cell": row["cell"], "step": self.cells[row["cell"]].step, "role": row["role"]}
            rows.append(head | row["tuned"] | told)
        return pd.DataFrame(
            rows,
            columns=[
                "cell",
                "step",
                "role",
                *dict.fromkeys(key for cell in self.cells.values() for key in cell.tune),
                *columns,
            ],
        )

    def _rows(self) -> Iterator[dict[str, Any]]:
        """Each cell's tunings, then seed after seed all cells; `spec` is None where the tuning has not ended."""
        for name, cell in self.cells.items():
            for tuned, trial in zip(cell.tunings, self._tuning(cell), strict=True):
                yield {"cell": name, "role": "tune", "tuned": tuned, "spec": trial}
        best = {name: self._best(name) for name in self.cells}
        for seed in self._seeds:
            for name, cell in self.cells.items():
                chosen = best[name]
                paired = None if chosen is None else self._trial(cell, chosen, seed)
                yield {"cell": name, "role": "seed", "tuned": chosen or {}, "spec": paired}

    @property
    def _seeds(self) -> range:
        return range(self.study.seed, self.study.seed + self.study.seeds)

    def _paired(self, name: str) -> list[tuple[int, int, int, str]]:
        return [(seed, self._place[name], 0, name) for seed in self._seeds]

    def _tuning(self, cell: Cell) -> list[TrialSpec]:
        """The trials that choose what is tuned, with the seed after the paired ones."""
        return [_at(cell.spec, tuned, self._seeds.stop, test=False) for tuned in cell.tunings]

    def _trial(self, cell: Cell, chosen: Tuned, seed: int) -> TrialSpec:
        """A paired trial."""
        return _at(cell.spec, chosen, seed, test="sensitivity" not in self.study.design)

    def _best(self, name: str) -> Tuned | None:
        """The choice of the best validation accuracy, the first of equals; None before all have ended."""
        cell = self.cells[name]
        if not cell.tunings:
            return cell.choices[0]
        records = [self.found.get(key) for key in self._keys[name]]
        scores = [
            -1.0 if pd.isna(record["accuracy"]) else record["accuracy"] for record in records if record
        ]  # None or NaN
        return cell.tunings[scores.index(max(scores))] if len(scores) == len(records) else None


def _by_name(cells: Iterable[tuple[str, Cell]]) -> dict[str, Cell]:
    found: dict[str, Cell] = {}
    for name, cell in cells:
        if name in found:
            raise BadInput(
                f"the cells of a design must differ in their names, but two are called {name!r}; rename one"
            )
        found[name] = cell
    return found


def _at(spec: TrialSpec, tuned: Tuned, seed: int, *, test: bool) -> TrialSpec:
    recipe = Recipe.model_validate(spec.recipe.model_dump() | tuned)
    return effective(spec.model_copy(update={"recipe": recipe, "seed": seed, "test": test}))


def _cells(study: StudySpec, groups: list[str]) -> Iterator[tuple[str, Cell]]:
    """The cells by name, in the order of the design."""
    if "sensitivity" in study.design:
        yield from _one_by_one(study, groups)
    steps, designs = study.steps, {*study.design}
    chosen: list[tuple[str, Sequence[Step]]] = (
        [(study.base, ())] if {"ladder", "one-factor"} & designs else []
    )
    if "ladder" in designs:
        chosen += [(step.name, steps[: i + 1]) for i, step in enumerate(steps)]
    if "leave-one-out" in designs:
        chosen += [
            ("all", steps),
            *((f"all but: {out.name}", [step for step in steps if step != out]) for out in steps),
        ]
    if "one-factor" in designs or {"ladder", "arms"} <= designs:  # a rung has the step's own name
        chosen += [(f"only: {step.name}", [step]) for step in steps]
    if "arms" in designs and "ladder" not in designs:
        chosen += [(step.name, [step]) for step in steps]
    if "factorial" in designs:
        chosen += [("", ())]
    if study.reference:
        chosen += [(study.reference.name, (*steps, study.reference))]
    cells = itertools.chain.from_iterable(_after(study, groups, name, changes) for name, changes in chosen)
    for number, cell in enumerate(cells):
        if number == MOST:
            raise BadInput(
                f"a design must have {MOST:,} cells at most, but got more; take fewer steps or choices"
            )
        yield cell


def _check_count(study: StudySpec, cells: Iterable[Cell]) -> None:
    """Raises BadInput where a design has more trials than a search may have."""
    tunings = (math.prod(map(len, cell.tune.values())) for cell in cells)
    count = sum(study.seeds + (n if n > 1 else 0) for n in tunings)
    if count > MOST_TRIALS:
        raise BadInput(
            f"a design must have {MOST_TRIALS:,} trials at most, but got {count:,}; take fewer seeds, cells or tunings"
        )


def _one_by_one(study: StudySpec, groups: list[str]) -> Iterator[tuple[str, Cell]]:
    """All full; and in each precision all layer groups, each alone, and all but each; other axes at their usual value."""
    points = Points(study, groups)
    base = {name: usual(name, axis) for name, axis in points.axes.items()}
    kinds = [str(kind) for kind in values(study.space.layer["weights"]) if kind != "full"]
    if not kinds:
        raise BadInput(
            "a sensitivity design needs a space whose layers may be less than full; give --space layers_bits, say"
        )
    chosen: dict[str, dict[str, str]] = {"full": {}}
    for kind in kinds:
        chosen |= {f"{kind}: all": dict.fromkeys(groups, kind)}
        chosen |= {f"{kind}: only {group}": {group: kind} for group in groups}
        chosen |= {
            f"{kind}: all but {group}": dict.fromkeys(groups, kind) | {group: "full"} for group in groups
        }
    for name, weights in chosen.items():
        at = {f"{group}.weights": weights.get(group, "full") for group in groups}
        if (spec := points.spec_at(base | at)) is None:
            raise BadInput(f"cell {name!r} of the design must be a trial, but its values exclude each other")
        yield name, Cell(name, spec, study.tune)


def _after(
    study: StudySpec, groups: list[str], step: str, changes: Sequence[Step]
) -> Iterator[tuple[str, Cell]]:
    """The base point after some steps, crossed with the space's choices; nothing where no layer group is what they are for."""
    patterns = next((change.groups for change in reversed(changes) if change.groups), ("*",))
    wanted = [group for group in groups if any(fnmatchcase(group, pattern) for pattern in patterns)]
    if groups and not wanted:  # a run whose records have none of them yet
        return
    layer = {key: value for change in changes for key, value in change.layer.items()}
    recipe = {key: value for change in changes for key, value in change.recipe.items()}
    space = study.space.model_copy(
        update={"layer": study.space.layer | layer, "recipe": study.space.recipe | recipe}
    )
    around = Points(study.model_copy(update={"space": space}), wanted)
    for name, axis in around.axes.items():
        if not isinstance(axis, CategoricalDistribution):
            raise BadInput(
                f"a design must list the choices of {name}, but got a range; only a search has ranges"
            )
    tune = next((change.tune for change in reversed(changes) if change.tune), study.tune)
    axes = {name: choices(axis) for name, axis in around.axes.items()}
    points = (dict(zip(axes, point, strict=True)) for point in _crossed(axes, None if step else study.points))
    found = {
        ", ".join([step] * bool(step) + [f"{k} {v}" for k, v in point.items()]): around.spec_at(point)
        for point in points
    }
    if not any(found.values()):
        raise BadInput(f"cell {step!r} of the design must be a trial, but its values exclude each other")
    yield from ((name, Cell(step, spec, tune)) for name, spec in found.items() if spec)


def _crossed(axes: Mapping[str, Sequence[Value]], points: int | None) -> Iterable[tuple[Value, ...]]:
    """All combinations of the axes' choices, or a regular fraction of so many."""
    if points is None:
        if (all_of_them := math.prod(map(len, axes.values()))) > MOST:
            raise BadInput(
                f"a design must have {MOST:,} points at most, but got {all_of_them:,}; give points = 64, say"
            )
        return itertools.product(*axes.values())
    if wrong := next((name for name, listed in axes.items() if len(listed) != 2), None):
        raise BadInput(
            f"points takes a fraction of factors of 2 choices, but {wrong} has {len(axes[wrong])}; leave points out"
        )
    levels, _ = fraction(len(axes), points)
    return (
        tuple(listed[level] for listed, level in zip(axes.values(), row, strict=True))
        for row in levels.astype(int)
    )
