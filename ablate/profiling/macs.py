"""Counts what a model costs: parameters, MACs and bit operations of one image. Nothing is measured."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import thop
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from ablate.config.precisions import WEIGHT_BITS
from ablate.config.trial_spec import LayerSpec
from ablate.errors import BadInput
from ablate.models.loading import Logits, sharing_copy
from ablate.models.patch_embedding import patch_convolutions
from ablate.models.unfusing import unfuse_
from ablate.quantization.attention import MATMUL, attention_bits, attention_modules, integer_product, operands
from ablate.quantization.bitlinear import BitLinear
from ablate.quantization.patch_layers import BitPatchEmbedding
from ablate.quantization.static_scales import StaticScale


@dataclass(frozen=True)
class Cost:
    """The cost of one image.

    Attributes:
        parameters: Of the model.
        macs: Multiply-accumulates, half the FLOPs.
        bitops: The sum over layers of MACs x weight bits x activation bits, and over attention products of
            MACs x the bits of both operands.
    """

    parameters: int
    macs: int
    bitops: int


class Macs(NamedTuple):
    """The MACs of one image.

    Attributes:
        total: Of the whole model.
        by_layer: By name, of each of its linear layers, once it is unfused, and of its patch embeddings.
        attention: Of the attention products that `quantize_attention_` reaches.
        other_products: Of other products that no layer computes.
    """

    total: int
    by_layer: dict[str, int]
    attention: int
    other_products: int


def count(model: nn.Module, size: tuple[int, int]) -> Cost:
    """Count the cost of one image.

    Args:
        model: It stays as it is.
        size: Of the image, (height, width).

    Raises:
        BadInput: The model never calls one of its quantized layers.
    """
    counted = macs(model, size)
    specs = {name: module.spec for name, module in model.named_modules() if isinstance(module, BitLinear)}
    parameters = sum(p.numel() for p in model.parameters())
    return Cost(parameters, counted.total, bitops(counted, specs, attention_bits(model)))


def macs(model: nn.Module, size: tuple[int, int]) -> Macs:
    """Count the MACs of one image: by thop, and inside attention by rules of this module.

    Args:
        model: It stays as it is.
        size: Of the image, (height, width).
    """
    unfuse_(model := sharing_copy(model).eval())  # thop adds buffers
    for module in model.modules():
        if isinstance(module, StaticScale):
            module.is_calibrated = True  # no value counts
    rules: dict[type[nn.Module], Any] = dict.fromkeys((nn.Linear, BitLinear, BitPatchEmbedding), _linear_macs)
    rules |= {nn.MultiheadAttention: _attention_macs}  # one that cannot be unfused
    attention = _AttentionMacs()
    for module in attention_modules(model).values():
        module.register_forward_pre_hook(attention.enter)
        module.register_forward_hook(attention.leave)
    with attention, torch.no_grad():
        total, _, tree = thop.profile(
            Logits(model), (torch.zeros(1, 3, *size),), rules, verbose=False, ret_layer_info=True
        )
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    linear += patch_convolutions(model)
    by_layer = {name: _leaf(tree, f"model.{name}") for name in linear}
    others = attention.macs - attention.products
    return Macs(int(total) + attention.macs, by_layer, attention.products, others)


def bitops(counted: Macs, specs: Mapping[str, LayerSpec], attention_bits: int | None = None) -> int:
    """Count the bit operations of one image.

    Args:
        counted: MACs of the model.
        specs: By name, the precision of its quantized layers. All else is counted at 32 x 32 bits.
        attention_bits: Of the operands of the attention products; None: 32.

    Raises:
        BadInput: A quantized layer has no MACs: the model never calls it.
    """
    saved: float = counted.attention * (32 * 32 - (attention_bits or 32) ** 2)
    for name, spec in specs.items():
        if not (here := counted.by_layer[name]):
            rule = f"layer {name!r} must be called by its model, and is not"
            raise BadInput(f"{rule}: quantizing it would do nothing; leave it full")
        saved += here * (32 * 32 - WEIGHT_BITS[spec.weights] * (spec.activation_bits or 32))
    return round(counted.total * 32 * 32 - saved)


class _AttentionMacs(TorchFunctionMode):
    """Counts q k^T and p v, which are computed in functions; thop counts modules only.

    Attributes:
        macs: In all.
        products: Of those, what `quantize_attention_` reaches in attention modules.
        depth: Of the attention modules that are running.
    """

    macs, products, depth = 0, 0, 0

    def enter(self, module: nn.Module, args: Any) -> None:
        self.depth += 1

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self.depth -= 1

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out, before = func(*args, **(kwargs or {})), self.macs
        reached = func is F.scaled_dot_product_attention or operands(func, args, kwargs or {}) is not None
        if func is F.scaled_dot_product_attention:
            named = [kwargs[name] for name in ("query", "key", "value") if name in (kwargs or {})]
            query, key, value = (*args[:3], *named)[:3]  # (B, heads, T, head_dim)
            self.macs += query[..., 0].numel() * key.shape[-2] * (query.shape[-1] + value.shape[-1])
        elif func in (*MATMUL, integer_product):
            self.macs += out.numel() * args[0].shape[-1]
        elif func is torch.einsum and isinstance(args[0], str):
            self.macs += _einsum_macs(args[0], *args[1:])
        self.products += self.macs - before if reached and self.depth else 0
        return out


def _einsum_macs(equation: str, *operands: Any) -> int:
    """Of two operands: one for each combination of their indices."""
    tensors = operands[0] if len(operands) == 1 and not isinstance(operands[0], torch.Tensor) else operands
    terms = equation.replace(" ", "").partition("->")[0].replace(",", "")
    sizes = dict(zip(terms, (side for x in tensors for side in x.shape), strict=True))
    return math.prod(sizes.values())


def _linear_macs(layer: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
    layer.total_ops += output.numel() * layer.in_features


def _attention_macs(layer: Any, inputs: tuple[torch.Tensor, ...], output: Any) -> None:
    """torch's attention computes q, k, v, q k^T, (q k^T) v and out in one function."""
    query, key, value = inputs[:3]  # (B, N, D) or (N, B, D)
    keys = key.shape[1 if layer.batch_first else 0]
    layer.total_ops += layer.embed_dim * (
        2 * query.numel() + key.numel() + value.numel() + 2 * query[..., 0].numel() * keys
    )


def _leaf(tree: Any, name: str) -> int:
    """thop's count of one layer, from its tree of (operations, parameters, children) by module name.

    It is 0 inside a module with a rule of its own, which has no children in the tree.
    """
    operations = 0.0
    for part in name.split("."):
        if part not in tree:
            return 0
        operations, _, tree = tree[part]
    return int(operations)
