import pytest
import torch
import transformers
from torch import nn

from ablate import BitLinear, LayerSpec, quantize_
from ablate.data import datasets
from ablate.errors import BadInput
from ablate.models import checkpoints
from ablate.models.layer_groups import groups, linear_layers


def test_groups_of_the_bundled_vit():
    by_group = groups(checkpoints.load("vit-micro", datasets.CIFAR10))
    roles = [f"block{i}.{role}" for i in range(6) for role in ("attention", "fc1", "fc2")]
    assert list(by_group) == [*roles, "head"]
    assert [name.rpartition(".")[2] for name in by_group["block0.attention"]] == [
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
    ]
    assert by_group["head"] == ["classifier"]


@pytest.mark.parametrize(
    ("architecture", "config"),
    [
        (
            "DeiT",
            {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
        ),
        (
            "Beit",
            {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
        ),
        ("Dinov2", {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2}),
    ],
)
def test_groups_come_from_structure_not_from_names(architecture, config):
    cls = getattr(transformers, f"{architecture}ForImageClassification")
    model = cls(
        getattr(transformers, f"{architecture}Config")(image_size=32, patch_size=8, num_labels=10, **config)
    )
    by_group = groups(model)
    assert (
        list(by_group)[:3] == ["block0.attention", "block0.fc1", "block0.fc2"]
        and list(by_group)[-1] == "head"
    )
    assert len(by_group["block1.attention"]) == 4 and len(by_group["block1.fc1"]) == 1
    assert sum(map(len, by_group.values())) == len(linear_layers(model))


def test_groups_of_a_swin_pass_by_what_lies_between_its_stages():
    config = transformers.SwinConfig(
        image_size=32,
        patch_size=4,
        embed_dim=16,
        depths=[1, 1],
        num_heads=[1, 2],
        window_size=4,
        num_labels=10,
    )
    by_group = groups(transformers.SwinForImageClassification(config))
    blocks = [f"block{i}.{role}" for i in range(2) for role in ("attention", "fc1", "fc2")]
    assert sorted(by_group) == sorted([*blocks, "swin.encoder.layers.0.downsample.reduction", "head"])
    assert len(by_group["block1.attention"]) == 4


def test_both_classifiers_of_a_distilled_deit_are_its_head():
    config = {
        "image_size": 32,
        "patch_size": 8,
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    model = transformers.DeiTForImageClassificationWithTeacher(
        transformers.DeiTConfig(intermediate_size=32, num_labels=10, **config)
    )
    by_group = groups(model)
    assert by_group["head"] == ["cls_classifier", "distillation_classifier"]
    assert len(by_group["block0.fc1"]) == len(by_group["block0.fc2"]) == 1  # an MLP as wide as its block


def test_a_shared_layer_is_replaced_under_all_its_names():
    shared = nn.Linear(4, 4)
    net = nn.ModuleDict({"a": shared, "b": shared})
    quantize_(net, {"a": LayerSpec(weights="binary")})
    assert net["a"] is net["b"] and isinstance(net["b"], BitLinear)


def test_a_bare_linear_layer_is_refused():
    with pytest.raises(BadInput, match="from_linear"):
        quantize_(nn.Linear(2, 2), {"*": LayerSpec(weights="binary")})


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
    return nn.ModuleDict(
        {"a": nn.ModuleDict({"fc1": nn.Linear(4, 8), "fc2": nn.Linear(8, 4)}), "head": nn.Linear(4, 2)}
    )


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
