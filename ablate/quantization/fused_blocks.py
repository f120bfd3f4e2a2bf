"""A pre-norm ViT's block as four integer products, attention and six passes, for inference on a CPU."""

from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from transformers.activations import GELUActivation

from ablate.errors import BadInput
from ablate.quantization import fused_passes
from ablate.quantization.attention import attention_bits
from ablate.quantization.fused_passes import compiled
from ablate.quantization.fused_products import Product, fits, input_of

# What is compiled: the whole block, around torch's integer products, which is faster for a small model; its
# passes, between oneDNN's products; or nothing.
Way = Literal["whole", "passes", "eager"]

# The layers of a block, in parts whose layers share a precision.
PARTS = (
    tuple(f"attention.{name}_proj" for name in "qkvo"),
    ("mlp.fc1",),
    ("mlp.fc2",),
)


class FusedBlock(nn.Module):
    """Computes what a block of a ViT, DeiT or DINOv2 of transformers does, for inference.

    q, k and v are one product. A pass between two products is read and written once. Between layers, values
    are bfloat16 where the CPU has it; the residual sum keeps the input's dtype.

    Args:
        block: Its linear layers are `IntegerLinear` or nn.Linear.
        way: What is compiled.
    """

    def __init__(self, block: Any, way: Way) -> None:
        super().__init__()
        norms, scales = parts_of(block)
        attention, mlp = block.attention, block.mlp
        self.n: int = attention.num_attention_heads
        self.norms = nn.ModuleList(norms)
        is_gelu = isinstance(mlp.activation_fn, GELUActivation)
        self.activation: Callable[..., Any] = fused_passes.gelu if is_gelu else mlp.activation_fn
        factor = torch.ones(attention.q_proj.out_features)
        qk = torch.cat([factor * attention.scaling, torch.ones(2 * len(factor))])  # of q k^T
        plain = way == "whole"
        self.qkv = Product(attention.q_proj, attention.k_proj, attention.v_proj, factor=qk, plain=plain)
        self.out = Product(attention.o_proj, factor=scales[0], plain=plain)
        self.fc1, self.fc2 = Product(mlp.fc1, plain=plain), Product(mlp.fc2, factor=scales[1], plain=plain)
        hows = (self.fc1.how, self.fc2.how)
        whole = all(how.static and how.dtype == torch.uint8 for how in hows)
        self.in_product = is_gelu and whole and hows[1].bits == 8 and not hows[1].norm
        self.compiles = way == "passes"
        compute = FusedBlock._compute
        self.compute = compiled(compute, kind_of(block)) if way == "whole" else compute

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None, **options: Any) -> Tensor:
        if attention_mask is not None or (torch.is_grad_enabled() and hidden_states.requires_grad):
            rule = "a model that was loaded with exact=False is for inference, without masks and gradients"
            raise BadInput(f"{rule}; load it with exact=True")
        images, tokens, width = hidden_states.shape
        h = self.compute(self, hidden_states.reshape(images * tokens, width), tokens)
        return h.view(images, tokens, width).to(hidden_states.dtype)

    def _compute(self, h: Tensor, tokens: int) -> Tensor:
        """The block's output for h, (images * tokens, width)."""
        before, after = self.norms
        first = self._pass("first", how=self.qkv.how, eps=before.eps)
        x, scale = first(h, before.weight, before.bias, self.qkv.step)
        y = self.qkv(x)
        if self.qkv.bias is not None:
            y = self._pass("rescaled", dtype=self.qkv.floats)(y, scale, self.qkv.bias)
        # (images, n, tokens, width / n)
        q, k, v = y.view(-1, tokens, 3, self.n, h.shape[1] // self.n).permute(2, 0, 3, 1, 4)
        z = torch.softmax(q @ k.transpose(-1, -2), -1) @ v  # plain: faster here than the fused kernel
        z = z.transpose(1, 2).reshape(h.shape)
        x, scale = self._pass("prepared", how=self.out.how)(z, self.out.step)
        second = self._pass("second", how=self.fc1.how, eps=after.eps)
        h, x, scale = second(h, self.out(x), scale, self.out.bias, after.weight, after.bias, self.fc1.step)
        if self.in_product:
            x, scale = self.fc1(x, gelu_to=self.fc2.scale), None
        else:
            activated = self._pass("activated", how=self.fc2.how, activation=self.activation)
            x, scale = activated(self.fc1(x), scale, self.fc1.bias, self.fc2.step)
        return self._pass("last")(h, self.fc2(x), scale, self.fc2.bias)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        moved = fn(torch.empty(0))
        if moved.dtype != torch.float32 or moved.device.type != "cpu":
            rule = "a model that was loaded with exact=False must stay on the CPU, in float32"
            raise BadInput(f"{rule}, but got {moved.dtype} on {moved.device}; load it with exact=True")
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise BadInput("a model that was loaded with exact=False cannot be copied; load it again")

    def _pass(self, name: str, **fixed: Any) -> Callable[..., Any]:
        function = getattr(fused_passes, name)
        return compiled(function, **fixed) if self.compiles else partial(function, **fixed)


def parts_of(block: Any) -> tuple[list[Any], list[Tensor | None]]:
    """A block's two norms, and the factors after its attention and its MLP, None where it has none."""
    pairs = [("layernorm_before", "layernorm_after"), ("norm1", "norm2")]
    norms = next(([getattr(block, name) for name in pair] for pair in pairs if hasattr(block, pair[0])), [])
    after = [getattr(block, name, None) for name in ("layer_scale1", "layer_scale2")]
    return norms, [None if layer is None else layer.lambda1.detach() for layer in after]


def kind_of(block: Any) -> tuple[Any, ...]:
    """What fusible blocks of one speed have in common: the sizes of their products, and what these take."""
    attention, mlp = block.attention, block.mlp
    layers = (attention.q_proj, attention.o_proj, mlp.fc1, mlp.fc2)
    sizes = tuple((layer.in_features, layer.out_features, input_of(layer)) for layer in layers)
    return sizes, attention.num_attention_heads


def is_fusible(block: Any) -> bool:
    """Whether a block has the parts of a `FusedBlock`; whether it computes the same is another question."""
    attention: Any = getattr(block, "attention", None)
    mlp: Any = getattr(block, "mlp", None)
    names = ("q_proj", "k_proj", "v_proj", "o_proj", "num_attention_heads", "scaling")
    has = all(hasattr(attention, name) for name in names)
    if (
        attention_bits(block) is not None
        or not has
        or not all(hasattr(mlp, name) for name in ("fc1", "fc2", "activation_fn"))
    ):
        return False
    qkv = [attention.q_proj, attention.k_proj, attention.v_proj]
    layers = [*qkv, attention.o_proj, mlp.fc1, mlp.fc2]
    if not all(map(fits, layers)) or len({input_of(layer) for layer in qkv}) > 1:
        return False
    norms, _ = parts_of(block)
    return (
        len(norms) == 2 and all(type(norm) is nn.LayerNorm for norm in norms) and _needs_tokens_alone(block)
    )


def _needs_tokens_alone(block: nn.Module) -> bool:
    """Whether a block takes tokens, and at most a mask beside; a Swin's or BEiT's takes their grid's size."""
    parameters = signature(block.forward).parameters.values()
    named = [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return {*named[1:]} <= {"attention_mask"}
