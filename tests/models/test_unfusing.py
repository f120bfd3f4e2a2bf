"""Attention of torch and torchvision, unfused into layers that can be quantized."""

import copy

import families
import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from torchvision.models import get_model

from ablate import BitLinear, LayerSpec, load_packed, pack, quantize_
from ablate.errors import BadInput
from ablate.models.layer_groups import groups, linear_layers
from ablate.models.unfused_attention import UnfusedAttention
from ablate.models.unfusing import is_fused, unfuse_, unfused
from ablate.profiling.macs import count
from ablate.quantization.packed_size import packed_bytes

TERNARY = LayerSpec(weights="ternary")
MODELS = ("torchvision's ViT", "torchvision's Swin", "torchvision's Swin V2")


def attention(**options):
    torch.manual_seed(0)
    model = nn.MultiheadAttention(16, 4, **options)
    return model.requires_grad_(True) if model.in_proj_bias is None else randomised(model)


def randomised(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


def in_a_list(module):
    return nn.ModuleList([module])


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("training", [False, True])
def test_outputs_and_gradients_are_those_of_the_original(family, training):
    model = families.build(family).train(training)
    for module in model.modules():
        if hasattr(module, "dropout") and is_fused(module):
            module.dropout = 0.3  # the same places are dropped
    twin = copy.deepcopy(model)
    unfuse_(twin)
    assert not any(is_fused(module) for module in twin.modules())
    outputs = []
    for each in (model, twin):
        torch.manual_seed(0)
        outputs.append(each(families.pixels(family).requires_grad_(True)))
        outputs[-1].square().sum().backward()
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-5)
    name = next(name for name, _ in model.named_parameters() if "embedding" in name or "features.0.0" in name)
    gradients = [each.get_parameter(name).grad for each in (model, twin)]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "call"),
    [
        ({}, {}),
        ({"batch_first": True}, {"average_attn_weights": False}),
        ({"bias": False}, {"need_weights": False}),
        ({"kdim": 8, "vdim": 12}, {}),
        ({"batch_first": True, "dropout": 0.4}, {}),
        ({"batch_first": True, "dropout": 0.4}, {"need_weights": False}),
        ({}, {"attn_mask": torch.ones(5, 5).triu(1).bool()}),
        ({}, {"attn_mask": torch.ones(5, 5).triu(1).bool(), "is_causal": True, "need_weights": False}),
        ({"batch_first": True}, {"attn_mask": torch.randn(12, 5, 5), "need_weights": False}),
        ({"batch_first": True}, {"key_padding_mask": torch.arange(15).reshape(3, 5) % 5 > 2}),
        (
            {"batch_first": True},
            {
                "key_padding_mask": torch.arange(15).reshape(3, 5) % 5 > 2,
                "attn_mask": torch.randn(5, 5).tril(),
                "need_weights": False,
            },
        ),
    ],
)
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")
def test_every_way_of_calling_torchs_attention_gives_what_it_gave(options, call, training):
    original = attention(**options).train(training)
    ours = UnfusedAttention(original)
    assert {type(layer) for layer in ours.children()} == {nn.Linear}
    inputs = [torch.randn(3, 5, width) for width in (16, original.kdim, original.vdim)]
    if not original.batch_first:
        inputs = [x.transpose(0, 1) for x in inputs]
    results = []
    for each in (original, ours):
        torch.manual_seed(1)
        results.append(each(*inputs, **call))
    torch.testing.assert_close(*results, rtol=0, atol=1e-5)


def test_a_single_sequence_is_attended_as_before():
    original, x = attention(batch_first=True).eval(), torch.randn(5, 16)
    for call in ({}, {"need_weights": False}, {"key_padding_mask": torch.arange(5) > 3}):
        expected, got = original(x, x, x, **call), UnfusedAttention(original)(x, x, x, **call)
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"kdim": 8, "vdim": 12}, {"bias": False}])
def test_a_state_dict_of_the_original_is_read(options):
    original = in_a_list(attention(**options))
    unfuse_(model := in_a_list(nn.MultiheadAttention(16, 4, **options)))
    model.load_state_dict(original.state_dict())
    x = [torch.randn(5, 2, width) for width in (16, options.get("kdim", 16), options.get("vdim", 16))]
    torch.testing.assert_close(model[0](*x)[0], original[0](*x)[0], rtol=0, atol=1e-5)
    model.load_state_dict(model.state_dict())
    state = original.state_dict()
    del state[next(key for key in state if "proj_weight" in key)]
    with pytest.raises(RuntimeError, match=r"Missing key.*q_proj\.weight"):
        model.load_state_dict(state)


