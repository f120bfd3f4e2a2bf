"""Models of timm: local folders, random ones and names on the hub, counted, trained, packed and loaded."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from ablate import BitLinear, LayerSpec, load_packed, pack, quantize_, recorded_precisions
from ablate.engine.predict import predict
from ablate.errors import BadInput
from ablate.models import checkpoints, digests, loading, timm_models
from ablate.models.layer_groups import groups
from ablate.models.skeletons import from_config
from ablate.profiling.macs import count
from ablate.quantization.packed_size import packed_bytes

timm = pytest.importorskip("timm")
TINY = {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 48}
TEN = [f"class {i}" for i in range(10)]
TERNARY = LayerSpec(weights="ternary")


def tiny(name="vit_tiny_patch16_224", **arguments):
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=10, **{**TINY, **arguments}).eval()


def saved(folder, name="vit_tiny_patch16_224", labels=None, **arguments):
    """A folder as timm writes it, and its model."""
    model = tiny(name, **arguments)
    timm.models.save_for_hf(
        model,
        folder,
        model_args={**TINY, **arguments},
        model_config={"label_names": labels} if labels else None,
        safe_serialization=True,
    )
    return str(folder), model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("timm") / "tiny")


@pytest.fixture
def pixels():
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_a_folder_of_timm_is_loaded_with_its_head_or_a_new_one(folder, pixels, tmp_path):
    name, original = folder
    model, report = checkpoints.load_with_report(name, TEN)
    assert report.head == "kept" and loading.logits(model, pixels).equal(original(pixels))
    assert [*groups(model)] == [
        *(f"block{i}.{role}" for i in range(2) for role in ("attention", "fc1", "fc2")),
        "head",
    ]
    assert groups(model)["block0.attention"] == [f"timm_model.blocks.0.attn.{n}" for n in ("qkv", "proj")]
    assert loading.logits(checkpoints.load(name, ["a", "b"]), pixels).shape == (3, 2)
    labelled, original = saved(tmp_path / "labelled", labels=TEN)
    model, report = checkpoints.load_with_report(labelled, TEN[::-1])
    assert report.head == "permuted"
    torch.testing.assert_close(loading.logits(model, pixels), original(pixels).flip(1))


def test_a_model_of_timm_is_trained_packed_loaded_and_used(folder, pixels, tmp_path):
    model, processing = checkpoints.load(folder[0], TEN), loading.preprocess(folder[0])
    size = packed_bytes(
        model,
        {name: TERNARY for names in groups(model).values() for name in names},
        preprocess=processing,
    )
    assert len(quantize_(model, {"*": TERNARY})) == 9
    F.cross_entropy(loading.logits(model.train(), pixels), torch.arange(3)).backward()
    layers = [module for module in model.modules() if isinstance(module, BitLinear)]
    assert len(layers) == 9 and all(layer.weight.grad.any() for layer in layers)
    assert pack(model.eval(), tmp_path / "packed", preprocess=processing) == size
    loaded = load_packed(tmp_path / "packed")
    with torch.inference_mode():
        assert loading.logits(loaded, pixels).equal(loading.logits(model, pixels))
    Image.new("RGB", (50, 40)).save(tmp_path / "black.png")
    assert predict(tmp_path / "packed", [tmp_path / "black.png"])[0][0] in TEN
    model.save_pretrained(tmp_path / "saved")
    again = type(model).from_pretrained(tmp_path / "saved")
    quantize_(again, recorded_precisions(again))
    assert loading.logits(again.eval(), pixels).equal(loading.logits(model, pixels))


def test_a_random_model_has_timms_own_initialisation():
    name = "timm/test_vit:random"
    model, report = checkpoints.load_with_report(name, TEN, seed=3)
    torch.manual_seed(3)
    original = timm.create_model("test_vit", num_classes=10)
    values = zip(model.state_dict().values(), original.state_dict().values(), strict=True)
    assert report.head == "new" and all(one.equal(other) for one, other in values)
    assert loading.preprocess(name).size == original.pretrained_cfg["input_size"][1:]
    assert digests.digest(name) == digests.digest(name) != digests.digest("timm/test_vit2:random")


def test_a_name_without_a_tag_has_timms_default():
    assert timm_models.hub_name("timm/vit_tiny_patch16_224").startswith("timm/vit_tiny_patch16_224.augreg")
    assert timm_models.hub_name("timm/vit_tiny_patch16_224.of_mine") == "timm/vit_tiny_patch16_224.of_mine"
    with pytest.raises(BadInput, match="did you mean 'vit_tiny_patch16_224'"):
        checkpoints.load("timm/vit_tiny_patch16_22", TEN)
    with pytest.raises(
        BadInput, match="no weights for 'coatnet_0_224' on the hub; give timm/coatnet_0_224:random"
    ):
        checkpoints.load("timm/coatnet_0_224", TEN)


def test_timm_is_named_where_it_is_missing(folder, monkeypatch):
    monkeypatch.setattr(timm_models, "find_spec", lambda name: None)
    for name in ("timm/test_vit", "timm/test_vit:random", folder[0]):
        with pytest.raises(BadInput, match=r"need the extra ablate-vit\[timm\]; pip install timm"):
            checkpoints.load(name, TEN)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"crop_pct": 1.0},
        {"crop_pct": 0.95, "interpolation": "bilinear"},
        {"crop_mode": "squash", "interpolation": "lanczos"},
        {"crop_mode": "squash", "input_size": [3, 32, 48]},
    ],
)
def test_preprocessing_is_timms(fields, folder, tmp_path):
    path = tmp_path / "config.json"
    config = json.loads((loading.Path(folder[0]) / "config.json").read_text())
    config["pretrained_cfg"] |= {"input_size": [3, 61, 61], **fields}
    path.write_text(json.dumps(config))
    (tmp_path / "model.safetensors").symlink_to(loading.Path(folder[0]) / "model.safetensors")
    ours = loading.preprocess(str(tmp_path))
    theirs = timm.data.create_transform(
        **timm.data.resolve_data_config(pretrained_cfg=config["pretrained_cfg"])
    )
    image = np.random.default_rng(1).integers(64, 192, (97, 130, 3), np.uint8)
    expected, got = theirs(Image.fromarray(image)), ours(torch.from_numpy(image).permute(2, 0, 1)[None])[0]
    assert got.shape == expected.shape and (got - expected).abs().max() * ours.std[0] * 255 < 2.01


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"crop_mode": "border"}, "crop_mode must be squash, or center"),
        ({"input_size": [3, 32, 48]}, "crop_mode must be squash, or center and square"),
        ({"input_size": [1, 32, 32], "mean": [0.5], "std": [0.5]}, "must resize 3 channels"),
        ({"interpolation": "hamming"}, "by one of bilinear"),
    ],
)
def test_preprocessing_that_cannot_be_followed_is_refused(fields, match, folder, tmp_path):
    config = json.loads((loading.Path(folder[0]) / "config.json").read_text())
    config["pretrained_cfg"] |= fields
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadInput, match=match):
        loading.preprocess(str(tmp_path))


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "beit_base_patch16_224", "eva02_tiny_patch14_224"])
def test_products_of_attention_are_counted_fused_or_not(name, tmp_path):
    arguments = {"num_heads": 4}
    found = []
    for fused in (True, False):
        timm.layers.set_fused_attn(fused)
        try:
            model = checkpoints.load(saved(tmp_path / str(fused), name, **arguments)[0], TEN)
        finally:
            timm.layers.set_fused_attn(True)
        found.append(count(model, (32, 32)).macs)
        with FlopCounterMode(display=False) as flops, torch.no_grad():
            loading.logits(model, torch.zeros(1, 3, 32, 32))
    assert found[0] == found[1]
    assert found[0] == pytest.approx(flops.get_total_flops() / 2, rel=0.02)  # thop counts norms as well
    assert {"timm_model.blocks.0.attn.qkv", "timm_model.blocks.0.attn.proj"} <= {
        *groups(model)["block0.attention"]
    }


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"architecture": "local-dir:/tmp"}, "unknown model of timm"),
        ({"architecture": "hf-hub:evil/model"}, "unknown model of timm"),
        ({}, "unknown model of timm"),
        ({"architecture": "test_vit", "model_args": {"checkpoint_path": "/tmp/x"}}, "checkpoint_path"),
        (
            {"architecture": "test_vit", "model_args": {"pretrained_cfg": {"file": "/tmp/x"}}},
            "pretrained_cfg",
        ),
        ({"architecture": "test_vit", "model_args": ["x"]}, "model_args must be"),
        ({"architecture": "test_vit", "model_args": {"depth": 10**3}}, "more parameters than"),
        (
            {"architecture": "test_vit", "model_args": {"img_size": [10**9, 1]}},
            "at most 4096, but 'img_size'",
        ),
    ],
)
def test_a_strangers_packed_model_loads_no_files(config, match):
    with pytest.raises(BadInput, match=match):
        from_config("TimmWrapperForImageClassification", "sdpa", {"num_classes": 2, **config}, 100)
