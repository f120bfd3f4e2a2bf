"""Attention products of b-bit integers: the arithmetic, and what keeps it through files and other code."""


import pytest
import torch
import torch.nn.functional as F
from families import FAMILIES, build
from torch import Tensor

from ablate import LayerSpec, load_packed, pack, quantize_
from ablate.models.loading import logits
from ablate.quantization.attention import attention, attention_bits, quantized_product


def integers(x: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """A row's levels as int64 and its scale, by figure 4 of the paper."""
    q_b = 2 ** (bits - 1)
    scale = x.abs().amax(-1, keepdim=True) / q_b
    return (x / scale).round().clamp(1 - q_b, q_b - 1).long(), scale


def product_of_integers(a: Tensor, b: Tensor, bits: int) -> Tensor:
    (rows, scale), (columns, other) = integers(a, bits), integers(b.mT, bits)
    return (rows @ columns.mT) * scale * other.mT


def reference(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, bits: int) -> Tensor:
    scores = product_of_integers(q, k.mT, bits) * q.shape[-1] ** -0.5 + mask
    return product_of_integers(scores.softmax(-1), v, bits)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("training", [False, True])
def test_a_masked_attention_is_a_product_of_integers(bits: int, training: bool) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 17, 8) * torch.rand(2, 3, 17, 1) for _ in range(3))
    mask = torch.zeros(17, 17).masked_fill(torch.rand(17, 17) < 0.2, -torch.inf).fill_diagonal_(0)
    expected = reference(q, k, v, mask, bits)

    def product(a: Tensor, b: Tensor) -> Tensor:
        return quantized_product(a, b, bits, training)

    torch.testing.assert_close(attention(product, q, k, v, mask), expected, atol=1e-5, rtol=1e-5)
    out = attention(product, q, k, v, mask == 0)  # a mask of booleans
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
    plain = F.scaled_dot_product_attention(q, k, v, mask)
    torch.testing.assert_close(attention(torch.matmul, q, k, v, mask), plain, atol=1e-5, rtol=1e-5)
    error = (expected - plain).norm() / plain.norm()
    assert error < {2: 1.5, 4: 0.3, 8: 0.02}[bits]


def test_gradients_go_straight_through() -> None:
    torch.manual_seed(0)
    a, b = (torch.randn(2, 3, 5, 7, requires_grad=True), torch.randn(2, 3, 7, 4, requires_grad=True))
    ones = torch.ones(2, 3, 5, 4)
    (levels, scale), (others, other) = integers(a, 4), integers(b.mT, 4)
    wanted = ones @ (others * other), (levels * scale).mT @ ones  # those of the product of rounded values
    for training in (True, False):
        got = torch.autograd.grad(quantized_product(a, b, 4, training).sum(), (a, b))
        torch.testing.assert_close(got, wanted)


def test_sums_beyond_float32_are_exact_and_zeros_stay() -> None:
    a, b = torch.ones(1, 1, 2, 4000), torch.ones(1, 1, 4000, 2)
    b[..., 0] *= -1
    a[..., 1, :] = 0
    out = quantized_product(a, b, 8)
    n = 4000 * 127 * 127 / 128**2
    assert torch.equal(out, torch.tensor([[[[-n, n], [0.0, 0.0]]]]))
    assert quantized_product(a.bfloat16(), b.bfloat16(), 8).dtype == torch.bfloat16
    a.requires_grad_()
    (grad,) = torch.autograd.grad(quantized_product(a, b, 8, training=True).sum(), a)
    assert grad.isfinite().all()


def quantized(family: str, bits: int | None = 8) -> torch.nn.Module:
    model = build(family)
    quantize_(model, {"*": LayerSpec(weights="ternary")}, attention_bits=bits)
    return model


# One of each way to attend: an interface of transformers, its own matmul, torch's, torchvision's, timm's.
WAYS = ["ViT", "SwinV2", "torchvision's ViT", "torchvision's Swin", "timm's Swin", "timm's EVA-02"]


@pytest.mark.parametrize("family", WAYS)
def test_every_way_to_attend_is_quantized_trained_and_packed(family: str, tmp_path) -> None:
    model, size = quantized(family), FAMILIES[family][1]
    pixels = torch.randn(2, 3, size, size)
    out = logits(model, pixels).detach()
    assert attention_bits(model) == 8 and not torch.equal(out, logits(quantized(family, None), pixels))
    torch.testing.assert_close(out, logits(quantized(family, None), pixels), atol=0.3, rtol=0.1)
    model.train()
    logits(model, pixels).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.ndim > 1)
    model.eval()
    if family.startswith("torchvision"):
        with pytest.warns(UserWarning, match="skeleton"):
            pack(model, tmp_path)
        loaded = load_packed(tmp_path, skeleton=build(family))
    else:
        pack(model, tmp_path)
        loaded = load_packed(tmp_path)
    assert attention_bits(loaded) == 8
    torch.testing.assert_close(logits(loaded, pixels), out, atol=1e-4, rtol=1e-4)
    pack(loaded, again := tmp_path / "again") if not family.startswith("torchvision") else None
    if not family.startswith("torchvision"):
        assert (again / "config.json").read_bytes() == (tmp_path / "config.json").read_bytes()