@pytest.mark.parametrize("options", [{"add_bias_kv": True}, {"add_zero_attn": True}])
def test_attention_that_computes_more_stays_as_it_is_and_is_refused(options):
    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention, self.head = attention(batch_first=True, **options), nn.Linear(16, 2)

        def forward(self, pixels):
            x = pixels.flatten(2)[..., :16]
            return self.head(self.attention(x, x, x)[0].mean(1))

    model = Mean()
    assert [*linear_layers(unfused(model))] == ["head"]
    with pytest.raises(BadInput, match="but MultiheadAttention reads the weights"):
        quantize_(model, {"attention.*": TERNARY})
    assert quantize_(model, {"head": TERNARY}) == ["head"]


def test_shared_and_pruned_parameters_stay():
    one, two = attention(), attention()
    two.in_proj_weight = one.in_proj_weight
    unfuse_(tied := nn.ModuleList([one, two]))
    assert [*tied] == [one, two]
    prune.l1_unstructured(pruned := attention(), "in_proj_weight", 0.5)
    unfuse_(model := in_a_list(pruned))
    assert model[0] is pruned
    unfuse_(twice := nn.ModuleList([shared := attention(), shared]))
    assert twice[0] is twice[1] and isinstance(twice[0], UnfusedAttention)


def test_torchs_encoder_layer_no_longer_goes_around_its_layers():
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
            self.encoder, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(16, 2)

        def forward(self, pixels):
            return self.head(self.encoder(pixels.flatten(2)[..., :16]).mean(1))

    model, x = randomised(Encoder()).eval(), torch.randn(3, 3, 8, 8)
    with torch.inference_mode():
        expected = model(x)
        torch.testing.assert_close(unfused(model)(x), expected, rtol=0, atol=1e-5)
    assert quantize_(model, {"*layers.0.linear*": TERNARY}) == [f"encoder.layers.0.linear{i}" for i in (1, 2)]
    with torch.inference_mode():
        assert not model(x).allclose(expected)
    assert isinstance(model.encoder.layers[1].self_attn, nn.MultiheadAttention)  # no pattern reached it
    padding = torch.tensor([[False, False, True]] * 3)
    with torch.inference_mode():
        model.encoder(torch.randn(3, 3, 16), src_key_padding_mask=padding)


def test_only_what_a_pattern_reaches_is_unfused_and_nothing_where_it_is_refused():
    model = families.build("torchvision's ViT")
    quantize_(model, {"*mlp*": TERNARY})
    assert not any(isinstance(module, UnfusedAttention) for module in model.modules())
    with pytest.raises(BadInput, match="matches no linear layer"):
        quantize_(model, {"*layer_0.self_attention.*": TERNARY, "*nothing*": TERNARY})
    assert not any(isinstance(module, UnfusedAttention) for module in model.modules())
    names = quantize_(model, {"*layer_0.self_attention.*": TERNARY})
    assert [name.rpartition(".")[2] for name in names] == ["q_proj", "k_proj", "v_proj", "out_proj"]
    assert [isinstance(block.self_attention, UnfusedAttention) for block in model.encoder.layers] == [
        True,
        False,
    ]


def test_hooks_and_frozen_parameters_are_kept():
    model, seen = families.build("torchvision's ViT").requires_grad_(False), []
    attended = model.encoder.layers[0].self_attention
    handle = attended.register_forward_hook(lambda *_: seen.append(True))
    quantize_(model, {"*self_attention*": TERNARY})
    model(families.pixels("torchvision's ViT"))
    handle.remove()
    model(families.pixels("torchvision's ViT"))
    assert seen == [True] and not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("family", MODELS)
def test_unfused_models_are_counted_packed_and_loaded(family, tmp_path):
    model, x = families.build(family), families.pixels(family)
    names = [*linear_layers(unfused(model))]
    size, full = packed_bytes(model, dict.fromkeys(names, TERNARY)), count(model, (32, 32))
    assert quantize_(model, {"*": TERNARY}) == names
    cost = count(model, (32, 32))
    assert (cost.parameters, cost.macs) == (full.parameters, full.macs) and cost.bitops < full.bitops
    with pytest.warns(UserWarning, match="skeleton"):
        assert pack(model, tmp_path) == size
    loaded = load_packed(tmp_path, families.build(family))  # a skeleton as its author built it
    with torch.inference_mode():
        assert loaded(x).equal(model(x))


@pytest.mark.long
def test_the_whole_encoder_of_torchvisions_vit_is_quantized_by_one_pattern():
    with torch.device("meta"):
        model = get_model("vit_b_16")
    assert len(quantize_(model, {"encoder.layers.*": TERNARY})) == 12 * 6
    assert sum(isinstance(module, BitLinear) for module in model.modules()) == 72
    assert {len(names) for group, names in groups(model).items() if group.endswith("attention")} == {4}
