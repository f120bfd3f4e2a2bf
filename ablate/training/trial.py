"""One trial: TrialSpec -> record. What was asked, what came out, what it cost, how it ended."""

import hashlib
import json
import logging
import tempfile
import time
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from ablate.config.builtin import IMAGEFOLDER
from ablate.config.canonical import asked, effective
from ablate.config.trial_spec import TrialSpec
from ablate.data import datasets, flips
from ablate.data.mirrored import augmentation
from ablate.errors import BadInput, unknown
from ablate.hardware import device, device_name
from ablate.models import checkpoints, layer_groups, loading, locating, preprocessing
from ablate.profiling import macs
from ablate.profiling.latency import LatencyTable
from ablate.quantization import packed_model, quantize
from ablate.quantization.bitlinear import BitLinear
from ablate.quantization.image_by_image import shares_scales
from ablate.runs.ledger import trial_of
from ablate.runs.record import Record, blank_record
from ablate.runs.state import after
from ablate.training.loss import distills
from ablate.training.optim import length
from ablate.training.teacher_cache import teacher
from ablate.training.trainer import Epoch, evaluate, resolve, train

log = logging.getLogger(__name__)
CURVES = ("curve", "rungs")  # of a record, as it was seen while training; `rungs` only where there are some


@dataclass
class Outcome:
    """A record and the files that go with it."""

    record: Record
    predictions: dict[str, NDArray[Any]] = field(default_factory=dict)  # split -> logits (N, classes), labels
    weights: dict[str, bytes] = field(default_factory=dict)  # the packed model, file by file


def load_data(name: str, model: str) -> datasets.Dataset:
    """A dataset as a model gets it: the images of a folder may be resized and cropped by the model's image processor."""
    return datasets.load(name, loading.preprocess(model) if name.startswith(IMAGEFOLDER) else None)


def preprocess_of(model: str, dataset: datasets.Dataset) -> preprocessing.Preprocess:
    """What is left to do of the model's image processing, for the images of a dataset that `load_data` gave."""
    return loading.preprocess(model).of(dataset.train.images, dataset.at_decoding, dataset.covered)


def trial_id(spec: TrialSpec, dataset: datasets.Dataset | None = None) -> str:
    """A hash of what can change the outcome: the resolved spec with its seed, and the digests of data and checkpoint."""
    names = {"model", "data"}  # their contents count, not what they are called
    dataset = dataset or load_data(spec.data, spec.model)
    contents = {"data": dataset.digest, "model": loading.start(spec.model, dataset.classes)}
    whole = {"spec": asked(resolved(spec, dataset), exclude=names), **contents}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:12]


def resolved(spec: TrialSpec, dataset: datasets.Dataset | None = None) -> TrialSpec:
    """The trial with bf16="auto" decided for this machine, and flips for a dataset; without traces of what changes nothing."""
    recipe = resolve(spec.recipe)
    if dataset and recipe.augment in (True, "both"):
        recipe = recipe.model_copy(update={"augment": augmentation(recipe.augment, dataset.mirrored)})
    return effective(spec.model_copy(update={"recipe": recipe}))


def run_trial(spec: TrialSpec, dataset: datasets.Dataset | None = None, rungs: Sequence[int] = ()) -> Record:
    """Train and measure one point, in this process. A fault of the training is a record with status "failed".

    rungs: as in `trial_steps`. Raises BadInput for an unknown model, dataset or layer group.
    """
    dataset = dataset or load_data(spec.data, spec.model)
    asked_for, spec = spec.recipe.augment, resolved(spec, dataset)
    if note := flips.notice([asked_for], dataset.mirrored):
        log.warning(note)
    steps = trial_steps(spec, trial_id(spec, dataset), dataset, rungs=rungs)
    with torch.random.fork_rng(range(torch.cuda.device_count())):  # the caller's random state stays as it is
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return end.value.record


