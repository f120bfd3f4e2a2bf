"""The training loss: cross-entropy and distillation."""

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
    """The loss of a batch: cross-entropy, and distillation from a teacher where the recipe distills.

    Args:
        model: The classifier to train.
        recipe: Gives the weights of the terms.
        teacher: A model of the same structure, in evaluation mode.

    Raises:
        BadInput: The recipe distills and there is no teacher, or it compares blocks and the model has none.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, teacher: nn.Module | None) -> None:
        self.model, self.recipe, self.teacher = model, recipe, teacher
        self.blocks = blocks(model) if recipe.distill_blocks else []
        if distills(recipe) and teacher is None:
            mend = "give train(..., teacher=...) or set distill = 0"
            raise BadInput(f"distillation needs a teacher, but got none; {mend}")
        if recipe.distill_blocks and not self.blocks:
            mend = "set distill_blocks = 0"
            raise BadInput(f"distill_blocks needs a model with blocks, and this one has none; {mend}")

    def __call__(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """The loss, 0-dimensional. pixels: (B, 3, H, W), preprocessed; labels: (B,) or (B, classes)."""
        recipe = self.recipe
        with _outputs(self.model, self.blocks) as own_blocks:
            student = logits(self.model, pixels).float()  # (B, classes)
        loss = F.cross_entropy(student, labels, label_smoothing=recipe.label_smoothing)
        if self.teacher is None or not distills(recipe):
            return loss
        with torch.no_grad(), _outputs(self.teacher, self.blocks) as teacher_blocks:
            target = logits(self.teacher, pixels).float()  # (B, classes)
        if recipe.distill:
            divergence = _divergence(student, target, recipe.temperature)
            loss = (1 - recipe.distill) * loss + recipe.distill * divergence
        if self.blocks:
            pairs = zip(own_blocks, teacher_blocks, strict=True)
            errors = [F.mse_loss(_normalised(own), _normalised(other)) for own, other in pairs]
            loss = loss + recipe.distill_blocks * torch.stack(errors).mean()
        return loss


def distills(recipe: Recipe) -> bool:
    """Whether the recipe needs a teacher."""
    return recipe.distill > 0 or recipe.distill_blocks > 0


def _divergence(student: Tensor, teacher: Tensor, t: float) -> Tensor:
    """T^2 KL(teacher || student) at temperature T (arXiv 1503.02531, section 2). Logits: (B, classes)."""
    log_q, log_p = F.log_softmax(student / t, 1), F.log_softmax(teacher / t, 1)
    return t**2 * F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


def _normalised(hidden: Tensor) -> Tensor:
    """Each token at mean 0 and variance 1, so that all blocks and tokens weigh the same. (..., features)."""
    return F.layer_norm(hidden.float(), hidden.shape[-1:])


@contextmanager
def _outputs(model: nn.Module, names: list[str]) -> Iterator[list[Tensor]]:
    """Collect the outputs of the named modules in this context, in the order of their calls."""
    outputs: list[Tensor] = []

    def append(module: nn.Module, arguments: object, output: Tensor | tuple[Tensor, ...]) -> None:
        outputs.append(output if isinstance(output, Tensor) else output[0])

    handles = [model.get_submodule(name).register_forward_hook(append) for name in names]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
