"""Runs one trial: TrialSpec -> record, with the predictions and the packed model that belong to it."""

import logging
import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from numpy.typing import NDArray

from ablate.analysis.calibration import calibration_error
from ablate.config.own_objectives import compute, load_objective
from ablate.config.trial_spec import TrialSpec
from ablate.data import datasets, flips
from ablate.errors import AblateError, BadInput
from ablate.hardware import device, device_name
from ablate.models import layer_groups, locating
from ablate.plugins import is_plugin
from ablate.profiling import macs
from ablate.profiling.energy import energy_counter, energy_mj
from ablate.profiling.latency_table import LatencyTable
from ablate.profiling.memory import peak_memory_bytes
from ablate.quantization.bitlinear import BitLinear
from ablate.quantization.image_by_image import shares_scales
from ablate.quantization.packed_size import packed_bytes
from ablate.quantization.packing import pack
from ablate.runs.record import CurveRow, Record, blank_record
from ablate.training.corruptions import robust_accuracy
from ablate.training.optim import length, shared_steps
from ablate.training.plateaus import Plateaus
from ablate.training.stopwatch import Stopwatch
from ablate.training.trainer import SHARING, Epoch, evaluate, shares_batch, train
from ablate.training.trial import (
    build,
    load_data,
    load_packed_trial,
    prepare,
    preprocess_of,
    resolved,
    trial_id,
)

log = logging.getLogger(__name__)
# Fields of a record that grow during training; `rungs` only with early stopping.
CURVES: tuple[Literal["curve"], Literal["rungs"]] = ("curve", "rungs")


@dataclass
class Outcome:
    """A record and the files that belong to it.

    Attributes:
        record: The trial's record.
        predictions: "validation_logits" and "test_logits" (N, classes), "validation_labels" and "test_labels"
            (N,). The test images are those that the trial's spec names, in their order.
        weights: The packed model, by file name.
    """

    record: Record
    predictions: dict[str, NDArray[Any]] = field(default_factory=dict)
    weights: dict[str, bytes] = field(default_factory=dict)


def run_trial(
    spec: TrialSpec,
    dataset: datasets.Dataset | None = None,
    rungs: Sequence[int] = (),
    objectives: Sequence[str] = (),
) -> Record:
    """Train and measure one point of a search space in this process.

    Args:
        spec: The trial.
        dataset: Its data, where that is loaded already.
        rungs: As in `trial_steps`.
        objectives: As in `trial_steps`.

    Returns:
        The record. Where training fails its status is "failed".

    Raises:
        BadInput: The model, the dataset or a layer group is unknown.
    """
    dataset = dataset or load_data(spec.data, spec.model)
    if notice := flips.notice([spec.recipe.augment], dataset.mirrored):
        log.warning(notice)
    spec = resolved(spec, dataset)
    steps = trial_steps(spec, trial_id(spec, dataset), dataset, rungs=rungs, objectives=objectives)
    with torch.random.fork_rng(range(torch.cuda.device_count())):  # the caller's random state is restored
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return end.value.record


def worker_steps(
    spec: TrialSpec,
    name: str,
    state: dict[str, Any] | None,
    *,
    threads: int,
    files: Mapping[str, dict[str, bytes]],
    rungs: Sequence[int] = (),
    objectives: Sequence[str] = (),
    **options: Any,
) -> Generator[Epoch, None, Outcome]:
    """`trial_steps` in a worker process, which runs many trials, maybe without the models' folders.

    Args:
        spec: The trial. One that is tested confirms another, and so has no rungs.
        name: Its id.
        state: As in `trial_steps`.
        threads: Of torch, for the whole process.
        files: Of the model and of external teachers, by name (`locating.files`).
        rungs: As in `trial_steps`.
        objectives: As in `trial_steps`.
        options: The other arguments of `trial_steps`.

    Returns:
        The generator of `trial_steps`.
    """
    torch.set_num_threads(threads)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    for objective in filter(is_plugin, objectives):
        load_objective(objective)  # a node that lacks it says so before it trains
    for model, content in files.items():
        locating.provide(model, content)
    rungs = () if spec.test else rungs
    return trial_steps(
        spec, name, state=state, rungs=rungs, objectives=objectives, share_plateaus=True, **options
    )