def trial_steps(
    spec: TrialSpec,
    name: str,
    dataset: datasets.Dataset,
    table: LatencyTable | None = None,
    state: dict[str, Any] | None = None,
    rungs: Sequence[int] = (),
) -> Generator[Epoch, None, Outcome]:
    """A trial epoch by epoch, so that a caller can report in between; its return value is the Outcome.

    With a table, the record's latency_ms is the sum of the table's layers. With the state of an epoch that it yielded,
    in this process or in another, it goes on after that epoch. For each of the rungs, large to small, it is trained on
    one in so many of its images before, by the same recipe and from the same start; the record's `rungs` are the curve
    of these trainings, and nothing else of it depends on them but train_seconds. That is the trial's own time to its
    last evaluation, the teacher's forward passes included, but not the training of teacher or checkpoint, which trials
    share.
    """
    sizes = [*rungs, 1]
    kept = state.get("one_in", 1) if state else 0
    state, sizes = (state, sizes[sizes.index(kept) :]) if kept in sizes else (None, sizes)
    record = blank_record(spec, name) | ({"rungs": []} if rungs else {})
    record["images"] = len(datasets.subset(dataset.train.labels, spec.fraction, spec.seed))
    record |= {"threads": torch.get_num_threads(), "device": device_name()}
    record["evaluation_batch"] = (
        1 if any(map(shares_scales, spec.layers.values())) else None
    )  # images that share a scale
    started = time.perf_counter()
    outcome = Outcome(record)
    try:
        model, preprocess = build(spec, dataset.classes), preprocess_of(spec.model, dataset)
        counted, size_bytes = _counted(model, preprocess, table)
        record |= counted
        model.to(device())
        record["steps"], record["epochs"] = length(spec.recipe, record["images"])
        before, last = 0.0, None  # seconds spent until the state was kept
        if state:
            record |= {key: state[key] for key in (*CURVES, "started_at") if key in state}
            before = state["seconds"]
        for one_in in sizes:
            if one_in != sizes[0]:
                model, state, last = build(spec, dataset.classes).to(device()), None, None
            own = time.perf_counter()
            split, taught = _prepared(spec, one_in, dataset, None if state else model)
            started += time.perf_counter() - own
            for last in train(
                model, split, dataset.validation, spec.recipe, preprocess, spec.seed, taught, state
            ):
                row = {
                    "epoch": last.epoch,
                    "train_loss": last.train_loss,
                    "loss": last.loss,
                    "accuracy": last.accuracy,
                }
                if one_in == 1:
                    record["curve"].append(row)
                else:
                    record["rungs"].append({"one_in": one_in, "images": len(split)} | row)
                about = {key: [*record[key]] for key in CURVES if key in record} | {
                    "started_at": record["started_at"]
                }
                so_far = record | about | {"size_bytes": size_bytes}
                so_far["train_seconds"] = seconds = before + time.perf_counter() - started
                yield replace(
                    last, state=last.state | about | {"seconds": seconds, "one_in": one_in}, record=so_far
                )
        last = last or evaluate(model, dataset.validation, preprocess)
        record |= {"accuracy": last.accuracy, "loss": last.loss}
        record["train_seconds"] = before + time.perf_counter() - started
        outcome.predictions = {
            "validation_logits": last.logits,
            "validation_labels": dataset.validation.labels,
        }
        _finish(outcome, model, preprocess, dataset.test if spec.test else None, last.epoch)
    except BadInput:
        raise
    except Exception as error:  # a failed trial is a record, whatever failed
        record["error"] = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    return outcome


def _counted(
    model: torch.nn.Module, preprocess: preprocessing.Preprocess, table: LatencyTable | None
) -> tuple[Record, int]:
    """What a model costs by its layers alone, as fields of a record, and the bytes of the file that it will be packed to."""
    specs = {n: m.spec for n, m in layer_groups.linear_layers(model).items() if isinstance(m, BitLinear)}
    counted = asdict(macs.count(model, preprocess.size)) | ({"latency_ms": table.sum(specs)} if table else {})
    return counted, packed_model.packed_bytes(model, specs, preprocess=preprocess)


def _finish(
    outcome: Outcome,
    model: torch.nn.Module,
    preprocess: preprocessing.Preprocess,
    test: datasets.Split | None,
    epoch: int,
) -> None:
    """Test the trained model, where there is a split to test it on, and pack it: its record is complete then."""
    if test:
        tested = evaluate(model, test, preprocess, epoch)
        outcome.record |= {"test_accuracy": tested.accuracy, "test_loss": tested.loss}
        outcome.predictions |= {"test_logits": tested.logits, "test_labels": test.labels}
    with tempfile.TemporaryDirectory() as folder:
        outcome.record["size_bytes"] = packed_model.pack(model, folder, preprocess=preprocess)
        outcome.weights = {file.name: file.read_bytes() for file in sorted(Path(folder).iterdir())}
    outcome.record["status"] = "complete"


