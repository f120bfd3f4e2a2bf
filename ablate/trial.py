"""One trial: TrialSpec -> record. What was asked, what came out, what it cost, how it ended."""

import hashlib
import json
import platform
import tempfile
import time
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from ablate import cost, data, layers, models, packed
from ablate.bitlinear import BitLinear
from ablate.effective import asked, effective
from ablate.errors import BadInput, unknown
from ablate.latency import LatencyTable
from ablate.ledger import Record, blank_record
from ablate.recipe import distills, length
from ablate.spec import TrialSpec
from ablate.teacher import teacher
from ablate.train import Epoch, evaluate, resolve, train


@dataclass
class Outcome:
    """A record and the files that go with it."""

    record: Record
    predictions: dict[str, NDArray[Any]] = field(default_factory=dict)  # split -> logits (N, classes), labels
    weights: dict[str, bytes] = field(default_factory=dict)  # the packed model, file by file


def trial_id(spec: TrialSpec, dataset: data.Dataset | None = None) -> str:
    """A hash of what can change the outcome: the resolved spec with its seed, and the digests of data and checkpoint."""
    names = {"model", "data"}  # their contents count, not what they are called
    contents = {"data": (dataset or data.load(spec.data)).digest, "model": models.digest(spec.model)}
    whole = {"spec": asked(resolved(spec), exclude=names), **contents}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:12]


def resolved(spec: TrialSpec) -> TrialSpec:
    """The trial with bf16="auto" decided for this machine, and without traces of what changes nothing."""
    return effective(spec.model_copy(update={"recipe": resolve(spec.recipe)}))


def run_trial(spec: TrialSpec, dataset: data.Dataset | None = None) -> Record:
    """Train and measure one point, in this process. A fault of the training is a record with status "failed".

    Raises BadInput for an unknown model, dataset or layer group.
    """
    spec = resolved(spec)
    steps = trial_steps(spec, trial_id(spec), dataset or data.load(spec.data))
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value.record


def trial_steps(
    spec: TrialSpec,
    name: str,
    dataset: data.Dataset,
    table: LatencyTable | None = None,
    state: dict[str, Any] | None = None,
) -> Generator[Epoch, None, Outcome]:
    """A trial epoch by epoch, so that a caller can report in between; its return value is the Outcome.

    With a table, the record's latency_ms is the sum of the table's layers. With the state of an epoch that it yielded,
    in this process or in another, it goes on after that epoch. train_seconds is the trial's own time to its last
    evaluation, the teacher's forward passes included, but not the training of teacher or checkpoint, which trials share.
    """
    record = blank_record(spec, name)
    chosen = data.subset(dataset.train.labels, spec.fraction, spec.seed)
    record |= {"images": len(chosen), "threads": torch.get_num_threads(), "device": device_name()}
    started = time.perf_counter()
    outcome = Outcome(record)
    try:
        model = build(spec, dataset.classes)
        preprocess = models.preprocess(spec.model)
        counted = cost.count(model, preprocess.size)
        record |= {"parameters": counted.parameters, "macs": counted.macs, "bitops": counted.bitops}
        specs = {n: m.spec for n, m in layers.linear_layers(model).items() if isinstance(m, BitLinear)}
        if table:
            record["latency_ms"] = table.sum(specs)
        size_bytes = packed.packed_bytes(model, specs, preprocess=preprocess)  # as it will be
        model.to(device())
        split = data.Split(dataset.train.images[chosen], dataset.train.labels[chosen])
        record["steps"], record["epochs"] = length(spec.recipe, len(split))
        before = 0.0  # seconds spent until the state was kept
        if state:
            record |= {"curve": state["curve"], "started_at": state["started_at"]}
            before = state["seconds"]
        own, last = time.perf_counter(), None
        if spec.recipe.full_epochs and not state:
            model.load_state_dict(_trained(checkpoint_spec(spec), dataset, split).state_dict())
        taught = _trained(teacher_spec(spec), dataset, split) if distills(spec.recipe) else None
        started += time.perf_counter() - own
        for last in train(model, split, dataset.validation, spec.recipe, preprocess, spec.seed, taught, state):
            record["curve"].append(
                {"epoch": last.epoch, "train_loss": last.train_loss, "loss": last.loss, "accuracy": last.accuracy}
            )
            about = {"curve": record["curve"], "started_at": record["started_at"]}
            about["seconds"] = before + time.perf_counter() - started
            so_far = record | {"size_bytes": size_bytes, "train_seconds": about["seconds"]}
            yield replace(last, state=last.state | about, record=so_far | {"curve": [*record["curve"]]})
        last = last or evaluate(model, dataset.validation, preprocess)
        record |= {"accuracy": last.accuracy, "loss": last.loss}
        record["train_seconds"] = before + time.perf_counter() - started
        outcome.predictions = {"validation_logits": last.logits, "validation_labels": dataset.validation.labels}
        if spec.test:
            test = evaluate(model, dataset.test, preprocess, last.epoch)
            record |= {"test_accuracy": test.accuracy, "test_loss": test.loss}
            outcome.predictions |= {"test_logits": test.logits, "test_labels": dataset.test.labels}
        with tempfile.TemporaryDirectory() as folder:
            record["size_bytes"] = packed.pack(model, folder, preprocess=preprocess)
            outcome.weights = {file.name: file.read_bytes() for file in sorted(Path(folder).iterdir())}
        record["status"] = "complete"
    except BadInput:
        raise
    except Exception as error:  # a failed trial is a record, whatever failed
        record["error"] = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    return outcome


