"""The training loop, on one screen, and the evaluation of a model."""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ablate.config.trial_spec import Recipe
from ablate.data.datasets import Split
from ablate.errors import NonFinite
from ablate.hardware import native_bf16
from ablate.models.loading import logits
from ablate.models.preprocessing import Preprocess
from ablate.quantization.integer_linear import as_integers
from ablate.training.compilation import compiled
from ablate.training.loss import Objective
from ablate.training.optim import averaged, check_single, decay, length, optimizer_of, rate, steps_of
from ablate.training.progressive import Ramp

log = logging.getLogger(__name__)
LOGGED = 200  # batches between two lines of training loss (section 2.4, step 7)
AT_ONCE = {"cpu": 50, "cuda": 250}  # images that an evaluation takes at a time (benchmarks/evaluation.py)


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training images ended with. Validation loss is cross-entropy, in nats."""

    epoch: int
    train_loss: float  # mean over the epoch's batches of what is minimised, a distillation's terms included
    loss: float  # validation
    accuracy: float  # validation, top-1
    logits: NDArray[np.float32]  # validation, (N, classes)
    state: dict[str, Any] = field(
        default_factory=dict
    )  # what `train` goes on from; holds until the next step
    record: dict[str, Any] = field(default_factory=dict)  # the trial's so far, where a trial it is


def resolve(recipe: Recipe) -> Recipe:
    """The recipe with bf16="auto" decided by the machine."""
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
) -> Iterator[Epoch]:
    """Fine-tune `model` in place; yields after each epoch that is validated. Every random draw comes from `seed`.

    With averaged weights (recipe.ema) these are evaluated, and are the model's own once the last epoch has been taken.
    With recipe.compile the model's blocks are compiled for these steps, and neither for evaluation nor in the teacher's
    forward passes; what else this process has compiled is compiled again when it is next called.
    With the `state` of an epoch it goes on after that one, as if it had not been interrupted.
    Raises NonFinite, with the step, when the loss is not a finite number, and BadInput for a recipe that distills
    without a teacher, and for steps of one image of a model that needs more.
    """
    device = next(model.parameters()).device
    recipe = resolve(recipe)
    torch.manual_seed(seed)  # dropout
    rng = np.random.default_rng(seed)  # order and augmentation
    steps, epochs = length(recipe, len(images))
    if not steps:
        return
    if min(recipe.batch_size, len(images)) == 1:
        check_single(model, preprocess(_tensor(images.images[:1]).to(device)))
    optimizer, average = optimizer_of(model, recipe), averaged(model, recipe.ema)
    objective, ramp = Objective(model, recipe, teacher), Ramp(model, recipe, steps)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, steps, recipe))
    losses: list[float] = []  # of each batch
    if recipe.compile:
        torch.compiler.reset()  # what other trainings in this process compiled does not count towards its limits
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule} | (
        {"average": average} if average else {}
    )
    for epoch in range(1 + _restore(state, parts, rng), epochs + 1):
        model.train()
        first = len(losses)
        with compiled(model, recipe.compile):
            for batch in islice(
                _batches(rng.permutation(len(images)), recipe.batch_size), steps - schedule.last_epoch
            ):
                ramp.at(schedule.last_epoch)  # the number of steps done
                decay(optimizer, on=schedule.last_epoch < recipe.weight_decay_until * steps)
                pixels = _tensor(images.images[batch])  # (B, 3, H, W), uint8
                pixels = (_augment(pixels, rng, recipe.augment) if recipe.augment else pixels).to(device)
                labels = torch.from_numpy(images.labels[batch]).to(device)  # (B,)
                with torch.autocast(device.type, torch.bfloat16, enabled=bool(recipe.bf16)):
                    loss = objective(preprocess(pixels), labels)
                losses.append(loss.item())
                if not math.isfinite(losses[-1]):
                    raise NonFinite(
                        f"training loss is {losses[-1]} at step {schedule.last_epoch + 1} of {steps}"
                    )
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                if recipe.clip_norm is not None:
                    nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
                optimizer.step()
                schedule.step()
                if average is not None:
                    average.update_parameters(model)
                if schedule.last_epoch % LOGGED == 0:
                    log.info(
                        "step %d of %d: training loss %.4f",
                        schedule.last_epoch,
                        steps,
                        np.mean(losses[-LOGGED:]),
                    )
        if epoch % recipe.validate_every and epoch < epochs:
            continue
        ended = evaluate(
            average.module if average else model,
            validation,
            preprocess,
            epoch,
            float(np.mean(losses[first:])),
        )
        yield replace(ended, state=_state(epoch, parts, rng))
    ramp.at(steps)
    if average is not None:
        model.load_state_dict(average.module.state_dict())


def evaluate(
    model: nn.Module, split: Split, preprocess: Preprocess, epoch: int = 0, train_loss: float = math.nan
) -> Epoch:
    """Loss and accuracy over a split, in float32 and with integer levels. Raises NonFinite when the loss is not finite."""
    device = next(model.parameters()).device
    model.train().eval()  # LeViT keeps what it computed in evaluation until it is trained again
    with (
        torch.no_grad(),
        as_integers(model),
    ):  # not in inference mode: BEiT would keep tensors that cannot be trained with
        n = AT_ONCE["cpu" if device.type == "cpu" else "cuda"]
        batches = (_tensor(split.images[i : i + n]).to(device) for i in range(0, len(split), n))
        output = torch.cat(
            [logits(model, preprocess(pixels)).float().cpu() for pixels in batches]
        )  # (N, classes)
    labels = torch.from_numpy(split.labels)
    loss = F.cross_entropy(output, labels).item()
    if not math.isfinite(loss):
        raise NonFinite(f"evaluation loss is {loss} after epoch {epoch}")
    accuracy = (output.argmax(1) == labels).float().mean().item()
    return Epoch(epoch, train_loss, loss, accuracy, output.numpy())


def _state(epoch: int, parts: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    draws: dict[str, Any] = {"rng": rng.bit_generator.state, "torch": torch.get_rng_state()}
    draws["cuda"] = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    return {"epoch": epoch, "random": draws} | {name: part.state_dict() for name, part in parts.items()}


def _restore(state: dict[str, Any] | None, parts: dict[str, Any], rng: np.random.Generator) -> int:
    """Take all up where an epoch left it; the number of that epoch, 0 without a state."""
    if state is None:
        return 0
    for name, part in parts.items():
        part.load_state_dict(state[name])
    rng.bit_generator.state = state["random"]["rng"]
    torch.set_rng_state(state["random"]["torch"])
    if state["random"]["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["random"]["cuda"])
    return state["epoch"]


def _batches(order: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    last = size * (steps_of(len(order), size) - 1)
    yield from (order[i : i + size] for i in range(0, last, size))
    yield order[last:]


def _tensor(images: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())  # (B, H, W, 3) -> (B, 3, H, W)


def _augment(pixels: Tensor, rng: np.random.Generator, parts: bool | str = True) -> Tensor:
    """Flip half of the images; shift each by up to an eighth of its side, reflecting at the edges. uint8 (B, 3, H, W).

    parts: "shift" or "flip" does only that, with the same draws.
    """
    b, _, h, w = pixels.shape
    rows = np.arange(h) + rng.integers(-(h // 8), h // 8 + 1, (b, 1))  # (B, H)
    columns = np.arange(w) + rng.integers(-(w // 8), w // 8 + 1, (b, 1))  # (B, W)
    flipped = rng.random((b, 1)) < 0.5
    if parts == "flip":
        rows, columns = np.arange(h)[None], np.arange(w)[None]
    if parts != "shift":
        columns = np.where(flipped, columns[:, ::-1], columns)
    y, x = torch.from_numpy(_reflect(rows, h)), torch.from_numpy(_reflect(columns, w))
    image = torch.arange(b)[:, None, None]
    return pixels.permute(0, 2, 3, 1)[image, y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2)  # (B, 3, H, W)


def _reflect(index: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    return size - 1 - np.abs(size - 1 - np.abs(index))
