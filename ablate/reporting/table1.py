"""The paper's Table 1 again: what it printed, and beside it what is counted and what is measured here.

Liu & Fuh, "Fine-Tune the 1-Bit Vision Transformer on CIFAR-10", Table 1. Counted and measured cells need no weights: ViT-B/16
is built from its configuration, the baselines without a checkpoint, all with random values. Accuracies come from runs.
"""

import copy
import statistics
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from ablate import hardware
from ablate.config.canonical import asked
from ablate.config.trial_spec import LayerSpec
from ablate.errors import BadInput
from ablate.formatting import describe_layers
from ablate.models import checkpoints, layer_groups, loading
from ablate.models.preprocessing import Preprocess
from ablate.profiling import latency, macs
from ablate.profiling.macs import Cost
from ablate.quantization import packed_model, quantize
from ablate.reporting.run_results import RunResults
from ablate.reporting.table1_published import PRINTED, notes
from ablate.runs.ledger import trial_of
from ablate.runs.record import Record
from ablate.runs.run import Run
from ablate.training import trial

CLASSES = [str(i) for i in range(10)]
ONE_BIT = LayerSpec(weights="binary", activation_scale="tensor", norm=True)  # Fig. 3, 4 and 7
QUANTITIES = {  # name -> its unit here, and what it is divided by to be shown
    "accuracy": ("top-1", 1),
    "state": ("bytes", 2**20),
    "packed": ("bytes", 2**20),
    "latency": ("ms", 1),
    "returned": ("ms", 1),
    "macs": ("MACs", 1e9),
    "bitops": ("bit operations", 1e12),
    "parameters": ("parameters", 1e6),
}
OURS = {
    "1-bit ViT": "ViT-B/16",
    "ViT": "ViT-B/16",
    "Resnet 18": "ResNet-18",
    "VGG16": "VGG-16",
}  # the paper's models
COUNTED = ("state", "packed", "macs", "bitops", "parameters")


@dataclass(frozen=True)
class Cell:
    """A value in the unit of its quantity, and where it is from. n: calls timed, or seeds; sd: over the seeds."""

    value: int | float
    source: Literal["counted", "measured", "quoted"]
    printed: str | None = None  # the paper's own digits
    n: int | None = None
    sd: float | None = None
    split: Literal["test", "validation"] | None = None
    failed: int | None = None  # seeds whose training failed, beside the n


@dataclass(frozen=True)
class Row:
    """A model. `beside` is the paper's model whose part it plays; the paper's own row has its name."""

    name: str
    beside: str
    cells: dict[str, Cell]

    @property
    def quoted(self) -> bool:
        return all(cell.source == "quoted" for cell in self.cells.values())


@dataclass(frozen=True)
class Table1:
    """Rows in the paper's order, each of its models with what was printed first; the notes that belong below."""

    rows: list[Row]
    notes: list[str]
    about: dict[str, Any] = field(default_factory=dict)  # device, threads, batch

    def plain(self) -> dict[str, Any]:
        """As plain data, for JSON; counts are integers."""
        rows = [
            {**asdict(row), "cells": {name: _short(cell) for name, cell in row.cells.items()}}
            for row in self.rows
        ]
        return {"rows": rows, "notes": self.notes, **self.about}


@dataclass(frozen=True)
class _Entry:
    """A row to be: what it is called, the paper's model whose part it plays, and how its own is built."""

    name: str
    beside: str
    build: Callable[[], tuple[nn.Module, Preprocess]]


@dataclass(frozen=True)
class _Arm(_Entry):
    """And what a run's records have already. `instead`: why its model is none of the paper's, "" where it is one."""

    instead: str
    counted: Cost
    size_bytes: int
    accuracy: Cell


