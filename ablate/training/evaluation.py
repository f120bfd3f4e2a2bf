"""Loss and accuracy of a model over a split."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ablate.data.datasets import Split
from ablate.errors import NonFinite
from ablate.models.loading import logits
from ablate.models.preprocessing import Preprocess
from ablate.quantization.bitlinear import BitLinear
from ablate.quantization.integer_linear import as_integers
from ablate.runs.record import Record

AT_ONCE = {"cpu": 50, "cuda": 250}  # images per batch of an evaluation (benchmarks/evaluation.py)
SHARING = 64  # images per batch where they share activation scales, so that all devices agree


@dataclass(frozen=True)
class Epoch:
    """The outcome of one pass over the training images.

    Attributes:
        epoch: Its number, from 1.
        train_loss: Mean training loss of the epoch's batches, the terms of a distillation included.
        loss: Validation cross-entropy, in nats.
        accuracy: Validation top-1 accuracy.
        logits: Of the validation images, (N, classes).
        state: From which `train` continues. Valid until the generator is advanced.
        record: The trial's record so far, where the training is a trial's.
    """

    epoch: int
    train_loss: float
    loss: float
    accuracy: float
    logits: NDArray[np.float32]
    state: dict[str, Any] = field(default_factory=dict)
    record: Record | None = None


def evaluate(
    model: nn.Module, split: Split, preprocess: Preprocess, epoch: int = 0, train_loss: float = math.nan
) -> Epoch:
    """Loss and accuracy over a split, in float32 and with integer levels.

    Args:
        model: A classifier; in evaluation mode afterwards.
        split: Images and labels.
        preprocess: The model's image processing.
        epoch: For the result and for messages.
        train_loss: For the result.

    Returns:
        The epoch, without a state.

    Raises:
        NonFinite: The loss is NaN or infinite.
    """
    device = next(model.parameters()).device
    n = SHARING if shares_batch(model) else AT_ONCE["cpu" if device.type == "cpu" else "cuda"]
    model.train().eval()  # LeViT caches position biases in evaluation mode until it is set to training mode
    # no_grad, not inference_mode: BEiT caches tensors, and inference tensors could not be trained with
    with torch.no_grad(), as_integers(model):
        batches = (as_tensor(split.images[i : i + n]).to(device) for i in range(0, len(split), n))
        output = torch.cat([logits(model, preprocess(pixels)).float().cpu() for pixels in batches])
    labels = torch.from_numpy(split.labels)
    loss = F.cross_entropy(output, labels).item()
    if not math.isfinite(loss):
        raise NonFinite(f"evaluation loss is {loss} after epoch {epoch}")
    accuracy = (output.argmax(1) == labels).float().mean().item()
    return Epoch(epoch, train_loss, loss, accuracy, output.numpy())  # logits: (N, classes)


def shares_batch(model: nn.Module) -> bool:
    """Whether the images of a batch share an activation scale in evaluation."""
    layers = (layer.spec for layer in model.modules() if isinstance(layer, BitLinear))
    return any(spec.activation_bits is not None and spec.activation_scale == "batch" for spec in layers)


def as_tensor(images: NDArray[np.uint8]) -> Tensor:
    """Copy images (B, H, W, 3) to a tensor (B, 3, H, W)."""
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
