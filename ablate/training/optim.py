"""The parts of a recipe that a training step is made of: groups of weights, lengths, rates, and averaged weights.

Whatever changes from step to step is a function of the step's number; only the averaged weights are a state.
"""

import copy
import math

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ablate.config.trial_spec import Recipe
from ablate.errors import BadInput
from ablate.models.loading import logits
from ablate.quantization.bitlinear import BitLinear

Tensors = tuple[Tensor, ...] | list[Tensor]


def optimizer_of(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW or SGD over three groups: quantized weights, other matrices, and biases and norms, which do not decay."""
    quantized = [module.weight for module in model.modules() if isinstance(module, BitLinear)]
    known = {id(p) for p in quantized}
    matrices = [p for p in model.parameters() if p.ndim > 1 and id(p) not in known]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    rate, decay = recipe.learning_rate, recipe.weight_decay
    own = decay if recipe.quantized_weight_decay is None else recipe.quantized_weight_decay
    kinds = [
        (quantized, rate * recipe.quantized_rate_multiplier, own),
        (matrices, rate, decay),
        (rest, rate, 0.0),
    ]
    parts = [{"params": p, "lr": lr, "weight_decay": w, "decay": w} for p, lr, w in kinds if p]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(parts, rate, momentum=recipe.momentum)
    return torch.optim.AdamW(parts, rate, fused=True)


def decay(optimizer: torch.optim.Optimizer, on: bool) -> None:
    """Switch weight decay on or off."""
    for group in optimizer.param_groups:
        group["weight_decay"] = group["decay"] if on else 0.0


def length(recipe: Recipe, images: int) -> tuple[int, int]:
    """Steps and epochs of a training; with `image_views` the last epoch may be a part of one."""
    an_epoch = steps_of(images, recipe.batch_size)
    steps = (
        math.ceil(recipe.image_views / recipe.batch_size) if recipe.image_views else recipe.epochs * an_epoch
    )
    return steps, math.ceil(steps / an_epoch)


def steps_of(images: int, batch_size: int) -> int:
    """Steps of an epoch. A single image that is left over joins the step before: batch normalisation has no use for one."""
    left_over = images > batch_size > 1 and images % batch_size == 1
    return math.ceil(images / batch_size) - left_over


def check_single(model: nn.Module, pixels: Tensor) -> None:
    """Raises BadInput where a model cannot be trained on a single image, (1, 3, H, W), as with batch normalisation."""
    try:
        with torch.no_grad():
            logits(copy.deepcopy(model).train(), pixels)
    except ValueError as error:
        why = f"but a step would have 1: {error}"
        raise BadInput(
            f"this model needs 2 images or more a step, {why}; set batch_size = 2, or give more images"
        ) from None


def rate(step: int, steps: int, recipe: Recipe) -> float:
    """Learning rate over its peak: linear warm-up, then cosine to zero; in the second stage a low cosine to zero."""
    first = steps - round(recipe.second_stage * steps)
    if step >= first and recipe.second_stage:
        return recipe.second_stage_rate * _cosine((step - first) / max(1, steps - first))
    if step < (ramp := round(recipe.warmup * first)):
        return (step + 1) / ramp
    return _cosine((step - ramp) / max(1, first - ramp))


def _cosine(t: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * t))


def averaged(model: nn.Module, decay: float) -> AveragedModel | None:
    """A copy of the model for exponentially averaged weights; None at decay 0.

    The decay warms up as (1 + n) / (10 + n) over the steps n, as TensorFlow's ExponentialMovingAverage does, so that a
    short training does not end with the weights it began with.
    """

    def average(averages: Tensors, weights: Tensors, n: Tensor | int) -> None:
        torch._foreach_lerp_(averages, weights, 1 - min(decay, (1 + int(n)) / (10 + int(n))))

    return AveragedModel(model, multi_avg_fn=average) if decay else None