def table1(
    runs: Sequence[Run] = (),
    *,
    seconds: float = 1.0,
    batch: int = 1,
    tell: Callable[[str], object] = lambda name: None,
) -> Table1:
    """Count and measure every model; an arm of a run takes the place of the model whose counts it has.

    seconds: on each latency, 0 for none; batch: images a call; tell: is told the name of each row before it is made.
    An arm whose every seed failed has a note in place of a row. Raises BadInput for values out of range and for a run
    without a complete trial.
    """
    if not 0 <= seconds <= 3600:
        raise BadInput(f"0 <= seconds <= 3600 must hold, but got {seconds}; 0 measures nothing")
    if batch < 1:
        raise BadInput(f"batch must be 1 image or more, but got {batch}")
    found = [_arms(run) for run in runs]
    arms, lost = [arm for arms, _ in found for arm in arms], [note for _, notes in found for note in notes]
    rows = []
    for entry in _base():
        tell(entry.name)
        model, preprocess = entry.build()
        counted = macs.count(model, preprocess.size)
        if counted not in [arm.counted for arm in arms]:
            rows.append(_row(entry, counted, *_sized(model, preprocess, seconds, batch)))
    for arm in arms:
        tell(arm.name)
        timed = (
            _sized(*arm.build(), seconds, batch)[1] if seconds else {}
        )  # what is counted is in its records
        rows.append(_row(arm, arm.counted, arm.size_bytes, timed | {"accuracy": arm.accuracy}))
    printed = {name: Row(f"{name}, as printed", name, _printed(cells)) for name, cells in PRINTED.items()}
    ordered = [
        row for name in PRINTED for row in (printed[name], *(row for row in rows if row.beside == name))
    ]
    about = {"device": hardware.device_name(), "threads": torch.get_num_threads(), "batch": batch}
    where = f"{about['device']}, CPU threads: {about['threads']}, batch: {batch}" if seconds else ""
    lost += dict.fromkeys(arm.instead for arm in arms if arm.instead)
    return Table1(
        ordered, lost + notes(runs=bool(runs), gpu=hardware.device().type == "cuda", timed=where), about
    )


def _row(entry: _Entry, counted: Cost, size_bytes: int, measured: dict[str, Cell]) -> Row:
    counts = {"state": 4 * counted.parameters, "packed": size_bytes, **asdict(counted)}
    cells = {name: Cell(value, "counted") for name, value in counts.items()} | measured
    return Row(entry.name, entry.beside, {name: cells[name] for name in QUANTITIES if name in cells})


def _sized(
    model: nn.Module, preprocess: Preprocess, seconds: float, batch: int
) -> tuple[int, dict[str, Cell]]:
    """The bytes of the packed model, and its latency an image; on a GPU also the time until a call returns."""
    timed = {}
    with tempfile.TemporaryDirectory() as folder:
        size_bytes = packed_model.pack(model, folder, preprocess=preprocess)
        if seconds:
            model = packed_model.load_packed(folder, skeleton=model).to(hardware.device())
            for name, wait in {"latency": True, "returned": False}.items():
                if wait or hardware.device().type == "cuda":
                    timing = latency.measure(model, preprocess.size, batch, seconds=seconds, wait=wait)
                    timed[name] = Cell(timing.median_ms / batch, "measured", n=timing.n)
    return size_bytes, timed


def _base() -> Iterable[_Entry]:
    """ViT-B/16 in the precisions of the paper and in those that a user would pick instead; the paper's baselines."""
    yield _Entry("ViT-B/16, 1-bit classifier (section 2.4)", "1-bit ViT", lambda: _vit("head", ONE_BIT))
    yield _Entry("ViT-B/16, 1-bit encoder (section 2.2)", "1-bit ViT", lambda: _vit("block", ONE_BIT))
    yield _Entry("ViT-B/16", "ViT", lambda: _vit("", LayerSpec()))
    yield _Entry("ViT-B/16, int8 encoder", "ViT", lambda: _vit("block", LayerSpec(weights="int8")))
    yield _Entry("ViT-B/16, int4 encoder", "ViT", lambda: _vit("block", LayerSpec(weights="int4")))
    yield _Entry("ResNet-18", "Resnet 18", lambda: _baseline("resnet18:random"))
    yield _Entry("VGG-16", "VGG16", lambda: _baseline("vgg16:random"))


@cache
def _vit_b16() -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ViTForImageClassification(ViTConfig(num_labels=len(CLASSES))).eval()


def _vit(part: str, spec: LayerSpec) -> tuple[nn.Module, Preprocess]:
    model = copy.deepcopy(_vit_b16())
    found = layer_groups.groups(model)
    quantize.quantize_(
        model, {name: spec for group, names in found.items() if group.startswith(part) for name in names}
    )
    return model, loading.preprocess("vit_b_16")  # 224 px, as its own


def _baseline(name: str) -> tuple[nn.Module, Preprocess]:
    return checkpoints.load(name, CLASSES).eval(), loading.preprocess(name)


