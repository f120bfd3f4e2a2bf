"""The training loop and the evaluation of a model."""

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from ablate.config.trial_spec import Recipe
from ablate.data.datasets import Split
from ablate.errors import NonFinite
from ablate.hardware import native_bf16
from ablate.models.loading import logits
from ablate.models.preprocessing import Preprocess
from ablate.quantization.bitlinear import BitLinear
from ablate.quantization.integer_linear import as_integers
from ablate.quantization.static_scales import calibrate_, uncalibrated
from ablate.runs.progress import Pace
from ablate.runs.record import Record
from ablate.training.augmentation import augment
from ablate.training.compilation import compiled
from ablate.training.distortion import distorted, mixing
from ablate.training.loss import Objective
from ablate.training.optim import (
    MIX_UNTIL,
    averaged,
    check_single,
    freeze,
    length,
    optimizer_of,
    rate,
    shared_steps,
    steps_of,
    switch_weight_decay,
)
from ablate.training.policies import policy_of
from ablate.training.progressive import Ramp

log = logging.getLogger(__name__)
LOGGED = 200  # batches between two lines of training loss (section 2.4, step 7)
AT_ONCE = {"cpu": 50, "cuda": 250}  # images per batch of an evaluation (benchmarks/evaluation.py)
CALIBRATION = 64  # training images, without augmentation, for static activation scales
SHARING = 64  # images per batch where they share activation scales, so that all devices agree


@dataclass(frozen=True)
class Epoch:
    """The outcome of one pass over the training images.

    Attributes:
        epoch: Its number, from 1.
        train_loss: Mean training loss of the epoch's batches, the terms of a distillation included.
        loss: Validation cross-entropy, in nats.
        accuracy: Validation top-1 accuracy.
        logits: Of the validation images, (N, classes).
        state: From which `train` continues. Valid until the generator is advanced.
        record: The trial's record so far, where the training is a trial's.
    """

    epoch: int
    train_loss: float
    loss: float
    accuracy: float
    logits: NDArray[np.float32]
    state: dict[str, Any] = field(default_factory=dict)
    record: Record | None = None


def resolve(recipe: Recipe) -> Recipe:
    """The recipe with bf16="auto" resolved for this machine."""
    return recipe if recipe.bf16 != "auto" else recipe.model_copy(update={"bf16": native_bf16()})


