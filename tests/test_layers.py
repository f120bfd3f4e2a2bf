import pytest
import torch
import transformers
from torch import nn

from ablate import BitLinear, LayerSpec, data, models, quantize_
from ablate.errors import BadInput
from ablate.layers import groups, linear_layers


def test_groups_of_the_bundled_vit():
    found = groups(models.load("vit-micro", data.CIFAR10))
    roles = [f"block{i}.{role}" for i in range(6) for role in ("attention", "fc1", "fc2")]
    assert list(found) == [*roles, "head"]
    assert [name.rpartition(".")[2] for name in found["block0.attention"]] == ["q_proj", "k_proj", "v_proj", "o_proj"]
    assert found["head"] == ["classifier"]


@pytest.mark.parametrize(
    ("architecture", "config"),
    [
        ("DeiT", {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}),
        ("Beit", {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}),
        ("Dinov2", {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2}),
    ],
)
def test_groups_come_from_structure_not_from_names(architecture, config):
    cls = getattr(transformers, f"{architecture}ForImageClassification")
    model = cls(getattr(transformers, f"{architecture}Config")(image_size=32, patch_size=8, num_labels=10, **config))
    found = groups(model)
    assert list(found)[:3] == ["block0.attention", "block0.fc1", "block0.fc2"] and list(found)[-1] == "head"
    assert len(found["block1.attention"]) == 4 and len(found["block1.fc1"]) == 1
    assert sum(map(len, found.values())) == len(linear_layers(model))


def test_a_fused_projection_is_attention():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.ModuleDict({"qkv": nn.Linear(8, 24), "out": nn.Linear(8, 8)})
            self.mlp = nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 8))

    model = nn.Sequential(nn.Linear(3, 8), nn.Sequential(Block(), Block()), nn.Linear(8, 2))
    assert list(groups(model)) == [
        "0",
        "block0.attention",
        "block0.fc1",
        "block0.fc2",
        "block1.attention",
        "block1.fc1",
        "block1.fc2",
        "head",
    ]


def model():
    return nn.ModuleDict({"a": nn.ModuleDict({"fc1": nn.Linear(4, 8), "fc2": nn.Linear(8, 4)}), "head": nn.Linear(4, 2)})


def test_quantize_replaces_by_pattern():
    net = model()
    before = net["a"]["fc1"].weight
    replaced = quantize_(net, {"a.*": LayerSpec(weights="ternary", activation_bits=4), "head": LayerSpec()})
    assert replaced == ["a.fc1", "a.fc2"]
    assert isinstance(net["a"]["fc1"], BitLinear) and net["a"]["fc1"].weight is before
    assert net["a"]["fc2"].spec.activation_bits == 4 and type(net["head"]) is nn.Linear


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["a.fc9"], r"matches no linear layer; nearest: a\.fc"),
        (["a.*", "*fc1"], "must not overlap, but '\\*fc1' matches 'a.fc1' again"),
    ],
)
def test_quantize_refuses_and_leaves_the_model_alone(patterns, message):
    net = model()
    with pytest.raises(BadInput, match=message):
        quantize_(net, {pattern: LayerSpec(weights="binary") for pattern in patterns})
    assert not any(isinstance(module, BitLinear) for module in net.modules())


def test_quantizing_again_changes_the_precision():
    net = model()
    quantize_(net, {"head": LayerSpec(weights="binary")})
    quantize_(net, {"head": LayerSpec(weights="int8")})
    assert net["head"].spec.weights == "int8" and net["head"](torch.ones(1, 4)).shape == (1, 2)
