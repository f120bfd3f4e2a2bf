"""The inference layer: integer activations times integer weights into int32, then scales and bias."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablate.config.precisions import TOP
from ablate.config.trial_spec import LayerSpec
from ablate.errors import BadInput
from ablate.models.loading import carry_hooks
from ablate.models.patch_embedding import patches
from ablate.quantization.bitlinear import BitLinear, no_autocast, separate_images
from ablate.quantization.gradients import is_differentiated, straight_through
from ablate.quantization.quantizers import quantize_activations


@cache
def int8_saturates() -> bool:
    """Whether this CPU lacks VNNI: oneDNN adds two products in int16, exact for weights of up to 64 only."""
    full = torch.full((8, 8), 127, dtype=torch.int8)
    return bool((torch._int_mm(full, full) != 8 * 127 * 127).any())


@cache
def int8_is_slow() -> bool:
    """Whether int8 products are far slower than float32 ones, as on most CPUs without VNNI.

    On an EPYC with AVX2 they are 27 times slower.
    """
    levels = torch.ones((256, 256), dtype=torch.int8)

    def seconds(product: Callable[[Tensor, Tensor], Tensor], values: Tensor) -> float:
        started = time.perf_counter()
        product(values, values)
        return time.perf_counter() - started

    with torch.inference_mode(), torch.autocast("cpu", enabled=False):
        integers = min(seconds(torch._int_mm, levels) for _ in range(5))
        floats = min(seconds(torch.mm, levels.float()) for _ in range(5))
    return integers > 3 * floats


def check_sums(in_features: int, weights: str) -> None:
    """Raises BadInput where the sums of a layer's products could leave int32."""
    if in_features * 127 * TOP[weights] >= 2**31:
        rule = f"in_features * 127 * {TOP[weights]} must be below 2^31"
        raise BadInput(f"{rule}, but in_features={in_features}")


