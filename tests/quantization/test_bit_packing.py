"""Integer weight levels as bytes, against a slow and plain inverse."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from ablate import BitLinear, LayerSpec, pack
from ablate.errors import BadInput
from ablate.quantization.bit_packing import checked_levels, pack_levels, unpack_levels

WEIGHTS = ("binary", "ternary", "int4", "int8")


def unpack(packed, weights, n):
    """The inverse of pack_levels, one value at a time: slow and plain."""
    values = []
    for byte in packed.tolist():
        if weights == "binary":
            values += [1 if byte >> i & 1 else -1 for i in range(8)]
        elif weights == "ternary":
            values += [byte // 3**i % 3 - 1 for i in range(5)]
        elif weights == "int4":
            values += [(byte & 15) - 8, (byte >> 4) - 8]
        else:
            values.append(byte - 256 if byte > 127 else byte)
    return values[:n]


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (10, 192), (5, 8), (768, 192)])
def test_levels_survive_packing(weights, shape):
    top = {"binary": 1, "ternary": 1, "int4": 7, "int8": 127}[weights]
    levels = torch.randint(-top, top + 1, shape).float()
    if weights == "binary":
        levels = torch.where(levels > 0, 1.0, -1.0)
    packed = pack_levels(levels, weights)
    per_byte = {"binary": 8, "ternary": 5, "int4": 2, "int8": 1}[weights]
    assert packed.dtype == torch.uint8 and len(packed) == -(-levels.numel() // per_byte)
    assert unpack(packed, weights, levels.numel()) == levels.flatten().tolist()
    assert unpack_levels(packed, weights, shape).equal(levels.to(torch.int8))


@pytest.mark.parametrize(
    ("weights", "shape", "byte"),
    [
        ("binary", (1, 3), 0b1000),
        ("ternary", (1, 5), 243),
        ("ternary", (1, 4), 81),
        ("int4", (1, 2), 0x10),
        ("int4", (1, 1), 0x11),
    ],
)
def test_bytes_that_pack_does_not_write_are_refused(weights, shape, byte):
    with pytest.raises(BadInput, match=f"bytes of {weights} weights"):
        checked_levels(torch.tensor([byte], dtype=torch.uint8), weights, shape)
    with pytest.raises(BadInput, match="bytes of int8 weights"):
        checked_levels(torch.tensor([128], dtype=torch.uint8), "int8", (1, 1))


def test_the_files_hold_the_model(tmp_path):
    net = nn.Sequential(nn.Linear(5, 4), BitLinear(4, 3, weights="ternary"))
    with pytest.warns(UserWarning, match="skeleton"):
        pack(net, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    header = json.loads((tmp_path / "config.json").read_text())["quantization_config"]
    assert set(tensors) == {"0.weight", "0.bias", "1.weight", "1.beta", "1.bias"}
    assert header["format"] == 2 and header["layers"]["1"]["weights"] == "ternary"
    levels = np.reshape(unpack(tensors["1.weight"], "ternary", 12), (3, 4))
    x = torch.randn(2, 4)
    expected = nn.functional.linear(x, torch.tensor(levels).float() * tensors["1.beta"], net[1].bias)
    net[1].spec = LayerSpec(weights="ternary", activation_bits=None)
    assert torch.allclose(net[1].eval()(x), expected)
