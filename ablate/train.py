"""The training loop, on one screen, and the evaluation of a model."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ablate.data import Split
from ablate.errors import NonFinite
from ablate.models import Preprocess, logits
from ablate.spec import Recipe


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training images ended with. Losses are cross-entropies in nats."""

    epoch: int
    train_loss: float  # mean over the epoch's batches
    loss: float  # validation
    accuracy: float  # validation, top-1
    logits: NDArray[np.float32]  # validation, (N, classes)
    state: dict[str, Any] = field(default_factory=dict)  # what `train` goes on from; holds until the next step


def resolve(recipe: Recipe) -> Recipe:
    """The recipe with bf16="auto" decided: true on a GPU and on a CPU with bfloat16 instructions."""
    if recipe.bf16 != "auto":
        return recipe
    native = torch.cuda.is_available() or any(has for name, has in torch.cpu.get_capabilities().items() if "bf16" in name)
    return recipe.model_copy(update={"bf16": native})


def train(
    model: nn.Module,
    images: Split,
    validation: Split,
    recipe: Recipe,
    preprocess: Preprocess,
    seed: int,
    state: dict[str, Any] | None = None,
) -> Iterator[Epoch]:
    """Fine-tune `model` in place; yields after each epoch. Every random draw comes from `seed`.

    With the `state` of an epoch it goes on after that one, as if it had not been interrupted.
    Raises NonFinite, with the step, when the loss is not a finite number.
    """
    device = next(model.parameters()).device
    recipe = resolve(recipe)
    torch.manual_seed(seed)  # dropout
    rng = np.random.default_rng(seed)  # order and augmentation
    optimizer = _optimizer(model, recipe)
    steps = recipe.epochs * math.ceil(len(images) / recipe.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps, recipe.warmup))
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
    for epoch in range(1 + _restore(state, parts, rng), recipe.epochs + 1):
        model.train()
        losses = []
        for batch in _batches(rng.permutation(len(images)), recipe.batch_size):
            pixels = _tensor(images.images[batch])  # (B, 3, H, W), uint8
            pixels = (_augment(pixels, rng) if recipe.augment else pixels).to(device)
            labels = torch.from_numpy(images.labels[batch]).to(device)  # (B,)
            with torch.autocast(device.type, torch.bfloat16, enabled=bool(recipe.bf16)):
                output = logits(model, preprocess(pixels))  # (B, classes)
            loss = F.cross_entropy(output.float(), labels)
            losses.append(loss.item())
            if not math.isfinite(losses[-1]):
                raise NonFinite(f"training loss is {losses[-1]} at step {schedule.last_epoch + 1} of {steps}")
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            if recipe.clip_norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
            optimizer.step()
            schedule.step()
        ended = evaluate(model, validation, preprocess, epoch, float(np.mean(losses)))
        yield replace(ended, state=_state(epoch, parts, rng))


def evaluate(model: nn.Module, split: Split, preprocess: Preprocess, epoch: int = 0, train_loss: float = math.nan) -> Epoch:
    """Loss and accuracy over a split, in float32 and with integer levels. Raises NonFinite when the loss is not finite."""
    device = next(model.parameters()).device
    model.eval()
    with torch.inference_mode():
        batches = (_tensor(split.images[i : i + 250]).to(device) for i in range(0, len(split), 250))
        output = torch.cat([logits(model, preprocess(pixels)).float().cpu() for pixels in batches])  # (N, classes)
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


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    matrices = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]  # biases and norms are not decayed
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, recipe.learning_rate, momentum=recipe.momentum)
    return torch.optim.AdamW(groups, recipe.learning_rate, fused=True)


def _rate(step: int, steps: int, warmup: float) -> float:
    """Learning rate over its peak: linear warm-up, then cosine to zero."""
    if step < (ramp := round(warmup * steps)):
        return (step + 1) / ramp
    return 0.5 * (1 + math.cos(math.pi * (step - ramp) / max(1, steps - ramp)))


def _batches(order: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    return (order[i : i + size] for i in range(0, len(order), size))


def _tensor(images: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())  # (B, H, W, 3) -> (B, 3, H, W)


def _augment(pixels: Tensor, rng: np.random.Generator) -> Tensor:
    """Flip half of the images; shift each by up to an eighth of its side, reflecting at the edges. uint8 (B, 3, H, W)."""
    b, _, h, w = pixels.shape
    rows = np.arange(h) + rng.integers(-(h // 8), h // 8 + 1, (b, 1))  # (B, H)
    columns = np.arange(w) + rng.integers(-(w // 8), w // 8 + 1, (b, 1))  # (B, W)
    columns = np.where(rng.random((b, 1)) < 0.5, columns[:, ::-1], columns)
    y, x = torch.from_numpy(_reflect(rows, h)), torch.from_numpy(_reflect(columns, w))
    image = torch.arange(b)[:, None, None]
    return pixels.permute(0, 2, 3, 1)[image, y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2)  # (B, 3, H, W)


def _reflect(index: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    return size - 1 - np.abs(size - 1 - np.abs(index))
