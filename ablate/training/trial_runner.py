"""The stages of one trial, from its spec to its record, its predictions and its packed model."""

import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch

from ablate.analysis.calibration import calibration_error
from ablate.config.trial_spec import TrialSpec
from ablate.data import datasets
from ablate.hardware import device, device_name
from ablate.models import layer_groups
from ablate.profiling import macs
from ablate.profiling.latency_table import LatencyTable
from ablate.quantization.bitlinear import BitLinear
from ablate.quantization.image_by_image import shares_scales
from ablate.quantization.packed_size import packed_bytes
from ablate.quantization.packing import pack
from ablate.runs.record import CurveRow, Record, blank_record
from ablate.training.corruptions import robust_accuracy
from ablate.training.evaluation import SHARING, Epoch, evaluate, shares_batch
from ablate.training.optim import length, shared_steps
from ablate.training.outcome import Outcome, compute_own, measure_inference
from ablate.training.plateaus import Plateaus
from ablate.training.stopwatch import Stopwatch
from ablate.training.trainer import train
from ablate.training.trial import build, prepare, preprocess_of

log = logging.getLogger(__name__)
# Fields of a record that grow during training; `rungs` only with early stopping.
CURVES: tuple[Literal["curve"], Literal["rungs"]] = ("curve", "rungs")


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
            size, classes = self.preprocess.size, self.dataset.classes
            measure_inference(self.record, folder, self.spec.model, classes, size, objectives)
        compute_own(self.record, objectives)
        self.record["status"] = "complete"

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


def subset_divisor(state: dict[str, Any]) -> int:
    """The divisor of the images that a state's model is trained on; 1 in states of versions without rungs."""
    return state.get("one_in", 1)
