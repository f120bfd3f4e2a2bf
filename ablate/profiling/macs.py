"""What a model costs, counted and not measured: parameters, MACs and bit operations of one image."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import thop
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode
from torchvision.models.swin_transformer import ShiftedWindowAttention

from ablate.config.precisions import WEIGHT_BITS
from ablate.config.trial_spec import LayerSpec
from ablate.errors import BadInput
from ablate.models.loading import Logits, sharing_copy
from ablate.quantization.bitlinear import BitLinear


@dataclass(frozen=True)
class Cost:
    """Counted per image. MACs are multiply-accumulates, half the FLOPs; bitops are MACs x weight bits x activation bits."""

    parameters: int
    macs: int
    bitops: int


def count(model: nn.Module, size: tuple[int, int]) -> Cost:
    """The cost of one image of `size` (height, width).

    Raises BadInput for a quantized layer that the model never calls.
    """
    total, of_layer = macs(model, size)
    specs = {name: module.spec for name, module in model.named_modules() if isinstance(module, BitLinear)}
    return Cost(sum(p.numel() for p in model.parameters()), total, bitops(total, of_layer, specs))


def macs(model: nn.Module, size: tuple[int, int]) -> tuple[int, dict[str, int]]:
    """MACs of one image of `size`, and of each of its linear layers: by thop, what is inside attention by a rule of ours."""
    model = sharing_copy(model).eval()  # thop adds buffers
    rules = {nn.Linear: _linear_macs, BitLinear: _linear_macs}
    rules |= {nn.MultiheadAttention: _attention_macs, ShiftedWindowAttention: _window_macs}
    attention = _AttentionMacs()
    with attention, torch.no_grad():
        seen, _, tree = thop.profile(
            Logits(model), (torch.zeros(1, 3, *size),), rules, verbose=False, ret_layer_info=True
        )
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    return int(seen) + attention.macs, {name: _leaf(tree, f"model.{name}") for name in linear}


def bitops(total: int, of_layer: Mapping[str, int], specs: Mapping[str, LayerSpec]) -> int:
    """Bit operations of an image, from the MACs of `macs`, where some layers are quantized.

    Raises BadInput for a quantized layer without MACs: the model never calls it.
    """
    saved = 0.0
    for name, spec in specs.items():
        if not of_layer[name]:
            raise BadInput(
                f"layer {name!r} must be called by its model, and is not: quantizing it would do nothing; leave it full"
            )
        saved += of_layer[name] * (32 * 32 - WEIGHT_BITS[spec.weights] * (spec.activation_bits or 32))
    return round(total * 32 * 32 - saved)


class _AttentionMacs(TorchFunctionMode):
    """Counts q k^T and (q k^T) v, which happen in functions and not in modules, where thop cannot see them."""

    macs = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is F.scaled_dot_product_attention:
            query, key, value = args[:3]  # (B, heads, T, head_dim)
            self.macs += query[..., 0].numel() * key.shape[-2] * (query.shape[-1] + value.shape[-1])
        elif func in (torch.matmul, torch.bmm, torch.Tensor.matmul, torch.Tensor.__matmul__):
            self.macs += out.numel() * args[0].shape[-1]
        return out


def _linear_macs(layer: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
    layer.total_ops += output.numel() * layer.in_features


def _attention_macs(layer: Any, inputs: tuple[torch.Tensor, ...], output: Any) -> None:
    """torch's own attention, whose projections and products are one function: q, k, v, q k^T, (q k^T) v, and out."""
    query, key, value = inputs[:3]  # (B, N, D) or (N, B, D)
    keys = key.shape[1 if layer.batch_first else 0]
    layer.total_ops += layer.embed_dim * (
        2 * query.numel() + key.numel() + value.numel() + 2 * query[..., 0].numel() * keys
    )


def _window_macs(layer: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
    """The projections of torchvision's Swin, q, k, v and out; its products are seen as they happen."""
    batch, *sides, width = inputs[0].shape  # (B, H, W, C)
    tokens = batch * math.prod(
        math.ceil(side / window) * window for side, window in zip(sides, layer.window_size, strict=True)
    )
    layer.total_ops += tokens * 4 * width * width


def _leaf(tree: Any, name: str) -> int:
    """thop's count of one layer: its tree holds (operations, parameters, children) by module name.

    0 inside a module that has a rule of its own, and so no children in the tree.
    """
    operations = 0.0
    for part in name.split("."):
        if part not in tree:
            return 0
        operations, _, tree = tree[part]
    return int(operations)