def _arms(run: Run) -> tuple[list[_Arm], list[str]]:
    """A run's arms: trials that differ in their seeds alone. Of a search, the best by validation of each kind of weights.

    And a note on each arm whose every seed failed.
    """
    records = [
        record for record in run.records.to_dict("records") if record["status"] in ("complete", "failed")
    ]
    if not any(record["status"] == "complete" for record in records):
        raise BadInput(
            f"RUN must have a complete trial, but {str(run.path)!r} has none; `ablate status` says how it is"
        )
    tried = len(_complete([record for record in records if not record["spec"]["test"]]))
    if any(
        record["test_accuracy"] is not None and not np.isnan(record["test_accuracy"]) for record in records
    ):
        records = [record for record in records if trial_of(record).test]  # not what was tuned on
    alike: dict[str, list[Record]] = {}
    for record in records:
        spec = trial_of(record)
        alike.setdefault(str(asked(spec, exclude={"seed"})), []).append(record)
    arms, chosen = list(alike.values()), ""
    if not run.study.design:
        arms = [arm for arm in arms if _complete(arm)]
        arms.sort(key=lambda arm: statistics.mean(record["accuracy"] for record in _complete(arm)))
        arms = list({arm[0]["arm"]: arm for arm in arms}.values())  # the last of each kind is its best
        confirmed = ", among those confirmed" * any(record["spec"]["test"] for record in records)
        chosen = f", the best of its kind by validation{confirmed}, of {tried} trials"
    seen = RunResults(run)
    cells = (
        {} if seen.design is None else dict(zip(seen.design["trial_id"], seen.design["cell"], strict=True))
    )
    named = [(arm, cells.get(arm[0]["trial_id"]) or describe_layers(arm[0]["spec"]) + chosen) for arm in arms]
    lost = [
        f"No row: {name}, all {len(arm)} seeds of which failed." for arm, name in named if not _complete(arm)
    ]
    return [_arm(seen, arm, name) for arm, name in named if _complete(arm)], lost


def _complete(records: list[Record]) -> list[Record]:
    return [record for record in records if record["status"] == "complete"]


def _arm(seen: RunResults, arm: list[Record], name: str) -> _Arm:
    records = _complete(arm)
    first, failed = records[0], len(arm) - len(records) or None
    spec = trial_of(first)

    def build() -> tuple[nn.Module, Preprocess]:
        return trial.build(spec, seen.classes).eval(), loading.preprocess(spec.model)

    split: Literal["test", "validation"] = "test" if spec.test else "validation"
    values = [record["test_accuracy" if spec.test else "accuracy"] for record in records]
    sd = statistics.stdev(values) if len(values) > 1 else None
    accuracy = Cell(statistics.mean(values), "measured", n=len(values), sd=sd, split=split, failed=failed)
    one_bit = any(layer.weights == "binary" for layer in spec.layers.values())
    baselines = {"resnet18": "Resnet 18", "vgg16": "VGG16"}
    beside = next(
        (paper for ours, paper in baselines.items() if spec.model.startswith(ours)),
        "1-bit ViT" if one_bit else "ViT",
    )
    counted = Cost(*(int(first[name]) for name in ("parameters", "macs", "bitops")))
    model, instead = Path(spec.model).name, ""
    if not _is_printed(counted, beside):
        instead = f"{model} is no {OURS[beside]}: it has {counted.parameters / 1e6:.2f} M parameters and "
        instead += f"{counted.macs / 1e9:.2f} GMac, and no printed number is of such a model."
        model += f" in place of {OURS[beside]}"
    return _Arm(f"{model}, {name}", beside, build, instead, counted, int(first["size_bytes"]), accuracy)


def _is_printed(counted: Cost, name: str) -> bool:
    """Whether a model has the printed parameters and MACs of a model of the paper, up to rounding."""
    ours = {"parameters": counted.parameters / 1e6, "macs": counted.macs / 1e9}
    return all(abs(value / float(PRINTED[name][key]) - 1) < 0.005 for key, value in ours.items())


def _printed(cells: dict[str, str]) -> dict[str, Cell]:
    found = {}
    for name, text in cells.items():
        value = float(text) * QUANTITIES[name][1]
        found[name] = Cell(round(value) if name in COUNTED else value, "quoted", printed=text)
    return found


def _short(cell: Cell) -> dict[str, Any]:
    return {key: value for key, value in asdict(cell).items() if value is not None}