def trial_steps(
    spec: TrialSpec,
    name: str,
    dataset: datasets.Dataset,
    table: LatencyTable | None = None,
    state: dict[str, Any] | None = None,
    rungs: Sequence[int] = (),
    objectives: Sequence[str] = (),
    share_plateaus: bool = False,
) -> Generator[Epoch, None, Outcome]:
    """Run a trial epoch by epoch, so that the caller can report, prune and store states in between.

    Args:
        spec: The trial, resolved.
        name: Its id.
        dataset: Its data.
        table: Latencies of layers; the record's latency_ms is their sum.
        state: Of an epoch that this generator yielded, in any process: the trial continues after that epoch.
        rungs: Divisors, from large to small. For each the model is first trained on 1/divisor of the images,
            from the same start and by the same recipe. The record's `rungs` holds these curves; of its other
            fields only train_seconds depends on them.
        objectives: Those of the study. Users' own, robust_accuracy, peak_memory_bytes and energy_mj are only
            computed where they are among them.
        share_plateaus: Whether a trial with schedule="wsd" goes on from the plateau of a shorter one that is
            otherwise equal, and keeps its own. Its outcome is the same.

    Yields:
        Each validated epoch, with its state and the record so far.

    Returns:
        The record and its files. train_seconds is the time until the last evaluation, the teacher's forward
        passes included; the training of a teacher or a checkpoint, which trials share, is not.

    Raises:
        BadInput: A layer group is unknown, or the recipe does not suit the model.
    """
    runner = TrialRunner(spec, name, dataset, rungs)
    try:
        runner.setup(table)
        runner.restore(state)
        if share_plateaus and not rungs:
            runner.share_plateaus()
        for divisor in runner.divisors:
            yield from runner.run_rung(divisor)
        runner.finish(objectives)
    except BadInput:
        raise
    except Exception as error:  # whatever fails, a failed trial has a record
        runner.fail(error)
    return runner.outcome


