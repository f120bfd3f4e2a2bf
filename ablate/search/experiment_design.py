"""The trials of a designed study: every cell with every seed, after the trials that choose what is tuned."""

import heapq
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pandas as pd

from ablate.config.canonical import effective, key_of
from ablate.config.study_spec import StudySpec
from ablate.config.trial_spec import Half, Recipe, TrialSpec
from ablate.runs.ledger import trial_of
from ablate.runs.record import Record
from ablate.search.design_cells import Cell, Tuned, cells_of

COLUMNS = (  # of a record, in the table
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


class Design:
    """The trials of a designed study, with the interface of `searcher.Search`.

    What it proposes is a function of the study and of the records. Tuning has one seed beyond the paired ones
    and never sees the test images. The paired trials are tested at their end, on what `StudySpec.test` says,
    except those of a sensitivity design: a search may go on from them.

    Args:
        study: The study, with a design.
        groups: Names of the layer groups that its space applies to.
        records: Of its trials so far.

    Attributes:
        cells: The cells by name, in the order of the design.
        records: The records so far, by the trial's key.

    Raises:
        BadInput: The design is too large or has cells that are no trial; see `design_cells.cells_of`.
    """

    duplicates = out_of_bounds = 0

    def __init__(self, study: StudySpec, groups: list[str], records: Iterable[Record] = ()) -> None:
        self.study, self.groups = study, groups
        self.cells = cells_of(study, groups)
        self.records: dict[str, Record] = {}
        self._proposed: set[str] = set()
        self._pending: set[str] = set()
        self._tuning_keys = {name: [*map(key_of, self._tuning(cell))] for name, cell in self.cells.items()}
        self._unfinished = {name: {*keys} for name, keys in self._tuning_keys.items()}  # tunings of a cell
        self._waiting: dict[str, list[str]] = defaultdict(list)  # key of a tuning -> cells that wait for it
        for name, unfinished in self._unfinished.items():
            for key in unfinished:
                self._waiting[key].append(name)
        # What can be proposed, as (seed, cell, tuning, name): tunings first (seed -1), then seed after seed.
        self._place = {name: i for i, name in enumerate(self.cells)}
        self._queue = []
        for name, keys in self._tuning_keys.items():
            tunings = [(-1, self._place[name], k, name) for k in range(len(keys))]
            self._queue += tunings or self._paired(name)
        heapq.heapify(self._queue)
        for record in records:
            self.tell(record)

    @property
    def planned(self) -> list[TrialSpec]:
        """The design's trials, the paired ones without seeds and tuned values; equal cells share theirs."""
        tunings: dict[str, TrialSpec] = {}
        paired: dict[frozenset[str], TrialSpec] = {}
        for cell in self.cells.values():
            specs = [_trial(cell.spec, tuned, self._seeds.stop, test=False) for tuned in cell.choices]
            keys = [key_of(spec) for spec in specs]
            if cell.tunings:
                tunings |= dict(zip(keys, specs, strict=True))
            paired[frozenset(keys)] = cell.spec.model_copy(update={"test": self._tests})
        return [*tunings.values(), *(spec for spec in paired.values() for _ in self._seeds)]

    @property
    def size(self) -> int:
        """How many trials the design has."""
        return len(self.planned)

    @property
    def waits(self) -> bool:
        """Whether there can be no proposal before a pending trial is told."""
        return bool(self._pending)

    @property
    def pending(self) -> list[dict[str, Any]]:
        """The specs, as plain data, that were proposed and not told yet."""
        return [json.loads(key) for key in sorted(self._pending)]

    def ask(self) -> TrialSpec | None:
        """The next trial; None when none is left, or none before a pending tuning has ended."""
        while self._queue:
            seed, _, k, name = heapq.heappop(self._queue)
            cell = self.cells[name]
            spec = (
                self._tuning(cell)[k] if seed < 0 else self._paired_trial(cell, self._best(name) or {}, seed)
            )
            if (key := key_of(spec)) not in self._proposed:
                self._proposed.add(key)
                self._pending.add(key)
                return spec
        return None

    def tell(self, record: Record) -> None:
        """Take in how a trial ended."""
        key = key_of(effective(trial_of(record)))
        self._proposed.add(key)
        self._pending.discard(key)
        self.records[key] = record
        for name in self._waiting.pop(key, ()):
            self._unfinished[name].discard(key)
            if not self._unfinished[name]:
                for row in self._paired(name):
                    heapq.heappush(self._queue, row)

    def requeue(self, spec: TrialSpec) -> bool:
        """Whether a trial that an earlier driver had pending is proposed here: no, `ask` will propose it."""
        return False

    def table(self) -> pd.DataFrame:
        """The design's trials.

        Returns:
            A row a trial: cell, step (the cell's name without the space's choices), role ("tune" or "seed"),
            test (what it is tested on, as in its spec), the tuned fields, and what its record says, if there
            is one.
        """
        rows = []
        for cell, role, tuned, spec in self._rows():
            record: Mapping[str, Any] = self.records.get(key_of(spec), {}) if spec else {}
            test = role == "seed" and self._tests
            head = {"cell": cell, "step": self.cells[cell].step, "role": role, "test": test}
            rows.append(head | tuned | {column: record.get(column) for column in COLUMNS})
        tuned_fields = dict.fromkeys(field for cell in self.cells.values() for field in cell.tune)
        return pd.DataFrame(rows, columns=["cell", "step", "role", "test", *tuned_fields, *COLUMNS])

    def _rows(self) -> Iterator[tuple[str, str, Tuned, TrialSpec | None]]:
        """(cell, role, tuned fields, trial): each cell's tunings, then seed after seed all cells.

        The trial is None where the cell's tuning has not ended.
        """
        for name, cell in self.cells.items():
            for tuned, spec in zip(cell.tunings, self._tuning(cell), strict=True):
                yield name, "tune", tuned, spec
        best = {name: self._best(name) for name in self.cells}
        for seed in self._seeds:
            for name, cell in self.cells.items():
                chosen = best[name]
                paired = None if chosen is None else self._paired_trial(cell, chosen, seed)
                yield name, "seed", chosen or {}, paired

    @property
    def _seeds(self) -> range:
        return range(self.study.seed, self.study.seed + self.study.seeds)

    @property
    def _tests(self) -> bool | Half:
        return "sensitivity" not in self.study.design and self.study.test

    def _paired(self, name: str) -> list[tuple[int, int, int, str]]:
        return [(seed, self._place[name], 0, name) for seed in self._seeds]

    def _tuning(self, cell: Cell) -> list[TrialSpec]:
        """The trials that choose what is tuned, with the seed after the paired ones."""
        return [_trial(cell.spec, tuned, self._seeds.stop, test=False) for tuned in cell.tunings]

    def _paired_trial(self, cell: Cell, chosen: Tuned, seed: int) -> TrialSpec:
        return _trial(cell.spec, chosen, seed, test=self._tests)

    def _best(self, name: str) -> Tuned | None:
        """The choice of the best validation accuracy, the first of equals; None before all tunings ended."""
        cell = self.cells[name]
        if not cell.tunings:
            return cell.choices[0]
        records = [self.records.get(key) for key in self._tuning_keys[name]]
        accuracies = [record["accuracy"] for record in records if record]
        if len(accuracies) < len(records):
            return None
        scores = [-1.0 if accuracy is None or math.isnan(accuracy) else accuracy for accuracy in accuracies]
        return cell.tunings[scores.index(max(scores))]


def _trial(spec: TrialSpec, tuned: Tuned, seed: int, *, test: bool | Half) -> TrialSpec:
    recipe = Recipe.model_validate(spec.recipe.model_dump() | tuned)
    return effective(spec.model_copy(update={"recipe": recipe, "seed": seed, "test": test}))
