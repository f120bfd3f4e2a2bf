"""Computes the headline numbers of README and docs again, from the ledgers, with numpy and scipy alone.

    python benchmarks/recompute.py       # each sentence, and whether it stands in its document

Nothing is imported from the package. `recompute_sentences` writes each sentence with the numbers that the
records give. It must stand in its document, digit for digit, in a paragraph that links its result. A test
runs this, and checks that no number of README with a unit or an interval is left out.
"""

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

ROOT = Path(__file__).parents[1]
Record = dict[str, Any]
Seeds = dict[int, float]  # an accuracy by seed


@dataclass(frozen=True)
class Sentence:
    """Words of a document, with the numbers that its result gives.

    Attributes:
        document: its path.
        result: the folder or file that the words' paragraph links.
        words: as they stand in the document, with any white space between them.
    """

    document: str
    result: str
    words: str

    @property
    def stands(self) -> bool:
        """Whether a paragraph of the document that links the result has these words."""
        return any(self.words in text and f"{self.result}" in text for text in paragraphs(self.document))


@cache
def paragraphs(document: str) -> list[str]:
    """The paragraphs and list items of a document, each with the links of its section, on one line."""
    text = (ROOT / document).read_text(encoding="utf-8")
    parts = []
    for section in re.split(r"\n(?=#+ )", text):
        links = " ".join(re.findall(r"\]\(([^)]*)\)", section)) if document != "README.md" else ""
        for part in re.split(r"\n\s*\n|\n(?=[-|] )", section):
            parts.append(" ".join([*part.split(), links]))
    return parts


@cache
def records(run: str) -> list[Record]:
    """The complete trials of a run."""
    lines = (ROOT / "results" / run / "ledger.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["status"] == "complete"]


@cache
def published(file: str) -> dict[str, Any]:
    """A result that is no ledger."""
    return dict(json.loads((ROOT / "benchmarks" / "results" / file).read_text(encoding="utf-8")))


def fields_of(row: Record) -> dict[str, Any]:
    """What a trial's quantized layers have in common, and its recipe; `weights` is "full" without any."""
    layers = list(row["spec"]["layers"].values()) or [{"weights": "full"}]
    common = {key: value for key, value in layers[0].items() if all(each[key] == value for each in layers)}
    return {**common, **row["spec"]["recipe"], "images": row["images"]}


def arm(run: str, where: Mapping[str, Any], groups: str = "", column: str = "test_accuracy") -> Seeds:
    """The accuracies, by seed, of the tested trials with these fields.

    Args:
        run: a folder of results/.
        where: fields of the quantized layers and of the recipe, `weights`, `images`.
        groups: how the names of all quantized layer groups begin.
        column: of the record.
    """
    found: Seeds = {}
    for row in records(run):
        fields = fields_of(row)
        if (
            row["spec"]["test"]
            and all(fields.get(key) == value for key, value in where.items())
            and all(name.startswith(groups) for name in row["spec"]["layers"])
        ):
            assert row["seed"] not in found, f"{run}: {where} are several arms"
            found[row["seed"]] = row[column]
    assert found, f"{run}: no trial with {where}"
    return found


@dataclass(frozen=True)
class Interval:
    """A mean and its t interval, in points. As text: "1.2 (0.3 to 2.1)", with signs by the format "+"."""

    mean: float
    low: float
    high: float

    def __format__(self, sign: str) -> str:
        return f"{self.mean:{sign}z.1f} {self.between(sign)}"

    def __str__(self) -> str:
        return format(self)

    def of(self, words: str) -> str:
        """With words after the mean: "1.2 points (0.3 to 2.1)"."""
        return f"{self.mean:z.1f} {words} {self.between()}"

    def between(self, sign: str = "") -> str:
        """The interval alone."""
        return f"({self.low:{sign}z.1f} to {self.high:{sign}z.1f})"


def interval(values: Any, family: int = 1) -> Interval:
    """The mean of shares (n,), in points, with its 95 % interval, simultaneous over so many (Bonferroni)."""
    points = 100 * np.asarray(list(values), dtype=float)
    half = float(stats.t.ppf(1 - 0.05 / family / 2, len(points) - 1) * stats.sem(points))
    return Interval(float(points.mean()), float(points.mean()) - half, float(points.mean()) + half)


def less(one: Seeds, other: Seeds, family: int = 1) -> Interval:
    """One minus the other, paired over the seeds that both have."""
    seeds = sorted({*one} & {*other})
    return interval([one[seed] - other[seed] for seed in seeds], family)


def change(
    run: str, full: Mapping[str, Any], low: Mapping[str, Any], sizes: tuple[int, int], family: int
) -> Interval:
    """How the gap between two arms changes from one number of images to another."""
    by_size = [(arm(run, {**full, "images": n}), arm(run, {**low, "images": n})) for n in sizes]
    gaps = [{seed: a[seed] - b[seed] for seed in {*a} & {*b}} for a, b in by_size]
    return less(gaps[1], gaps[0], family)


def percent(values: Seeds) -> str:
    """The mean as "70.9 %"."""
    return f"{100 * np.mean(list(values.values())):.1f} %"


@cache
def hypervolume(ledger: str) -> np.ndarray:
    """Of accuracy and log size over the first trials of a ledger, from the reference of search.json."""
    limit = published("search.json")["reference"]
    lines = (ROOT / "results" / f"{ledger}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    found = np.zeros(len(rows))
    for n in range(1, len(rows) + 1):
        points = [(np.log(r["size_bytes"]), r["accuracy"]) for r in rows[:n] if r["status"] == "complete"]
        best, right = limit["accuracy"], np.log(limit["size_bytes"])
        for size, accuracy in sorted(points):  # what a larger model adds, it adds to its right
            if size < right and accuracy > best:
                found[n - 1] += (right - size) * (accuracy - best)
                best = accuracy
    return found


@cache
def table1(run: str) -> dict[str, float]:
    """Milliseconds an image of each model of a table1.md, as measured there."""
    lines = (ROOT / "results" / run / "table1.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| ")]
    column = cells[0].index("ms an image")
    return {row[0]: float(row[column].split()[0]) for row in cells[2:] if row[column].endswith(")")}


def main() -> None:
    from recompute_sentences import sentences

    found = list(sentences())
    for sentence in found:
        print("stands " if sentence.stands else "MISSING", sentence.document, "|", sentence.words)
    sys.exit(any(not sentence.stands for sentence in found))


if __name__ == "__main__":
    main()