class TrialRunner:
    """The stages of a trial: `setup`, `restore`, `run_rung` for each of `divisors`, `finish`.

    Args:
        spec: The trial, resolved.
        name: Its id.
        dataset: Its data.
        rungs: Divisors of the images for the trainings before the trial's own, from large to small.

    Attributes:
        divisors: Of the trainings that are left; 1 is the trial's own.
        outcome: The record, and later its files.
    """

    def __init__(self, spec: TrialSpec, name: str, dataset: datasets.Dataset, rungs: Sequence[int]) -> None:
        self.spec, self.dataset, self.divisors = spec, dataset, [*rungs, 1]
        self.stopwatch = Stopwatch()
        self.record = blank_record(spec, name)
        if rungs:
            self.record["rungs"] = []
        self.images = len(datasets.subset(dataset.train.labels, spec.fraction, spec.seed))
        self.record["images"] = self.images
        self.record["threads"], self.record["device"] = torch.get_num_threads(), device_name()
        self.outcome = Outcome(self.record)
        self._state: dict[str, Any] | None = None  # from which the next training continues
        self._plateaus: Plateaus | None = None
        self._last: Epoch | None = None  # of the training that is running, or ended last

    def setup(self, table: LatencyTable | None = None) -> None:
        """Build the model, and record what it costs."""
        self.model = build(self.spec, self.dataset.classes)
        # Images of a batch that share a scale influence each other.
        separated = 1 if any(map(shares_scales, self.spec.layers.values())) else None
        self.record["evaluation_batch"] = SHARING if shares_batch(self.model) else separated
        self.preprocess = preprocess_of(self.spec.model, self.dataset)
        layers = layer_groups.linear_layers(self.model).items()
        specs = {name: layer.spec for name, layer in layers if isinstance(layer, BitLinear)}
        self.record.update(cast(Record, asdict(macs.count(self.model, self.preprocess.size))))
        if table:
            self.record["latency_ms"] = table.sum(specs)
        self.size_bytes = packed_bytes(self.model, specs, preprocess=self.preprocess)
        self.model.to(device())
        self.record["steps"], self.record["epochs"] = length(self.spec.recipe, self.images)

    def restore(self, state: dict[str, Any] | None) -> None:
        """Continue after the epoch of a state. One of other rungs or other names of modules is ignored."""
        if not state or (divisor := subset_divisor(state)) not in self.divisors:
            return
        if {*state["model"]} != {*self.model.state_dict()}:  # as in another version of transformers
            return
        self.divisors = self.divisors[self.divisors.index(divisor) :]
        self.record.update(cast(Record, {key: state[key] for key in (*CURVES, "started_at") if key in state}))
        self.stopwatch.add(state["seconds"])
        self._state = state

    def share_plateaus(self) -> None:
        """Go on from the plateau of a shorter trial, if there is one, and keep this one's."""
        self._plateaus = Plateaus(self.spec, self.dataset)
        if self._state is None:
            shared = shared_steps(self.record["steps"] or 0, self.spec.recipe)
            self.restore(state := self._plateaus.load(shared))
            if state and self._state:
                log.info("goes on from a plateau after step %d", state["schedule"]["last_epoch"])

    def _keep_plateau(self, state: dict[str, Any]) -> None:
        if self._plateaus:
            with self.stopwatch.paused():
                so_far = {"curve": self.record["curve"], "seconds": self.stopwatch.seconds, "one_in": 1}
                self._plateaus.keep({**state, **so_far})

    def run_rung(self, divisor: int) -> Iterator[Epoch]:
        """Train on 1/divisor of the images. Yields each validated epoch, with its state and record."""
        if divisor != self.divisors[0]:
            self.model = build(self.spec, self.dataset.classes).to(device())
        state, self._state, self._last = self._state, None, None
        with self.stopwatch.paused():  # trials share checkpoints and teachers
            images, teacher = prepare(self.spec, divisor, self.dataset, None if state else self.model)
        validation, recipe, seed = self.dataset.validation, self.spec.recipe, self.spec.seed
        on = (self.model, images, validation, recipe, self.preprocess, seed, teacher, state)
        for epoch in train(*on, keep=self._keep_plateau if self._plateaus else None):
            self._last = epoch
            self._add_to_curve(epoch, divisor, len(images))
            yield self._with_progress(epoch, divisor)

    def finish(self, objectives: Sequence[str] = ()) -> None:
        """Record the last epoch, test the model if the spec says so, pack it, and compute `objectives`."""
        last = self._last or evaluate(self.model, self.dataset.validation, self.preprocess)
        self.record.update({"accuracy": last.accuracy, "loss": last.loss})
        self.record["train_seconds"] = self.stopwatch.seconds
        labels = self.dataset.validation.labels
        self.record["calibration_error"] = calibration_error(last.logits, labels)
        if "robust_accuracy" in objectives:
            self.record["robust_accuracy"] = robust_accuracy(
                self.model, self.dataset.validation, self.preprocess
            )
        self.outcome.predictions = {"validation_logits": last.logits, "validation_labels": labels}
        if self.spec.test:
            test = self.dataset.tested(self.spec.test)
            tested = evaluate(self.model, test, self.preprocess, last.epoch)
            self.record.update({"test_accuracy": tested.accuracy, "test_loss": tested.loss})
            self.outcome.predictions.update({"test_logits": tested.logits, "test_labels": test.labels})
        with tempfile.TemporaryDirectory() as folder:
            self.record["size_bytes"] = pack(self.model, folder, preprocess=self.preprocess)
            self.outcome.weights = {file.name: file.read_bytes() for file in sorted(Path(folder).iterdir())}
            self._measure_inference(folder, objectives)
        record: Record = {**self.record, "status": "complete"}
        values = {name: _computed(name, record) for name in objectives if is_plugin(name)}
        self.record.update(cast(Record, values))
        self.record["status"] = "complete"

    def _measure_inference(self, folder: str, objectives: Sequence[str]) -> None:
        """Record what inference with the packed model costs, as far as that is an objective."""
        if not {"peak_memory_bytes", "energy_mj"} & {*objectives}:
            return
        packed, size = load_packed_trial(folder, self.spec.model, self.dataset.classes), self.preprocess.size
        if "peak_memory_bytes" in objectives:
            self.record["peak_memory_bytes"] = peak_memory_bytes(packed, size)
        if "energy_mj" in objectives:
            try:
                counter = energy_counter(device().type == "cuda")
                self.record["energy_mj"] = energy_mj(packed, size, counter)
            except BadInput as error:  # it fails the trial, not the study
                raise AblateError(str(error)) from None

    def fail(self, error: Exception) -> None:
        """Record why the trial failed, in a line."""
        self.record["error"] = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"

    def _add_to_curve(self, epoch: Epoch, divisor: int, images: int) -> None:
        row: CurveRow = {
            "epoch": epoch.epoch,
            "train_loss": epoch.train_loss,
            "loss": epoch.loss,
            "accuracy": epoch.accuracy,
        }
        if divisor == 1:
            self.record["curve"].append(row)
        else:
            self.record["rungs"].append({"one_in": divisor, "images": images, **row})

    def _with_progress(self, epoch: Epoch, divisor: int) -> Epoch:
        """The epoch with the trial's record so far, and with a state from which `restore` continues."""
        seconds = self.stopwatch.seconds
        curves: dict[str, Any] = {
            key: [*cast(list[CurveRow], self.record[key])] for key in CURVES if key in self.record
        }
        progress = {**curves, "started_at": self.record["started_at"]}
        # "one_in" is subset_divisor under the name that states have had from the first version on.
        state = {**epoch.state, **progress, "seconds": seconds, "one_in": divisor}
        so_far = {**self.record, **progress, "size_bytes": self.size_bytes, "train_seconds": seconds}
        return replace(epoch, state=state, record=cast(Record, so_far))


def _computed(objective: str, record: Record) -> float:
    """The value of a user's own objective. What is wrong with it fails the trial, not the study."""
    try:
        return compute(objective, record)
    except BadInput as error:
        raise AblateError(str(error)) from None


def subset_divisor(state: dict[str, Any]) -> int:
    """The divisor of the images that a state's model is trained on; 1 in states of versions without rungs."""
    return state.get("one_in", 1)
