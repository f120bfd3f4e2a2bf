"""BitLinear in other people's transformers: tiny models with random weights, converted, run, trained a step, packed."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import nn
from torchvision.models import SwinTransformer, VisionTransformer

from ablate import BitLinear, LayerSpec, load_packed, models, pack, quantize_
from ablate.cost import count
from ablate.errors import BadInput
from ablate.integer import IntegerLinear
from ablate.layers import groups, linear_layers
from ablate.timing import _measure_packed

SMALL = {"image_size": 32, "patch_size": 8, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
STAGES = {"image_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}


def hugging_face(family: str, **config: object) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        torch.manual_seed(0)
        settings = getattr(transformers, f"{family}Config")(num_labels=10, **config)
        return getattr(transformers, f"{family}ForImageClassification")(settings)

    return build


def vit() -> nn.Module:
    torch.manual_seed(0)
    model = VisionTransformer(32, 8, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64, num_classes=10)
    nn.init.normal_(model.heads.head.weight)  # torchvision has zeros, through which no gradient comes
    return model


def swin() -> nn.Module:
    torch.manual_seed(0)
    return SwinTransformer([4, 4], 16, [1, 1], [1, 2], [4, 4], num_classes=10)


# model -> how to build it, and how many linear layers can be quantized: in its blocks and elsewhere
HF = {
    "ViT": (hugging_face("ViT", intermediate_size=64, **SMALL), 2 * 6 + 1),
    "DeiT": (hugging_face("DeiT", intermediate_size=64, **SMALL), 2 * 6 + 1),
    "BEiT": (hugging_face("Beit", intermediate_size=64, **SMALL), 2 * 6 + 1),
    "DINOv2": (hugging_face("Dinov2", mlp_ratio=2, **SMALL), 2 * 6 + 1),
    "Swin": (hugging_face("Swin", **STAGES), 2 * 6 + 1 + 1),  # one layer between its stages
}
TORCHVISION = {"vit_b_16": (vit, 2 * 2 + 1), "swin_t": (swin, 2 * 2 + 1 + 1)}
EVERY = HF | TORCHVISION


def converted(name: str, weights: str = "binary") -> nn.Module:
    """All linear layers that can be, quantized."""
    model = EVERY[name][0]()
    names = list(linear_layers(model))
    assert quantize_(model, {name: LayerSpec(weights=weights, norm="unnormalised") for name in names}) == names
    return model


@pytest.mark.parametrize("name", EVERY)
def test_every_linear_layer_is_found_and_is_in_a_group(name):
    build, n = EVERY[name]
    model = build()
    assert len(linear_layers(model)) == n == sum(map(len, groups(model).values()))
    if name in HF:  # by looking: no other module multiplies a matrix
        assert n == sum(isinstance(module, nn.Linear) for module in model.modules())


@pytest.mark.parametrize("name", EVERY)
def test_a_converted_model_calls_each_bitlinear_and_trains(name):
    model, called = converted(name).train(), set()
    layers = {name: module for name, module in model.named_modules() if isinstance(module, BitLinear)}
    assert len(layers) == EVERY[name][1]
    for layer_name, layer in layers.items():
        layer.register_forward_hook(lambda *_, layer_name=layer_name: called.add(layer_name))
    before = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loss = F.cross_entropy(models.logits(model, torch.randn(4, 3, 32, 32)), torch.arange(4))
    loss.backward()
    optimizer.step()
    assert called == set(layers)
    assert all(layer.weight.grad.isfinite().all() and layer.weight.grad.any() for layer in layers.values())
    assert not any(layer.weight.equal(before[name]) for name, layer in layers.items())


@pytest.mark.parametrize("name", EVERY)
def test_quantizing_changes_what_a_model_says(name):
    """A layer that is converted and then passed by would leave the output as it was: layer by layer, it must not."""
    build, pixels = EVERY[name][0], torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        plain = models.logits(build().eval(), pixels)
        for layer in linear_layers(build()):
            model = build().eval()
            nn.init.normal_(model.get_submodule(layer).weight)
            loud = models.logits(model, pixels)
            quantize_(model, {layer: LayerSpec(weights="binary", activation_bits=2)})
            assert not models.logits(model, pixels).equal(loud), layer
        assert plain.isfinite().all()


NEED_SKELETON = {"Swin": "computes when it is built", **dict.fromkeys(TORCHVISION, "give its skeleton")}


@pytest.mark.parametrize("weights", ["binary", "int4"])
@pytest.mark.parametrize("name", EVERY)
def test_pack_and_load(name, weights, tmp_path):
    model, pixels, skeleton = converted(name, weights).eval(), torch.randn(3, 3, 32, 32), None
    pack(model, tmp_path)
    if name in NEED_SKELETON:
        with pytest.raises(BadInput, match=NEED_SKELETON[name]):
            load_packed(tmp_path)
        skeleton = EVERY[name][0]()
    loaded = load_packed(tmp_path, skeleton)
    assert sum(isinstance(module, IntegerLinear) for module in loaded.modules()) == EVERY[name][1]
    with torch.inference_mode():
        assert torch.allclose(models.logits(loaded, pixels), models.logits(model, pixels), atol=1e-6)


def test_a_front_of_models_that_need_their_checkpoint_is_timed(tmp_path):
    EVERY["Swin"][0]().save_pretrained(tmp_path / "swin")
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "swin")
    name, classes = str(tmp_path / "swin"), [str(i) for i in range(10)]
    model = models.load(name, classes)
    quantize_(model, {"*encoder*": LayerSpec(weights="binary")})
    pack(model, tmp_path / "packed", preprocess=models.preprocess(name))
    files = {file.name: file.read_bytes() for file in (tmp_path / "packed").iterdir()}
    assert _measure_packed(files, name, classes, {}).median_ms > 0


@pytest.mark.parametrize(
    ("name", "pattern"),
    [("vit_b_16", "*"), ("vit_b_16", "*out_proj"), ("swin_t", "*"), ("swin_t", "*attn.qkv"), ("swin_t", "*.proj")],
)
def test_attention_that_reads_its_weights_by_itself_is_refused(name, pattern):
    model = EVERY[name][0]()
    with pytest.raises(BadInput, match=r"(MultiheadAttention|ShiftedWindowAttention) reads the weights .* would do nothing"):
        quantize_(model, {pattern: LayerSpec(weights="binary")})
    assert not any(isinstance(module, BitLinear) for module in model.modules())


def test_a_layer_that_its_model_never_calls_is_refused_when_it_is_counted():
    """Someone's own attention may do what torch's does."""

    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.project, self.head = nn.Linear(3, 3), nn.Linear(3, 2)

        def forward(self, pixels):
            return self.head(F.linear(pixels.mean((2, 3)), self.project.weight))

    model = Reads()
    quantize_(model, {"head": LayerSpec(weights="binary")})
    assert count(model, (4, 4)).macs == 6
    quantize_(model, {"project": LayerSpec(weights="binary")})
    with pytest.raises(BadInput, match="layer 'project' must be called"):
        count(model, (4, 4))
