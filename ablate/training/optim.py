"""Parts of a training recipe: parameter groups, number of steps, learning rate schedule and averaged weights.

All but the averaged weights are functions of the step's number, so they need no state of their own.
"""

import copy
import math

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ablate.config.trial_spec import Recipe
from ablate.errors import BadInput
from ablate.models import layer_groups
from ablate.models.loading import logits
from ablate.quantization.bitlinear import BitLinear

MIX_UNTIL = 0.9  # share of the steps; the last images are whole

Tensors = tuple[Tensor, ...] | list[Tensor]


def optimizer_of(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW or SGD over three parameter groups: quantized weights, other matrices, and biases and norms.

    Args:
        model: Its parameters that require a gradient are trained.
        recipe: Gives each group's learning rate and weight decay; biases and norms do not decay.

    Returns:
        The optimizer. Its groups also have "decay", their weight decay while it is on.
    """
    ids = {id(module.weight) for module in model.modules() if isinstance(module, BitLinear)}
    trained = [p for p in model.parameters() if p.requires_grad]
    quantized = [p for p in trained if id(p) in ids]
    matrices = [p for p in trained if p.ndim > 1 and id(p) not in ids]
    rest = [p for p in trained if p.ndim <= 1]
    lr, decay = recipe.learning_rate, recipe.weight_decay
    quantized_decay = decay if recipe.quantized_weight_decay is None else recipe.quantized_weight_decay
    rows = [
        (quantized, lr * recipe.quantized_rate_multiplier, quantized_decay),
        (matrices, lr, decay),
        (rest, lr, 0.0),
    ]
    groups = [{"params": p, "lr": lr, "weight_decay": wd, "decay": wd} for p, lr, wd in rows if p]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr, momentum=recipe.momentum)
    return torch.optim.AdamW(groups, lr, fused=True)


def freeze(model: nn.Module) -> list[nn.Parameter]:
    """Make all parameters but the head's require no gradient.

    Args:
        model: A classifier.

    Returns:
        The parameters that required one.

    Raises:
        BadInput: The model's head has no linear layer that can be told from the others.
    """
    if not (names := layer_groups.groups(model).get("head")):
        rule = 'trained = "head" needs a model whose head is a linear layer'
        raise BadInput(f'{rule}, and this one has none; set trained = "all"')
    head = {id(p) for name in names for p in model.get_submodule(name).parameters()}
    frozen = [p for p in model.parameters() if p.requires_grad and id(p) not in head]
    for parameter in frozen:
        parameter.requires_grad_(False)
    return frozen


def switch_weight_decay(optimizer: torch.optim.Optimizer, on: bool) -> None:
    """Switch the weight decay of an optimizer of `optimizer_of` on or off."""
    for group in optimizer.param_groups:
        group["weight_decay"] = group["decay"] if on else 0.0


def length(recipe: Recipe, images: int) -> tuple[int, int]:
    """Steps and epochs of a training. With `image_views` the last epoch may be incomplete."""
    per_epoch = steps_of(images, recipe.batch_size)
    if recipe.image_views:
        steps = math.ceil(recipe.image_views / recipe.batch_size)
    else:
        steps = recipe.epochs * per_epoch
    return steps, math.ceil(steps / per_epoch)


def steps_of(images: int, batch_size: int) -> int:
    """Steps of an epoch. A last batch of one image joins the one before: batch normalisation needs two."""
    joins = images > batch_size > 1 and images % batch_size == 1
    return math.ceil(images / batch_size) - joins


def check_single(model: nn.Module, pixels: Tensor) -> None:
    """Check that a model can be trained on batches of one image.

    Args:
        model: Left as it is.
        pixels: One image, preprocessed: (1, 3, H, W).

    Raises:
        BadInput: It cannot, as with batch normalisation.
    """
    try:
        with torch.no_grad():
            logits(copy.deepcopy(model).train(), pixels)
    except ValueError as error:
        fault = f"this model needs 2 images or more a step, but a step would have 1: {error}"
        raise BadInput(f"{fault}; set batch_size = 2, or give more images") from None


def rate(step: int, steps: int, recipe: Recipe) -> float:
    """The learning rate of a step as a fraction of its peak.

    Linear warm-up, then a cosine to zero or, with schedule="wsd", a plateau and a fall by 1 - sqrt (arXiv
    2405.18392). A second stage starts at `second_stage_rate` and follows a cosine to zero.

    Args:
        step: From 0; `steps` itself is allowed, as a scheduler also computes the rate after the last step.
        steps: Of the whole training.
        recipe: Gives the shares of warm-up and second stage.

    Returns:
        A value in [0, 1].
    """
    first = steps - round(recipe.second_stage * steps)
    if step >= first and recipe.second_stage:
        return recipe.second_stage_rate * _cosine((step - first) / max(1, steps - first))
    if recipe.schedule == "wsd":
        grown = min(1.0, (step + 1) * recipe.batch_size / max(1, recipe.warmup_views))
        end = _plateau_end(first, recipe)
        return grown * (1 - math.sqrt(max(0.0, (step - end) / (first - end)))) if step < first else 0.0
    if step < (ramp := round(recipe.warmup * first)):
        return (step + 1) / ramp
    return _cosine((step - ramp) / max(1, first - ramp))


def shared_steps(steps: int, recipe: Recipe) -> int:
    """Of a training with a plateau, the steps that every longer one of the same recipe begins with.

    Args:
        steps: Of the whole training.
        recipe: Its length does not count.

    Returns:
        The steps after which the first part of the recipe depends on how long the training is; 0 without a
        plateau.
    """
    if recipe.schedule != "wsd" or recipe.progressive:
        return 0
    first = steps - round(recipe.second_stage * steps)
    mixed = math.ceil(MIX_UNTIL * steps) if recipe.mix else steps
    return min(_plateau_end(first, recipe), mixed, math.ceil(recipe.weight_decay_until * steps))


def _plateau_end(steps: int, recipe: Recipe) -> int:
    """The first step of the decay, at which the rate is still whole."""
    return max(0, steps - max(1, round(recipe.decay * steps)))


def _cosine(t: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * t))


def averaged(model: nn.Module, decay: float) -> AveragedModel | None:
    """A copy of the model with exponentially averaged weights.

    The decay warms up as (1 + n) / (10 + n) over the steps n, as in TensorFlow's ExponentialMovingAverage.
    Without that, a short training would end close to the weights that it started from.

    Args:
        model: The model to average.
        decay: Of the average, in [0, 1).

    Returns:
        The averaged model, or None at decay 0.
    """

    def average(averages: Tensors, weights: Tensors, n: Tensor | int) -> None:
        torch._foreach_lerp_(averages, weights, 1 - min(decay, (1 + int(n)) / (10 + int(n))))

    return AveragedModel(model, multi_avg_fn=average) if decay else None
