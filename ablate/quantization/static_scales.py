"""Static activation scales: one a layer, calibrated on images, then learned with the weights.

LSQ is "Learned Step Size Quantization", arXiv 1902.08153.
"""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ablate.config.trial_spec import LayerSpec
from ablate.errors import BadInput, short_repr
from ablate.models.loading import logits
from ablate.quantization.gradients import straight_through
from ablate.quantization.quantizers import quantize_activations

SAMPLE = 2**19  # values of an input that a calibration looks at
PERCENTILE = 0.999
CANDIDATES = 64  # ranges that the squared error is computed for, the largest one that of the maximum


class StaticScale(nn.Module):
    """The scale and offset of a layer's activation levels, the same for every input.

    Args:
        spec: Of the layer.
        trained: Whether the scale is.
        device: Of its tensors.

    Attributes:
        gamma: The range that was calibrated (figures 4 and 5), (1,).
        offset: eta of figure 5, (1,); 0 when levels are signed.
        gain: The trained factor of gamma, (1,). It begins at 1, so that one learning rate suits all layers.
        calibrating: Whether the next input calibrates it, in evaluation too.
    """

    gamma: Tensor
    offset: Tensor

    def __init__(self, spec: LayerSpec, trained: bool = True, device: Any = None) -> None:
        super().__init__()
        assert spec.activation_bits is not None
        self.bits, self.signed, self.calibration = spec.activation_bits, spec.signed, spec.calibration
        self.clipped = spec.straight_through == "clipped"
        for name in ("gamma", "offset"):
            self.register_buffer(name, torch.full((1,), torch.nan, device=device))
        self.gain = nn.Parameter(torch.ones(1, device=device), trained)
        self.calibrating = self.is_calibrated = False

    def forward(self, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """The scale gamma / Qb and the offset of the levels, both (1,)."""
        if not self.is_calibrated and not self.gamma.is_meta:
            rule = "a static activation scale must be calibrated before it is evaluated"
            raise BadInput(f"{rule}; call ablate.calibrate_(model, images) with some training images")
        scale = self.gamma * self.gain.abs() / _q_b(self.bits)
        return scale.to(dtype), self.offset.to(dtype)

    def rounded(self, x: Tensor) -> Tensor:
        """Quant(x) in floating point, with gradients to x, straight through, and to the gain."""
        rows = x.detach().float()
        scale, offset = self()
        with torch.no_grad():
            levels, _, _ = quantize_activations(rows, self.bits, self.signed, (scale, offset))
            exact = (rows - offset) / scale
            inside = exact.abs() <= max(1, _q_b(self.bits) - 1)
            value = levels * scale + offset
            # LSQ eq. 3: the rounding error inside the range, the outermost level beyond it. With one bit the
            # value is sign(x) times the scale.
            slope = levels if self.bits == 1 else torch.where(inside, levels - exact, levels)
            slope = slope / math.sqrt(x.shape[-1] * _q_b(self.bits))  # LSQ section 2.2
        value = value + slope * (scale - scale.detach())
        return straight_through(x, value.to(x.dtype), inside if self.clipped else None)

    def wants(self, training: bool) -> bool:
        """Whether the next input calibrates it: `calibrate_` says so, or it is the first one in training."""
        return self.calibrating or (training and not self.is_calibrated and not self.gamma.is_meta)

    def calibrate(self, x: Tensor) -> None:
        """Set gamma and the offset for an input (..., features), by the spec's rule."""
        x = _sample(x.detach().float())
        self.offset.copy_(torch.zeros(1) if self.signed else x.min())
        if not self.signed:
            x = x - self.offset
        if self.bits == 1:
            gamma = x.abs().mean()
        elif self.calibration == "max":
            gamma = x.abs().max()  # Fig. 4 and 5
        elif self.calibration == "percentile":
            gamma = x.abs().quantile(PERCENTILE)
        else:
            gamma = _nearest(x, self.bits, self.signed)
        self.gamma.copy_(gamma)
        self.calibrating = False
        self.update()

    def update(self) -> None:
        """Take note of whether it is calibrated, after its tensors were set."""
        self.is_calibrated = not self.gamma.is_meta and bool(self.gamma.isfinite().all())

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self.update()


def calibrate_(model: nn.Module, images: Tensor) -> int:
    """Calibrate the static activation scales of a quantized model, one layer after the other.

    A layer sees its input as the quantized layers before it give it. Scales that have been calibrated
    already are calibrated again, and what they have learned is dropped. Without this call the first batch of
    a training calibrates them, as in LSQ.

    Args:
        model: Changed in place; in the mode that it was in afterwards.
        images: Some training images as the model takes them, (N, 3, H, W) or (N, ...); 64 are enough.

    Returns:
        How many scales were calibrated.

    Raises:
        BadInput: The images are no tensor of finite floats, or there are none. Whatever is raised, the
            scales are as they were.
    """
    if not isinstance(images, Tensor) or not images.is_floating_point() or not images.numel():
        got = f"{images.dtype}, {tuple(images.shape)}" if isinstance(images, Tensor) else short_repr(images)
        rule = "images must be a tensor of floats of shape (N, ...) with N > 0, as the model takes them"
        raise BadInput(f"{rule}, but got {got}; preprocess some training images")
    if not images.isfinite().all():
        raise BadInput("images must be finite, but some values are not; preprocess other training images")
    scales = [module for module in model.modules() if isinstance(module, StaticScale)]
    if scales:
        before = [copy.deepcopy(scale.state_dict()) for scale in scales]
        try:
            with torch.no_grad(), _evaluating(model):
                for scale in scales:
                    scale.gain.fill_(1.0)
                    scale.calibrating, scale.is_calibrated = True, False
                logits(model, images)
        except Exception:  # of the model, for images that it does not take
            for scale, state in zip(scales, before, strict=True):
                scale.load_state_dict(state)
            raise
        finally:
            for scale in scales:
                scale.calibrating = False
    return len(scales)


def uncalibrated(model: nn.Module) -> bool:
    """Whether a model has a static scale that is not calibrated."""
    return any(isinstance(module, StaticScale) and not module.is_calibrated for module in model.modules())


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = {module: module.training for module in model.modules()}
    try:
        yield model.eval()  # type: ignore[misc]
    finally:
        for module, was in training.items():
            module.training = was


def _q_b(bits: int) -> int:
    """Qb (Fig. 4); with one bit the only level is the scale itself."""
    return 1 if bits == 1 else 2 ** (bits - 1)


def _sample(x: Tensor) -> Tensor:
    """Some rows of an input (..., features), drawn evenly; all of a small one."""
    rows = x.reshape(-1, x.shape[-1])
    n = max(1, SAMPLE // x.shape[-1])
    if len(rows) <= n:
        return rows
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:n].to(x.device)]


def _nearest(x: Tensor, bits: int, signed: bool) -> Tensor:
    """Find the range whose levels are nearest to x in squared error."""
    largest, best, least = x.abs().max(), x.abs().max(), math.inf
    for i in range(CANDIDATES, 0, -1):
        gamma = largest * i / CANDIDATES
        scale, zero = gamma / _q_b(bits), torch.zeros_like(gamma)
        levels, _, _ = quantize_activations(x, bits, signed, (scale, zero))
        error = (levels * scale - x).square().mean().item()
        if error < least:
            best, least = gamma, error
    return best
