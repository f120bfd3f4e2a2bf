"""The training loop. `training_step` is what it repeats, `evaluation` what it ends an epoch with."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ablate.config.trial_spec import Recipe
from ablate.data.datasets import Split
from ablate.hardware import native_bf16
from ablate.models.preprocessing import Preprocess
from ablate.quantization.static_scales import calibrate_, uncalibrated
from ablate.runs.progress import Pace
from ablate.training.compilation import compiled
from ablate.training.evaluation import Epoch, as_tensor, evaluate
from ablate.training.optim import (
    check_single,
    freeze,
    length,
    shared_steps,
    steps_of,
)
from ablate.training.training_step import Training, train_step

log = logging.getLogger(__name__)
LOGGED = 200  # batches between two lines of training loss (section 2.4, step 7)
CALIBRATION = 64  # training images, without augmentation, for static activation scales


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
        calibrate_(model, preprocess(as_tensor(images.images[some]).to(next(model.parameters()).device)))
    if not steps:
        return
    if min(recipe.batch_size, len(images)) == 1:
        check_single(model, preprocess(as_tensor(images.images[:1]).to(next(model.parameters()).device)))
    frozen = freeze(model) if recipe.trained == "head" else []
    training = Training(model, images, recipe, preprocess, seed, steps, teacher)
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
                losses.append(train_step(training, images.images[batch], images.labels[batch]))
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


def _batches(order: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    if not len(order):  # a state may be that of an epoch's end
        return
    last = size * (steps_of(len(order), size) - 1)
    yield from (order[i : i + size] for i in range(0, last, size))
    yield order[last:]
