"""Ledgers: read, recover, the table of records and `status`. Values must be read as they were written.

Every truncation and every single flipped bit of a small ledger is among the inputs, in an order that the seed
does not change. A line that says itself that it is of an older version, by having no checksum, is read as
JSON has it; one with a checksum must be as it was written.
"""

import contextlib
import io
import json
from pathlib import Path
from random import Random
from typing import Any

from fuzz_values import Input, Wrong, as_json, changed, mangled, same

from ablate.cli.status import outcome
from ablate.config.search_space import load_space
from ablate.config.study_spec import StudySpec
from ablate.config.trial_spec import LayerSpec, Recipe, TrialSpec
from ablate.runs import ledger
from ablate.runs.record import FIELDS, Record, blank_record
from ablate.runs.run import load_run, write_study

IN_A_ROW, OTHERS = 8, 3  # of so many inputs in a row, all but the others are truncations and flipped bits
FOUND = {
    "accuracy": 0.1 + 0.2,
    "loss": 1.75,
    "size_bytes": 457,
    "bitops": 10**6 + 7,
    "images": 20,
    "steps": 4,
    "macs": 5,
}
FOUND |= {"parameters": 7, "threads": 1, "device": "CPU", "train_seconds": 0.25, "latency_ms": 2.5}


def records() -> list[Record]:
    """One that is complete and one that failed."""
    low = TrialSpec(layers={"head": LayerSpec(weights="binary")}, recipe=Recipe(epochs=1, bf16=False))
    full = TrialSpec(seed=1, recipe=Recipe(epochs=1, bf16=False))
    curve = [{"epoch": 1, "accuracy": 0.30000000000000004, "loss": 1.75}]
    one = blank_record(low, "0123456789") | {"status": "complete", "curve": curve, **FOUND}
    return [
        one | {"started_at": T},
        blank_record(full, "ba98765432") | {"error": "é: \u2028", "started_at": T},
    ]


T = "2026-01-01T00:00:00+00:00"


class Target:
    """A run of two records, its ledger changed."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.path = folder / "ledger.jsonl"
        space = load_space("layers_bits")
        self.studies = [
            StudySpec(question="?", space=space),
            StudySpec(question="?", space=space, max_size_bytes=10**6),
        ]
        self.written = records()
        self.lines = [*map(ledger.line, self.written)]
        self.content = b"".join(self.lines)
        self.order = [*range(9 * len(self.content))]
        Random(0).shuffle(self.order)

    def make(self, number: int, random: Random) -> Input:
        group, place = divmod(number, IN_A_ROW)
        if (k := group * (IN_A_ROW - OTHERS) + place - OTHERS) < len(self.order) and place >= OTHERS:
            return self._exhaustive(self.order[k])
        if place >= OTHERS or random.random() < 0.15:
            content, what = mangled(self.content, random, random.choice(self.lines))
            return Input("bytes", what, content)
        which = random.randrange(2)
        record, what = changed(
            self.written[which], random, [*FIELDS, *TrialSpec.model_fields, *Recipe.model_fields]
        )
        how = random.choice(("summed", "older", "stale"))
        try:
            line = ledger.line(record) if how == "summed" else as_json(record) + b"\n"
        except (ValueError, TypeError, RecursionError):  # of NaN, which this version does not write
            how, line = "older", as_json(record) + b"\n"
        if how == "stale":  # edited by hand, with the checksum that was there
            line = (
                as_json(
                    record | {key: v for key, v in json.loads(self.lines[which]).items() if key not in record}
                )
                + b"\n"
            )
        lines = [line if i == which else self.lines[i] for i in (0, 1)]
        return Input("field", f"{what}, {how}", b"".join(lines))

    def check(self, given: Input) -> None:
        self.path.write_bytes(given.content)
        found = ledger.read(self.path)
        self._check(found, given)
        write_study(self.path.parent, self.studies[len(given.content) % 2])
        run = load_run(self.path.parent)
        table = run.records
        if len(table) != len(found) or [*table["trial_id"]] != [record["trial_id"] for record in found]:
            raise Wrong("the table has other records than the ledger")
        for as_json_too in (False, True):
            with contextlib.redirect_stdout(io.StringIO()) as shown:
                outcome(run, as_json_too)
        self._check_front(json.loads(shown.getvalue(), parse_constant=_none)["front"], found)
        cut = ledger.recover(self.path)
        kept, left = given.content[: len(given.content) - cut], self.path.read_bytes()
        if left not in (kept, kept + b"\n") or not _equal(ledger.read(self.path), found):
            raise Wrong("recover changes more than the torn end")

    def _exhaustive(self, place: int) -> Input:
        n = len(self.content)
        if place >= 8 * n:
            return Input("bytes", f"cut at {place - 8 * n}", self.content[: place - 8 * n])
        flipped = bytearray(self.content)
        flipped[place // 8] ^= 1 << place % 8
        return Input("bytes", f"bit {place % 8} of byte {place // 8}", bytes(flipped))

    def _check(self, found: list[Record], given: Input) -> None:
        """Each record was written like this, in order, or is an older version's line as JSON reads it."""
        if given.kind == "field":
            for record, line, original in zip(found, given.content.split(b"\n"), self.written, strict=False):
                plain = json.loads(line)
                if given.what.endswith("stale") and "crc32" in plain and not same(original, record):
                    raise Wrong("a record that was edited under its checksum was read")
                if not same({key: value for key, value in plain.items() if key != "crc32"}, record):
                    raise Wrong("a record is not read as it stands in its line")
            return
        left = iter(self.written)
        for record in found:
            if not any(same(original, record) for original in left):
                raise Wrong("a record was read that was not written")
        lines = {line.rstrip(b"\r") for line in given.content.split(b"\n")[:-1] if line.strip()}
        if len(found) < len(lines):
            raise Wrong("a whole line was left out in silence")

    def _check_front(self, front: list[dict[str, Any]], found: list[Record]) -> None:
        names = {record["trial_id"] for record in found if record["status"] == "complete"}
        if not {row["trial_id"] for row in front} <= names:
            raise Wrong("the front has a trial that is not complete")


def _equal(one: list[Record], other: list[Record]) -> bool:
    return repr(one) == repr(other)


def _none(constant: str) -> float:
    raise Wrong(f"{constant} in --json")