def train(
    model: nn.Module,
    images: Split,
    validation: Split,
    recipe: Recipe,
    preprocess: Preprocess,
    seed: int,
    teacher: nn.Module | None = None,
    state: dict[str, Any] | None = None,
    keep: Callable[[dict[str, Any]], None] | None = None,
) -> Iterator[Epoch]:
    """Fine-tune a model in place.

    With recipe.ema the averaged weights are evaluated, and replace the model's own after the last epoch.
    With recipe.trained = "head" all other parameters require no gradient until the end.
    With recipe.compile the model's blocks are compiled for training steps alone. `torch.compiler.reset` then
    drops the graphs that this process compiled before.

    Args:
        model: A classifier on the device to train on.
        images: Training images.
        validation: Validation images.
        recipe: The training recipe.
        preprocess: The model's image processing.
        seed: Of every random draw.
        teacher: The model to distill from, where the recipe distills.
        state: `Epoch.state`, to continue after that epoch as if there had been no interruption; or what
            `keep` was called with by a training whose `shared_steps` are no more than this one's.
        keep: Called once with the state after the training's `shared_steps`. It must not keep the state
            itself: its tensors change.

    Yields:
        Each validated epoch.

    Raises:
        NonFinite: The loss is NaN or infinite; the message names the step.
        BadInput: The recipe distills and there is no teacher, or the model cannot train on a batch of
            one image.
    """
    recipe = resolve(recipe)
    steps, epochs = length(recipe, len(images))
    torch.manual_seed(seed)  # dropout, policies and mixing
    if uncalibrated(model):  # also before a state: what follows evaluates the model
        some = np.random.default_rng(seed).permutation(len(images))[:CALIBRATION]
        calibrate_(model, preprocess(_tensor(images.images[some]).to(next(model.parameters()).device)))
    if not steps:
        return
    if min(recipe.batch_size, len(images)) == 1:
        check_single(model, preprocess(_tensor(images.images[:1]).to(next(model.parameters()).device)))
    frozen = freeze(model) if recipe.trained == "head" else []
    training = _Training(model, images, recipe, preprocess, seed, steps, teacher)
    if recipe.compile:
        torch.compiler.reset()  # graphs of other trainings do not count towards this one's limits
    losses: list[float] = []  # one per batch
    shared, begun = shared_steps(steps, recipe), (state or {}).get("begun")
    for epoch in range(1 + training.restore(state), epochs + 1):
        model.train(recipe.trained == "all")
        first = len(losses)
        order = begun["order"].numpy() if begun else training.rng.permutation(len(images))
        losses += begun["losses"] if begun else []
        begun, batches = None, _batches(order, recipe.batch_size)
        pace = Pace(epoch, len(images), (steps - training.step) * recipe.batch_size)
        with compiled(model, recipe.compile):
            for batch in islice(batches, steps - training.step):
                losses.append(_train_step(training, images.images[batch], images.labels[batch]))
                pace.add(len(batch))
                order = order[len(batch) :]
                if keep and training.step == shared:
                    begins = {"order": torch.tensor(order), "losses": losses[first:]}
                    keep({**training.state(epoch - 1), "begun": begins})
                if training.step % LOGGED == 0:
                    mean = np.mean(losses[-LOGGED:])
                    log.info("step %d of %d: training loss %.4f", training.step, steps, mean)
        if epoch % recipe.validate_every == 0 or epoch == epochs:
            train_loss = float(np.mean(losses[first:]))
            evaluated = evaluate(training.averaged_model, validation, preprocess, epoch, train_loss)
            yield replace(evaluated, state=training.state(epoch))
    training.ramp.at(steps)
    if training.average is not None:
        model.load_state_dict(training.average.module.state_dict())
    for parameter in frozen:
        parameter.requires_grad_()


class _Training:
    """What changes from step to step: weights, optimizer, schedules, averaged weights and random draws."""

    def __init__(
        self,
        model: nn.Module,
        images: Split,
        recipe: Recipe,
        preprocess: Preprocess,
        seed: int,
        steps: int,
        teacher: nn.Module | None,
    ) -> None:
        self.model, self.recipe, self.preprocess, self.steps = model, recipe, preprocess, steps
        self.device = next(model.parameters()).device
        self.rng = np.random.default_rng(seed)  # order and augmentation
        self.optimizer = optimizer_of(model, recipe)
        self.schedule = LambdaLR(self.optimizer, lambda step: rate(step, steps, recipe))
        self.average = averaged(model, recipe.ema)
        self.objective = Objective(model, recipe, teacher)
        self.ramp = Ramp(model, recipe, steps)
        self.policy = policy_of(recipe.policy, recipe.erase, preprocess.mean_colour)
        self.mixing = mixing(_n_classes(model, preprocess, images), recipe.mix) if recipe.mix else None
        self._parts: dict[str, Any] = {"model": model, "optimizer": self.optimizer, "schedule": self.schedule}
        if self.average is not None:
            self._parts["average"] = self.average

    @property
    def step(self) -> int:
        """The number of steps done."""
        return self.schedule.last_epoch

    @property
    def averaged_model(self) -> nn.Module:
        """The model with averaged weights, where the recipe averages them."""
        return self.model if self.average is None else self.average.module

    def state(self, epoch: int) -> dict[str, Any]:
        draws = {
            "rng": self.rng.bit_generator.state,
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        }
        parts = {name: part.state_dict() for name, part in self._parts.items()}
        return {"epoch": epoch, "random": draws, **parts}

    def restore(self, state: dict[str, Any] | None) -> int:
        """Continue from a state. Returns the number of its epoch, 0 without a state."""
        if state is None:
            return 0
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
        draws = state["random"]
        self.rng.bit_generator.state = draws["rng"]
        torch.set_rng_state(draws["torch"])
        if draws["cuda"] is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(draws["cuda"])
        return state["epoch"]


