"""One step of a training, and what changes from step to step."""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from ablate.config.trial_spec import Recipe
from ablate.data.datasets import Split
from ablate.errors import NonFinite
from ablate.models.loading import logits
from ablate.models.preprocessing import Preprocess
from ablate.training.augmentation import augment
from ablate.training.distortion import distorted, mixing
from ablate.training.evaluation import as_tensor
from ablate.training.loss import Objective
from ablate.training.optim import MIX_UNTIL, averaged, optimizer_of, rate, switch_weight_decay
from ablate.training.policies import policy_of
from ablate.training.progressive import Ramp


class Training:
    """What changes from step to step: weights, optimizer, schedules, averaged weights and random draws.

    Args:
        model: A classifier on the device to train on.
        images: Training images.
        recipe: The training recipe, resolved.
        preprocess: The model's image processing.
        seed: Of order and augmentation.
        steps: Of the training, in all.
        teacher: The model to distill from, where the recipe distills.

    Raises:
        BadInput: As `Objective`.
    """

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
        """From which `restore` continues after an epoch. Valid until the next step."""
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


def train_step(training: Training, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> float:
    """Train on one batch.

    Args:
        training: Changed in place.
        images: uint8 (B, H, W, 3).
        labels: (B,).

    Returns:
        The batch's loss before the step.

    Raises:
        NonFinite: The loss is NaN or infinite; the message names the step.
    """
    model, recipe, optimizer, step = training.model, training.recipe, training.optimizer, training.step
    training.ramp.at(step)  # lambda of progressive quantization
    switch_weight_decay(optimizer, on=step < recipe.weight_decay_until * training.steps)
    pixels = as_tensor(images)  # (B, 3, H, W), uint8
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


def _n_classes(model: nn.Module, preprocess: Preprocess, images: Split) -> int:
    """How many classes the model tells apart."""
    pixels = preprocess(as_tensor(images.images[:1]).to(next(model.parameters()).device))
    with torch.no_grad():
        return logits(model.eval(), pixels).shape[1]
