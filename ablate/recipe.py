"""The parts of a recipe that a training step is made of: groups of weights, the loss, lambda, and averaged weights.

Whatever changes from step to step is a function of the step's number; only the averaged weights are a state.
"""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ablate.config.trial_spec import Recipe
from ablate.errors import BadInput
from ablate.models.layer_groups import blocks, groups, linear_layers
from ablate.models.loading import logits
from ablate.quantization.bitlinear import BitLinear

KINDS = 256  # of blocks in one training: by their layers' precisions, with lambda and without, and by a batch's size

Tensors = tuple[Tensor, ...] | list[Tensor]


def optimizer_of(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW or SGD over three groups: quantized weights, other matrices, and biases and norms, which do not decay."""
    quantized = [module.weight for module in model.modules() if isinstance(module, BitLinear)]
    known = {id(p) for p in quantized}
    matrices = [p for p in model.parameters() if p.ndim > 1 and id(p) not in known]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    rate, decay = recipe.learning_rate, recipe.weight_decay
    own = decay if recipe.quantized_weight_decay is None else recipe.quantized_weight_decay
    kinds = [(quantized, rate * recipe.quantized_rate_multiplier, own), (matrices, rate, decay), (rest, rate, 0.0)]
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
    steps = math.ceil(recipe.image_views / recipe.batch_size) if recipe.image_views else recipe.epochs * an_epoch
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
        raise BadInput(f"this model needs 2 images or more a step, {why}; set batch_size = 2, or give more images") from None


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


class Ramp:
    """lambda of progressive quantization: after `at(step)` the model's BitLinear layers have the step's."""

    def __init__(self, model: nn.Module, recipe: Recipe, steps: int) -> None:
        layers = linear_layers(model)
        quantized = {name: layer for name, layer in layers.items() if isinstance(layer, BitLinear)}
        grouped = [[quantized[name] for name in names if name in quantized] for names in groups(model).values()]
        together = recipe.progressive_order == "together"
        self.stages = [[*quantized.values()]] if together else [stage for stage in grouped if stage]  # arXiv 2505.08823
        self.shape, self.end = recipe.progressive, math.ceil(recipe.progressive_share * steps) if recipe.progressive else 0
        self._set([1.0] * len(self.stages))

    def at(self, step: int) -> None:
        """Costs nothing once lambda is 1 everywhere."""
        if step <= self.end and self.shape:
            self._set([_lambda(step / self.end * len(self.stages) - i, self.shape) for i in range(len(self.stages))])

    def _set(self, lambdas: list[float]) -> None:
        for layers, value in zip(self.stages, lambdas, strict=True):
            ramp = None if value == 1 or not layers else torch.tensor(value, device=layers[0].weight.device)
            for layer in layers:
                layer.ramp = ramp


def _lambda(t: float, shape: str) -> float:
    """From 0 at t = 0 to 1 at t = 1: linear, or the logistic function of 12 t - 6, stretched to reach both."""
    t = min(1.0, max(0.0, t))
    if shape == "linear":
        return t
    low, high, here = (1 / (1 + math.exp(-x)) for x in (-6, 6, 12 * t - 6))
    return (here - low) / (high - low)


class Objective:
    """What a step minimises: cross-entropy, and what a teacher adds to it."""

    def __init__(self, model: nn.Module, recipe: Recipe, teacher: nn.Module | None) -> None:
        self.model, self.recipe, self.teacher = model, recipe, teacher
        self.blocks = blocks(model) if recipe.distill_blocks else []
        if distills(recipe) and teacher is None:
            raise BadInput("distillation needs a teacher, but got none; give train(..., teacher=...) or set distill = 0")
        if recipe.distill_blocks and not self.blocks:
            raise BadInput("distill_blocks needs a model with blocks, and this one has none; set distill_blocks = 0")

    def __call__(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """The loss of a batch, 0-dimensional, float32. pixels: (B, 3, H, W), processed; labels: (B,)."""
        recipe = self.recipe
        with _outputs(self.model, self.blocks) as ours:
            output = logits(self.model, pixels).float()  # (B, classes)
        loss = F.cross_entropy(output, labels, label_smoothing=recipe.label_smoothing)
        if self.teacher is None or not distills(recipe):
            return loss
        with torch.no_grad(), _outputs(self.teacher, self.blocks) as theirs:
            target = logits(self.teacher, pixels).float()
        if recipe.distill:
            t = recipe.temperature
            own, wanted = F.log_softmax(output / t, 1), F.log_softmax(target / t, 1)
            divergence = t**2 * F.kl_div(own, wanted, reduction="batchmean", log_target=True)  # arXiv 1503.02531, sec. 2
            loss = (1 - recipe.distill) * loss + recipe.distill * divergence
        if self.blocks:
            errors = [F.mse_loss(_normalised(a), _normalised(b)) for a, b in zip(ours, theirs, strict=True)]
            loss = loss + recipe.distill_blocks * torch.stack(errors).mean()
        return loss


def distills(recipe: Recipe) -> bool:
    """Whether the recipe asks for a teacher."""
    return recipe.distill > 0 or recipe.distill_blocks > 0


def _normalised(hidden: Tensor) -> Tensor:
    """Each token to mean 0 and variance 1, so that no block and no token outweighs the others. (..., features)."""
    return F.layer_norm(hidden.float(), hidden.shape[-1:])


@contextmanager
def _outputs(model: nn.Module, names: list[str]) -> Iterator[list[Tensor]]:
    """Within: what the named modules return, in the order in which they are called."""
    found: list[Tensor] = []

    def keep(module: nn.Module, arguments: object, output: Tensor | tuple[Tensor, ...]) -> None:
        found.append(output if isinstance(output, Tensor) else output[0])

    handles = [model.get_submodule(name).register_forward_hook(keep) for name in names]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def compiled(model: nn.Module, on: bool) -> Iterator[None]:
    """Within, if on: the model's blocks through torch.compile. Those with the same code and precisions share what comes out.

    Raises BadInput for a model without blocks, and, within, torch's FailOnRecompileLimitHit for more than KINDS kinds.
    """
    chosen = [model.get_submodule(name) for name in blocks(model)] if on else []
    if on and not chosen:
        raise BadInput("compile needs a model with blocks, and this one has none; set compile = false")
    for block in chosen:
        block.forward = torch.compile(block.forward, dynamic=False)
    limits = {"recompile_limit": KINDS, "accumulated_recompile_limit": KINDS, "fail_on_recompile_limit_hit": True}
    with torch._dynamo.config.patch(limits) if on else nullcontext():
        try:
            yield
        finally:
            for block in chosen:
                del block.forward  # the class's own again


def averaged(model: nn.Module, decay: float) -> AveragedModel | None:
    """A copy of the model for exponentially averaged weights; None at decay 0.

    The decay warms up as (1 + n) / (10 + n) over the steps n, as TensorFlow's ExponentialMovingAverage does, so that a
    short training does not end with the weights it began with.
    """

    def average(averages: Tensors, weights: Tensors, n: Tensor | int) -> None:
        torch._foreach_lerp_(averages, weights, 1 - min(decay, (1 + int(n)) / (10 + int(n))))

    return AveragedModel(model, multi_avg_fn=average) if decay else None