def _train_step(training: _Training, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> float:
    """Train on one batch. images: (B, H, W, 3); labels: (B,). Returns its loss; raises NonFinite."""
    model, recipe, optimizer, step = training.model, training.recipe, training.optimizer, training.step
    training.ramp.at(step)  # lambda of progressive quantization
    switch_weight_decay(optimizer, on=step < recipe.weight_decay_until * training.steps)
    pixels = _tensor(images)  # (B, 3, H, W), uint8
    if recipe.augment:
        pixels = augment(pixels, training.rng, recipe.augment)
    pixels, targets = pixels.to(training.device), torch.from_numpy(labels).to(training.device)
    if training.policy is not None:
        pixels = training.policy(pixels)
    if recipe.distort:
        pixels = distorted(pixels, training.rng, training.preprocess.mean_colour)
    pixels = training.preprocess(pixels)
    if training.mixing is not None and step < MIX_UNTIL * training.steps:
        pixels, targets = training.mixing(pixels, targets)  # (B, 3, H, W), (B, classes)
    with torch.autocast(training.device.type, torch.bfloat16, enabled=bool(recipe.bf16)):
        loss = training.objective(pixels, targets)
    if not math.isfinite(value := loss.item()):
        raise NonFinite(f"training loss is {value} at step {step + 1} of {training.steps}")
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    if recipe.clip_norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
    optimizer.step()
    training.schedule.step()
    if training.average is not None:
        training.average.update_parameters(model)
    return value


def evaluate(
    model: nn.Module, split: Split, preprocess: Preprocess, epoch: int = 0, train_loss: float = math.nan
) -> Epoch:
    """Loss and accuracy over a split, in float32 and with integer levels.

    Args:
        model: A classifier; in evaluation mode afterwards.
        split: Images and labels.
        preprocess: The model's image processing.
        epoch: For the result and for messages.
        train_loss: For the result.

    Returns:
        The epoch, without a state.

    Raises:
        NonFinite: The loss is NaN or infinite.
    """
    device = next(model.parameters()).device
    n = SHARING if shares_batch(model) else AT_ONCE["cpu" if device.type == "cpu" else "cuda"]
    model.train().eval()  # LeViT caches position biases in evaluation mode until it is set to training mode
    # no_grad, not inference_mode: BEiT caches tensors, and inference tensors could not be trained with
    with torch.no_grad(), as_integers(model):
        batches = (_tensor(split.images[i : i + n]).to(device) for i in range(0, len(split), n))
        output = torch.cat([logits(model, preprocess(pixels)).float().cpu() for pixels in batches])
    labels = torch.from_numpy(split.labels)
    loss = F.cross_entropy(output, labels).item()
    if not math.isfinite(loss):
        raise NonFinite(f"evaluation loss is {loss} after epoch {epoch}")
    accuracy = (output.argmax(1) == labels).float().mean().item()
    return Epoch(epoch, train_loss, loss, accuracy, output.numpy())  # logits: (N, classes)


def shares_batch(model: nn.Module) -> bool:
    """Whether the images of a batch share an activation scale in evaluation."""
    layers = (layer.spec for layer in model.modules() if isinstance(layer, BitLinear))
    return any(spec.activation_bits is not None and spec.activation_scale == "batch" for spec in layers)


def _n_classes(model: nn.Module, preprocess: Preprocess, images: Split) -> int:
    """How many classes the model tells apart."""
    pixels = preprocess(_tensor(images.images[:1]).to(next(model.parameters()).device))
    with torch.no_grad():
        return logits(model.eval(), pixels).shape[1]


def _batches(order: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    if not len(order):  # a state may be that of an epoch's end
        return
    last = size * (steps_of(len(order), size) - 1)
    yield from (order[i : i + size] for i in range(0, last, size))
    yield order[last:]


def _tensor(images: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())  # (B, H, W, 3) -> (B, 3, H, W)