def worker_steps(
    spec: TrialSpec,
    name: str,
    state: dict[str, Any] | None,
    *,
    threads: int,
    files: dict[str, bytes],
    rungs: Sequence[int] = (),
    **given: Any,
) -> Generator[Epoch, None, Outcome]:
    """`trial_steps` in a process that runs many trials, maybe on a node that lacks the model's folder: with its `files`.

    A trial that is tested confirms another, and so has no rungs.
    """
    torch.set_num_threads(threads)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    locating.provide(spec.model, files)
    return trial_steps(spec, name, state=state, rungs=() if spec.test else rungs, **given)


def compare(record: Record) -> list[dict[str, Any]]:
    """Run a recorded trial again with as many threads, and set what came out beside the record, field by field."""
    spec, threads = trial_of(record), torch.get_num_threads()
    if spec.recipe.augment is True:  # a record says what was done: there were flips
        spec = spec.model_copy(update={"recipe": spec.recipe.model_copy(update={"augment": "both"})})
    torch.set_num_threads(int(record["threads"] or threads))
    try:
        again = run_trial(spec, rungs=[*dict.fromkeys(row["one_in"] for row in record.get("rungs", ()))])
    finally:
        torch.set_num_threads(threads)
    before, now = (_outcome(r) for r in (record, again))
    return [
        {"field": f, "recorded": v, "now": now.get(f), "same": v == now.get(f)} for f, v in before.items()
    ]


def _outcome(record: Record) -> dict[str, Any]:
    fields = [*("trial_id", "status", "images", "steps", "accuracy", "loss", "test_accuracy")]
    fields += [*("size_bytes", "parameters", "macs", "bitops")]
    epochs = {f"loss after {after(row)}": row["loss"] for row in (*record.get("rungs", ()), *record["curve"])}
    return {field: record[field] for field in fields} | epochs


def build(spec: TrialSpec, classes: list[str]) -> torch.nn.Module:
    """The pre-trained model with the trial's layer groups quantized. Raises BadInput for a group it does not have."""
    model = checkpoints.load(spec.model, classes, spec.seed)
    groups = layer_groups.groups(model)
    if wrong := [group for group in spec.layers if group not in groups]:
        raise unknown("layer group", wrong[0], groups)
    spec = effective(spec)
    quantize.quantize_(
        model, {name: fields for group, fields in spec.layers.items() for name in groups[group]}
    )
    return model


def _prepared(
    spec: TrialSpec, one_in: int, dataset: datasets.Dataset, fresh: torch.nn.Module | None
) -> tuple[datasets.Split, torch.nn.Module | None]:
    """A trial's images, or of them one in so many, and its teacher; a fresh model takes the weights of its checkpoint."""
    spec = spec.model_copy(update={"fraction": spec.fraction / one_in})
    chosen = datasets.subset(dataset.train.labels, spec.fraction, spec.seed)
    split = datasets.Split(dataset.train.images[chosen], dataset.train.labels[chosen])
    if spec.recipe.full_epochs and fresh:
        fresh.load_state_dict(_trained(checkpoint_spec(spec), dataset, split).state_dict())
    return split, _trained(teacher_spec(spec), dataset, split) if distills(spec.recipe) else None


def teacher_spec(spec: TrialSpec) -> TrialSpec:
    """The trial that a distilled one learns from: its `full` arm, by the same recipe without distillation."""
    recipe = spec.recipe.model_copy(update={"distill": 0.0, "distill_blocks": 0.0})
    return resolved(spec.model_copy(update={"layers": {}, "recipe": recipe, "test": False}))


def checkpoint_spec(spec: TrialSpec) -> TrialSpec:
    """The trial that one with `full_epochs` begins from: so many epochs of its `full` arm, by the same recipe."""
    full = teacher_spec(spec)
    recipe = full.recipe.model_copy(
        update={"epochs": spec.recipe.full_epochs, "full_epochs": 0, "image_views": None}
    )
    return resolved(full.model_copy(update={"recipe": recipe}))


def _trained(full: TrialSpec, dataset: datasets.Dataset, split: datasets.Split) -> torch.nn.Module:
    """A teacher or a checkpoint, trained once for all trials that want it. It has seen the trial's images and no others."""
    name = f"{trial_id(full, dataset)} on {device_name()}, {torch.get_num_threads()} threads"
    model = build(full, dataset.classes).to(device())
    if full.recipe.full_epochs:
        model.load_state_dict(_trained(checkpoint_spec(full), dataset, split).state_dict())
    return teacher(name, model, split, full.recipe, preprocess_of(full.model, dataset), full.seed)
