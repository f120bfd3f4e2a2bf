"""The trials of a designed study: every cell with every seed, after the trials that choose what is tuned."""

import heapq
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

import pandas as pd

from ablate.config.canonical import effective, key_of
from ablate.config.designs import LENGTHS
from ablate.config.study_spec import StudySpec
from ablate.config.trial_spec import Half, TrialSpec
from ablate.runs.ledger import trial_of
from ablate.runs.record import Record
from ablate.search.design_cells import Tuned, cells_of
from ablate.search.grid import Between, tunings_of_grid
from ablate.search.tuning import Tuning, cell_trial, tuning_seeds

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
LEAD = ("lead", "lead_low", "lead_high")


class Design:
    """The trials of a designed study, with the interface of `searcher.Search`.

    What it proposes is a function of the study and of the records, in whatever order. Tuning has seeds beyond
    the paired ones and never sees the test images; it goes on beyond a grid on whose edge the best choice
    lies, and only then a cell's paired trials begin. These are tested at their end, on what `StudySpec.test`
    says, except those of a sensitivity design: a search may go on from them.

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
        self.records: dict[str, Record] = {_key(record): record for record in records}
        self._proposed = {*self.records}
        self._pending: set[str] = set()
        self._tunings = self._new_tunings()
        self._from: dict[Tuning, list[str]] = defaultdict(list)  # corner of a grid -> cells that wait for it
        self._tried: set[str] = set()  # keys of all tunings
        self._kinds: dict[str, frozenset[str]] = {}  # equal for cells that share their paired trials
        self._n_cells: Counter[frozenset[str]] = Counter()  # of each kind
        self._growing: set[str] = set()  # cells whose grid may still be extended
        self._unfinished: dict[str, set[str]] = {}  # tunings of a cell
        self._waiting: dict[str, list[str]] = defaultdict(list)  # key of a tuning -> cells that wait for it
        # What can be proposed, as (seed, cell, tuning, name): tunings first (seed -1), then seed after seed.
        self._place = {name: i for i, name in enumerate(self.cells)}
        self._queue: list[tuple[int, int, int, str]] = []
        for name, tuning in self._tunings.items():
            for corner in tuning.corners.values() if isinstance(tuning, Between) else ():
                self._from[corner].append(name)
        for name in self.cells:
            self._advance(name)

    @property
    def planned(self) -> list[tuple[TrialSpec, ...]]:
        """The trials before any grid is extended, each as what it may be, as far as its length depends on it.

        Equal cells share theirs. The paired ones are without seeds, and have the choices of a tuned length.
        """
        tunings: dict[str, tuple[TrialSpec]] = {}
        paired: dict[frozenset[str], tuple[TrialSpec, ...]] = {}
        for tuning in self._new_tunings().values():
            cell = tuning.cell
            tunings |= {key_of(spec): (spec,) for spec in tuning.planned}
            choices = cell.choices if {*cell.tune} & {*LENGTHS} else cell.choices[:1]
            specs = (cell_trial(cell, tuned, self.study.seed, test=self._tests) for tuned in choices)
            paired[tuning.kind] = tuple(specs)
        return [*tunings.values(), *(specs for specs in paired.values() for _ in self._seeds)]

    @cached_property
    def least(self) -> int:
        """How many trials the design has before any grid is extended."""
        return len(self.planned)

    @property
    def size(self) -> int:
        """How many trials the design has, as far as the records say; see `may_grow`."""
        to_come = sum(tuning.to_come for tuning in self._tunings.values())
        return len(self._tried) + to_come + self.study.seeds * len(self._n_cells)

    @property
    def may_grow(self) -> bool:
        """Whether a grid may still be extended."""
        return bool(self._growing)

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
            tuning = self._tunings[name]
            if seed < 0:
                _, spec = tuning.trial(k)
            else:
                spec = self._paired_trial(name, tuning.chosen or {}, seed)
            if (key := key_of(spec)) not in self._proposed:
                self._proposed.add(key)
                self._pending.add(key)
                return spec
        return None

    def tell(self, record: Record) -> None:
        """Take in how a trial ended."""
        key = _key(record)
        self._proposed.add(key)
        self._pending.discard(key)
        self.records[key] = record
        for name in self._waiting.pop(key, ()):
            self._unfinished[name].discard(key)
            if not self._unfinished[name]:
                self._advance(name)

    def requeue(self, spec: TrialSpec) -> bool:
        """Whether a trial that an earlier driver had pending is proposed here: no, `ask` will propose it."""
        return False

    def holds(self, spec: TrialSpec) -> bool:
        """Whether a trial, in its canonical form, is one of the design's, whatever it was tuned to."""
        if spec.test != (self._tests if spec.seed in self._seeds else False):
            return False
        if spec.seed not in self._seeds and spec.seed not in tuning_seeds(self.study):
            return False
        of_size = [cell for cell in self.cells.values() if cell.spec.fraction == spec.fraction]
        tuned = [{field: getattr(spec.recipe, field) for field in cell.tune} for cell in of_size]
        return any(
            cell_trial(cell, values, spec.seed, test=spec.test) == spec
            for cell, values in zip(of_size, tuned, strict=True)
        )

    def table(self) -> pd.DataFrame:
        """The design's trials.

        Returns:
            A row a trial: cell, step (the cell's name without the space's choices), role ("tune" or "seed"),
            test (what it is tested on, as in its spec), the tuned fields, and what its record says, if there
            is one. Where something is tuned, the rows of role "seed" also say how sure the choice is: `edge`
            as of `Tuning.edge`, and `lead`, `lead_low`, `lead_high` as of `Tuning.lead`.
        """
        sure: dict[str, dict[str, Any]] = {
            name: {"edge": tuning.edge, **dict(zip(LEAD, tuning.lead(self.records), strict=True))}
            for name, tuning in self._tunings.items()
        }
        rows = []
        for cell, role, tuned, spec in self._rows():
            record: Mapping[str, Any] = self.records.get(key_of(spec), {}) if spec else {}
            test = role == "seed" and self._tests
            head = {"cell": cell, "step": self.cells[cell].step, "role": role, "test": test}
            how_sure = sure[cell] if role == "seed" else {"edge": ""}
            rows.append(head | tuned | how_sure | {column: record.get(column) for column in COLUMNS})
        tuned_fields = dict.fromkeys(field for cell in self.cells.values() for field in cell.tune)
        choice = ("edge", *LEAD) if any(cell.tunings for cell in self.cells.values()) else ()
        return pd.DataFrame(rows, columns=["cell", "step", "role", "test", *tuned_fields, *choice, *COLUMNS])

    def _rows(self) -> Iterator[tuple[str, str, Tuned, TrialSpec | None]]:
        """(cell, role, tuned fields, trial): each cell's tunings, then seed after seed all cells.

        The trial is None where the cell's tuning has not ended.
        """
        for name, tuning in self._tunings.items():
            yield from ((name, "tune", tuned, spec) for tuned, spec in tuning.trials)
        for seed in self._seeds:
            for name, tuning in self._tunings.items():
                chosen = tuning.chosen
                paired = None if chosen is None else self._paired_trial(name, chosen, seed)
                yield name, "seed", chosen or {}, paired

    @property
    def _seeds(self) -> range:
        return range(self.study.seed, self.study.seed + self.study.seeds)

    @property
    def _tests(self) -> bool | Half:
        return "sensitivity" not in self.study.design and self.study.test

    def _new_tunings(self) -> dict[str, Tuning]:
        if "grid" in self.study.design:
            return tunings_of_grid(self.study, self.cells)
        return {name: Tuning(self.study, cell) for name, cell in self.cells.items()}

    def _advance(self, name: str) -> None:
        """Queue what a cell has next: its tunings or, once they have led to a choice, its paired trials."""
        tuning, place = self._tunings[name], self._place[name]
        tuning.advance(self.records)
        keys = [key for of_choice in tuning.keys for key in of_choice]
        self._tried |= {*keys}
        self._count_kind(name, tuning.kind)
        (self._growing.add if tuning.may_grow else self._growing.discard)(name)
        left = {key: k for k, key in enumerate(keys) if key not in self.records}
        self._unfinished[name] = {*left}
        for key in left:
            self._waiting[key].append(name)
        tunings = [(-1, place, k, name) for k in left.values()]
        if tuning.chosen is not None:
            tunings = [(seed, place, 0, name) for seed in self._seeds]
        for row in tunings:
            heapq.heappush(self._queue, row)
        if tuning.chosen is not None:
            for other in self._from.pop(tuning, ()):
                self._advance(other)

    def _count_kind(self, name: str, kind: frozenset[str]) -> None:
        """Keep the number of kinds: to gather them anew for each record would take quadratic time."""
        if before := self._kinds.get(name):
            self._n_cells[before] -= 1
            if not self._n_cells[before]:
                del self._n_cells[before]
        self._kinds[name] = kind
        self._n_cells[kind] += 1

    def _paired_trial(self, name: str, chosen: Tuned, seed: int) -> TrialSpec:
        return cell_trial(self.cells[name], chosen, seed, test=self._tests)


def _key(record: Record) -> str:
    return key_of(effective(trial_of(record)))