class IntegerLinear(nn.Module):
    """Computes what `BitLinear` does in evaluation, to the bit, by `torch._int_mm`: (..., in) -> (..., out).

    On a CPU on which that is slow (`floats`) the same integers are multiplied in float32, which holds their
    sums exactly. Everything outside the product is float32, or float64 where the input is, in models of half
    precision as well; the output has the input's dtype. The weights are unpacked once, to int8 at a byte
    each: unpacking in every call made ViT-B/16 slower by 30 % at batch 1 and saved 70 MiB
    (benchmarks/results/packed-*.json has both). With activation_bits=None they are float32 and the product is
    in floating point.

    Args:
        levels: The integer weights (out, in).
        beta: Their scale, float32 (1,) or (out,).
        bias: float32 (out,), or None.
        spec: The precision, its norm decided.
        static: The scale and offset of activation levels whose scale is static, float32 (2,); else None.
        patch: (height, width) of the patches of a patch embedding, (B, 3, H, W) -> (B, out, H', W').

    Raises:
        BadInput: A sum could leave int32.
    """

    static: Tensor | None
    levels: Tensor
    beta: Tensor
    bias: Tensor | None
    row_sums: Tensor
    like: Tensor
    images: int | None = None  # as of BitLinear
    patch: tuple[int, int] | None = None

    def __init__(
        self,
        levels: Tensor,
        beta: Tensor,
        bias: Tensor | None,
        spec: LayerSpec,
        static: Tensor | None = None,
        patch: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.spec, self.patch = spec, patch
        self.out_features, self.in_features = levels.shape
        check_sums(self.in_features, spec.weights)
        self.floats = not levels.is_cuda and int8_is_slow()
        in_integers = spec.activation_bits is not None and not self.floats
        self.halved = spec.weights == "int8" and in_integers and int8_saturates()
        row_sums = levels.sum(1, dtype=torch.float32)  # (out,)
        if spec.activation_bits is None:
            levels = levels.float()
        else:
            if self.halved:
                levels = torch.cat([levels // 2, levels - levels // 2])  # (2 out, in), none above 64
            # CUDA's product takes multiples of 8 only
            levels = F.pad(levels.to(torch.int8), (0, -self.in_features % 8, 0, -len(levels) % 8))
        buffers = {
            "levels": levels,
            "beta": beta,
            "bias": bias,
            "row_sums": beta * row_sums,
            "static": static,
        }
        for name, value in buffers.items():
            self.register_buffer(name, value)
        self.register_buffer("like", beta.new_full((1,), torch.nan), persistent=False)

    @property
    def weight(self) -> Tensor:
        """One NaN. Some models ask a weight for its dtype and device; who reads its values gets no zeros."""
        return self.like

    def forward(self, x: Tensor) -> Tensor:
        if self.patch is None:
            return self._of_rows(x)
        return self._of_rows(patches(x, self.patch)).permute(0, 3, 1, 2)

    def _of_rows(self, x: Tensor) -> Tensor:
        if not is_differentiated(x):
            return self._exact(x)
        with torch.no_grad():
            exact = self._exact(x)
        weight = (self.integers().to(x.dtype) * self.beta.to(x.dtype)[:, None]).detach()  # (out, in)
        rounded = F.linear(self._normed(x), weight).to(x.dtype)
        return straight_through(rounded, exact).clone()  # no view, so that it may be changed in place

    def _normed(self, x: Tensor) -> Tensor:
        # Fig. 7: LN, no learned parameters
        return F.layer_norm(x, (self.in_features,), eps=1e-5) if self.spec.norm else x

    def _exact(self, x: Tensor) -> Tensor:
        spec, wanted = self.spec, x.dtype
        with no_autocast(x.device):
            x = self._normed(x.to(torch.promote_types(wanted, torch.float32)))
            if spec.activation_bits is None:
                y = F.linear(x, self.levels.to(x.dtype)) * self.beta
            else:
                static = None if self.static is None else (self.static[:1], self.static[1:])
                rows, per = separate_images(x, spec, self.images, static)
                levels, scale, offset = quantize_activations(rows, spec.activation_bits, spec.signed, per)
                y = self._product(levels) * (scale * self.beta)  # Fig. 7; scale is gamma / Qb
                if not spec.signed:
                    y += offset * self.row_sums  # undoes Fig. 5: eta * beta * rowsum(W~)
                y = y.reshape(*x.shape[:-1], self.out_features)
            return (y if self.bias is None else y.add_(self.bias)).to(wanted)

    def _product(self, levels: Tensor) -> Tensor:
        """Floating-point integers (..., in) times the weights: (..., out), exact, in int32 or in floats."""
        if self.floats and not levels.is_cuda:
            return self._in_floats(levels)
        integers = levels.to(torch.int8)
        flat = integers.flatten(0, -2) if levels.ndim > 1 else integers[None]  # (rows, in)
        rows = flat.shape[0]  # len() would fix the batch of an export
        padding = self.levels.shape[1] - self.in_features, max(0, 17 - rows) if levels.is_cuda else 0
        if any(padding):
            flat = F.pad(flat, (0, padding[0], 0, padding[1]))  # CUDA wants more than 16 rows
        sums = torch._int_mm(flat, self.levels.t())[:rows]  # (rows, out or more)
        if self.halved:
            sums = sums[:, : self.out_features] + sums[:, self.out_features : 2 * self.out_features]
        return sums[:, : self.out_features].reshape(*levels.shape[:-1], self.out_features)

    def _in_floats(self, levels: Tensor) -> Tensor:
        """float32 holds integers up to 2^24 exactly: the inputs are split so that no sum is larger."""
        weights = self.integers().to(levels.dtype)
        most = 2**24 // (127 * TOP[self.spec.weights]) - 1
        if self.in_features <= most:
            return F.linear(levels, weights)
        parts = zip(torch.split(levels, most, -1), torch.split(weights, most, -1), strict=True)
        return torch.stack([F.linear(x, w).int() for x, w in parts]).sum(0, dtype=torch.int32)

    def integers(self) -> Tensor:
        """The weights (out, in) without the padding, their halves added up."""
        levels = self.levels[:, : self.in_features]
        if self.halved:
            levels = levels + levels.roll(-self.out_features, 0)
        return levels[: self.out_features]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move the layer, but keep its dtypes: scales in half precision would change the numbers."""
        before = dict(self._buffers)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, value in before.items():
            now = self._buffers[name]
            if name != "like" and value is not None and now is not None and now.dtype != value.dtype:
                self._buffers[name] = value.to(now.device)
        return self

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the layer; on the machine that it comes from, products without halves may be exact."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._buffers.setdefault("static", None)
        self.floats |= self.spec.weights == "int8" and not self.halved and int8_saturates()

    def extra_repr(self) -> str:
        fields = ", ".join(f"{key}={value!r}" for key, value in self.spec.model_dump().items())
        shape = f"in_features={self.in_features}, out_features={self.out_features}"
        return f"{shape}, bias={self.bias is not None}, {fields}"


def static_of(layer: BitLinear | IntegerLinear) -> Tensor | None:
    """The scale and offset of a layer's activation levels, float32 (2,), where the scale is static."""
    if isinstance(layer, IntegerLinear):
        return layer.static
    return None if layer.static is None else torch.cat(layer.static()).detach()


@contextmanager
def as_integers(model: nn.Module) -> Iterator[None]:
    """Replace the float32 BitLinear layers of a model by IntegerLinear within the context, for speed.

    Args:
        model: Changed in place; its own layers are put back at the end.
    """
    modules = {name: module for name, module in model.named_modules() if isinstance(module, BitLinear)}
    layers = {name: layer for name, layer in modules.items() if layer.weight.dtype == torch.float32}
    try:
        for name, layer in layers.items():
            levels, beta = layer.levels_and_scale()
            beta, static, patch = beta.detach().flatten(), static_of(layer), getattr(layer, "patch", None)
            integer = IntegerLinear(levels.to(torch.int8), beta, layer.bias, layer.spec, static, patch)
            carry_hooks(layer, integer)
            model.set_submodule(name, integer)
        yield
    finally:
        for name, layer in layers.items():
            model.set_submodule(name, layer)
