import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from ablate import BitLinear, LayerSpec, data, models, pack, quantize_
from ablate.bits import pack_levels, unpack_levels


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


@pytest.mark.parametrize("weights", ["binary", "ternary", "int4", "int8"])
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


def test_size_is_what_is_written(tmp_path):
    model = models.load("vit-micro", data.CIFAR10)
    full = pack(model, tmp_path / "full")
    quantize_(model, {"vit.layers.*": LayerSpec(weights="binary")})
    binary = pack(model, tmp_path / "binary")
    for size, folder in ((full, "full"), (binary, "binary")):
        assert size == sum(file.stat().st_size for file in (tmp_path / folder).iterdir())
    weights = 6 * 12 * 192**2
    assert full - binary == pytest.approx(weights * (32 - 1) / 8, rel=0.01)


def test_the_files_hold_the_model(tmp_path):
    net = nn.Sequential(nn.Linear(5, 4), BitLinear(4, 3, weights="ternary"))
    pack(net, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    header = json.loads((tmp_path / "packed.json").read_text())
    assert set(tensors) == {"0.weight", "0.bias", "1.packed", "1.beta", "1.bias"}
    assert header["format"] == 1 and header["layers"]["1"]["weights"] == "ternary"
    levels = np.reshape(unpack(tensors["1.packed"], "ternary", 12), (3, 4))
    x = torch.randn(2, 4)
    expected = nn.functional.linear(x, torch.tensor(levels).float() * tensors["1.beta"], net[1].bias)
    net[1].spec = LayerSpec(weights="ternary", activation_bits=None)
    assert torch.allclose(net[1].eval()(x), expected)
