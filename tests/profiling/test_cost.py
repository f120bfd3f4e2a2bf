import math

import pytest
import torch
from transformers import ViTConfig, ViTForImageClassification

from ablate import LayerSpec, pack, quantize_
from ablate.data import datasets
from ablate.models import checkpoints
from ablate.models.layer_groups import linear_layers
from ablate.profiling.macs import count


@pytest.fixture(scope="module", params=["eager", "sdpa"])
def vit_b16(request):
    with torch.device("meta"):
        model = ViTForImageClassification(ViTConfig(num_labels=10, attn_implementation=request.param))
    return model.to_empty(device="cpu")


def test_vit_b16_at_224_px(vit_b16):
    """The paper's Table 1: 85.81 M parameters, 17.59 GMac."""
    cost = count(vit_b16, (224, 224))
    assert cost.parameters == 85_806_346
    assert cost.macs == pytest.approx(17.59e9, rel=0.005)
    assert cost.bitops == cost.macs * 32 * 32
    tokens, width = 197, 768
    attention = 12 * 2 * tokens**2 * width
    linear = 12 * 12 * tokens * width**2 + 196 * 3 * 16 * 16 * width + 10 * width
    assert cost.macs >= attention + linear  # the rest are norms


@pytest.mark.parametrize(
    ("fields", "bits"),
    [
        ({"weights": "binary"}, 8.0),
        ({"weights": "ternary", "activation_bits": 4}, 4 * math.log2(3)),
        ({"weights": "int8"}, 64.0),
        ({"weights": "int4"}, 32.0),
        ({"weights": "binary", "activation_bits": None}, 32.0),
    ],
)
def test_bit_operations_of_a_quantized_layer(fields, bits):
    model = checkpoints.load("vit-micro", datasets.CIFAR10)
    full = count(model, (32, 32))
    quantize_(model, {"vit.layers.2.mlp.fc1": LayerSpec(**fields)})
    layer_macs = 65 * 192 * 768
    quantized = count(model, (32, 32))
    assert (quantized.macs, quantized.parameters) == (full.macs, full.parameters)
    assert full.bitops - quantized.bitops == pytest.approx(layer_macs * (1024 - bits), abs=1)


def test_counting_leaves_the_model_as_it_was(tmp_path):
    model = checkpoints.load("vit-micro", datasets.CIFAR10).train()
    before = pack(model, tmp_path / "before"), [*model.state_dict()]
    count(model, (32, 32))
    assert model.training and before == (pack(model, tmp_path / "after"), [*model.state_dict()])
    assert len(linear_layers(model)) == 37
