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
        teacher: A classifier that takes the same pixels, in evaluation mode.

    Raises:
        BadInput: The recipe distills and there is no teacher, or it compares blocks and the model has none,
            or the teacher others.
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
        self.teacher_blocks = blocks(teacher) if self.blocks and teacher is not None else []
        if len(self.blocks) != len(self.teacher_blocks):
            raise _others(f"the model has {len(self.blocks)} and the teacher {len(self.teacher_blocks)}")

    def __call__(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """The loss, 0-dimensional. pixels: (B, 3, H, W), preprocessed; labels: (B,) or (B, classes)."""
        recipe = self.recipe
        with _outputs(self.model, self.blocks) as own_blocks:
            student = logits(self.model, pixels).float()  # (B, classes)
        loss = F.cross_entropy(student, labels, label_smoothing=recipe.label_smoothing)
        if self.teacher is None or not distills(recipe):
            return loss
        with torch.no_grad(), _outputs(self.teacher, self.teacher_blocks) as teacher_blocks:
            target = logits(self.teacher, pixels).float()  # (B, classes)
        if recipe.distill:
            divergence = _divergence(student, target, recipe.temperature)
            loss = (1 - recipe.distill) * loss + recipe.distill * divergence
        if self.blocks:
            pairs = [*zip(own_blocks, teacher_blocks, strict=True)]
            if pair := next((pair for pair in pairs if pair[0].shape != pair[1].shape), None):
                own, other = ("x".join(map(str, output.shape[1:])) for output in pair)
                raise _others(f"an output of the model is {own} and of the teacher {other}")
            errors = [F.mse_loss(_normalised(own), _normalised(other)) for own, other in pairs]
            loss = loss + recipe.distill_blocks * torch.stack(errors).mean()
        return loss


def _others(how: str) -> BadInput:
    rule = "distill_blocks needs a teacher with blocks of the same number, tokens and width"
    return BadInput(f"{rule}, but {how}; set distill_blocks = 0, or give another teacher")


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
