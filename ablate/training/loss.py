"""What a trial minimises: cross-entropy and distillation."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablate.config.trial_spec import Recipe
from ablate.errors import BadInput
from ablate.models.layer_groups import blocks
from ablate.models.loading import logits


class Objective:
    """What a step minimises: cross-entropy, and what a teacher adds to it."""

    def __init__(self, model: nn.Module, recipe: Recipe, teacher: nn.Module | None) -> None:
        self.model, self.recipe, self.teacher = model, recipe, teacher
        self.blocks = blocks(model) if recipe.distill_blocks else []
        if distills(recipe) and teacher is None:
            raise BadInput(
                "distillation needs a teacher, but got none; give train(..., teacher=...) or set distill = 0"
            )
        if recipe.distill_blocks and not self.blocks:
            raise BadInput(
                "distill_blocks needs a model with blocks, and this one has none; set distill_blocks = 0"
            )

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
            divergence = t**2 * F.kl_div(
                own, wanted, reduction="batchmean", log_target=True
            )  # arXiv 1503.02531, sec. 2
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