def worker_steps(
    spec: TrialSpec, name: str, state: dict[str, Any] | None, *, threads: int, files: dict[str, bytes], **given: Any
) -> Generator[Epoch, None, Outcome]:
    """`trial_steps` in a process that runs many trials, maybe on a node that lacks the model's folder: with its `files`."""
    torch.set_num_threads(threads)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    models.provide(spec.model, files)
    return trial_steps(spec, name, state=state, **given)


def compare(record: Record) -> list[dict[str, Any]]:
    """Run a recorded trial again with as many threads, and set what came out beside the record, field by field."""
    if record["threads"]:
        torch.set_num_threads(int(record["threads"]))
    spec = TrialSpec.model_validate(record["spec"])
    again = run_trial(spec)
    before, now = (_outcome(r) for r in (record, again))
    return [{"field": f, "recorded": v, "now": now.get(f), "same": v == now.get(f)} for f, v in before.items()]


def _outcome(record: Record) -> dict[str, Any]:
    fields = [*("trial_id", "status", "images", "steps", "accuracy", "loss", "test_accuracy")]
    fields += [*("size_bytes", "parameters", "macs", "bitops")]
    epochs = {f"loss after epoch {row['epoch']}": row["loss"] for row in record["curve"]}
    return {field: record[field] for field in fields} | epochs


def build(spec: TrialSpec, classes: list[str]) -> torch.nn.Module:
    """The pre-trained model with the trial's layer groups quantized. Raises BadInput for a group it does not have."""
    spec = effective(spec)
    model = models.load(spec.model, classes, spec.seed)
    groups = layers.groups(model)
    if wrong := [group for group in spec.layers if group not in groups]:
        raise unknown("layer group", wrong[0], groups)
    layers.quantize_(model, {name: fields for group, fields in spec.layers.items() for name in groups[group]})
    return model


def teacher_spec(spec: TrialSpec) -> TrialSpec:
    """The trial that a distilled one learns from: its `full` arm, by the same recipe without distillation."""
    recipe = spec.recipe.model_copy(update={"distill": 0.0, "distill_blocks": 0.0})
    return resolved(spec.model_copy(update={"layers": {}, "recipe": recipe, "test": False}))


def checkpoint_spec(spec: TrialSpec) -> TrialSpec:
    """The trial that one with `full_epochs` begins from: so many epochs of its `full` arm, by the same recipe."""
    full = teacher_spec(spec)
    recipe = full.recipe.model_copy(update={"epochs": spec.recipe.full_epochs, "full_epochs": 0, "image_views": None})
    return resolved(full.model_copy(update={"recipe": recipe}))


def _trained(full: TrialSpec, dataset: data.Dataset, split: data.Split) -> torch.nn.Module:
    """A teacher or a checkpoint, trained once for all trials that want it. It has seen the trial's images and no others."""
    name = f"{trial_id(full, dataset)} on {device_name()}, {torch.get_num_threads()} threads"
    model = build(full, dataset.classes).to(device())
    if full.recipe.full_epochs:
        model.load_state_dict(_trained(checkpoint_spec(full), dataset, split).state_dict())
    return teacher(name, model, split, full.recipe, models.preprocess(full.model), full.seed)


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return _cpu_name()


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
