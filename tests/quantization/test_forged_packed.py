"""Packed models with other contents and the right checksum: nothing but what `pack` writes is loaded."""

from importlib.metadata import version

import pytest
import torch
from forgery import forge, fuzz, header_of, intact, refused
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import ViTForImageClassification

from ablate import load_packed
from ablate.errors import BadInput


@pytest.fixture(scope="module")
def good(tiny_vit, tmp_path_factory):
    return intact(tiny_vit, tmp_path_factory.mktemp("good"))


def test_a_forgery_without_a_fault_is_the_model(good, tmp_path):
    for name, content in forge(good).items():
        assert content == good[name]


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.long
@fuzz
@given(
    key=st.sampled_from(["format", "dtype", "layers", "preprocess", "more"]),
    outer=st.sampled_from(["architectures", "attn_implementation", "dtype", "auto_map", "_more"]),
    value=anything,
)
def test_hostile_fields_are_refused(good, tmp_path, key, outer, value):
    if (key, value) != ("preprocess", None):
        refused(tmp_path, forge(good, {key: value}))
    refused(tmp_path, forge(good, config={outer: value}))


@pytest.mark.long
@fuzz
@given(value=anything, data=st.data())
def test_a_hostile_configuration_is_refused_or_is_the_same_model(good, tmp_path, value, data):
    model = header_of(good)["model"]
    key = data.draw(
        st.sampled_from(
            [*model["config"], "auto_map", "_attn_implementation", "num_channels", "num_attention_heads"]
        )
    )
    model["config"][key] = value
    for name, content in forge(good, {"model": model}).items():
        (tmp_path / name).write_bytes(content)
    try:
        loaded = load_packed(tmp_path)
    except BadInput:
        return
    assert isinstance(loaded, ViTForImageClassification) and not any(p.is_meta for p in loaded.parameters())


@pytest.mark.parametrize(
    ("name", "config", "match"),
    [
        ("ViTModel", {}, "must be an image classifier"),
        ("os.system", {}, "must be an image classifier"),
        ("ViTForImageClassification", {"num_labels": 10**10}, "num_labels must be at most 65536"),
        ("ViTForImageClassification", {"num_labels": True}, "num_labels must be at most 65536"),
        (
            "CLIPForImageClassification",
            {"vision_config": {"num_labels": 10**10}},
            "num_labels must be at most 65536",
        ),
        (
            "CLIPForImageClassification",
            {"vision_config": {"_attn_implementation": "kernels/evil"}},
            "must not hold '_attn_impl",
        ),
        ("CLIPForImageClassification", {"text_config": [{"auto_map": {}}]}, "must not hold 'auto_map'"),
        (
            "SwinForImageClassification",
            {"window_size": 2**7, "depths": [1], "num_heads": [1], "image_size": 2**10},
            "its buffers must take at most",
        ),
        ("ViTForImageClassification", {"auto_map": {"AutoModel": "evil/model"}}, "must not hold 'auto_map'"),
        ("ViTForImageClassification", {"num_hidden_layers": 10**9}, "more parameters than"),
        ("ViTForImageClassification", {"hidden_size": 10**30}, "cannot build|must be"),
        ("ViTForImageClassification", {"image_size": 10**7}, "must be"),
        ("ViTForImageClassification", {"image_size": -16}, "image_size must be at least 1, but got -16"),
        (
            "SwinForImageClassification",
            {"patch_size": [4, 0]},
            r"patch_size must be at least 1, but got \[4, 0\]",
        ),
    ],
)
def test_hostile_models_are_refused(name, config, match, good, tmp_path):
    """No inner configuration, and nothing computed when a model is built, loads code or fills memory."""
    model = header_of(good)["model"]
    own = model["config"] if name.startswith("ViT") else {"id2label": model["config"]["id2label"]}
    model |= {"name": name, "config": own | config}
    refused(tmp_path, forge(good, {"model": model}), match)


def test_what_a_newer_version_packed_is_called_that(good, tmp_path):
    newer = "written by a newer version of ablate: format 3, and this version reads 2; upgrade ablate"
    refused(tmp_path, forge(good, {"format": 3}), newer)
    refused(tmp_path, forge(good, {"format": 0}), "format must be 2, but got 0")
    refused(tmp_path, forge(good, {"later": 3}), "unknown key 'later'.* as it was packed, .*upgrade ablate$")


def test_both_versions_of_transformers_are_named_where_names_do_not_fit(good, tmp_path):
    model = header_of(good)["model"]
    model["config"]["transformers_version"] = "5.0.0"
    layers = {"vit.gone": header_of(good)["layers"]["vit.layers.0.mlp.fc1"]}
    said = f"'vit.gone' is none; packed with transformers 5.0.0, and this is {version('transformers')}: load"
    refused(tmp_path, forge(good, {"model": model, "layers": layers}), said)


@pytest.mark.long
def test_tensors_must_be_those_of_the_model(good, tmp_path):
    whole = {name: value.clone() for name, value in read_good(good, tmp_path).items()}
    layer = "vit.layers.0.attention.q_proj"
    for name, value in whole.items():
        refused(tmp_path, forge(good, tensors={k: v for k, v in whole.items() if k != name}), "must be")
        refused(
            tmp_path,
            forge(good, tensors=whole | {name: torch.cat([value.flatten(), value.flatten()[:1]])}),
            "must be",
        )
        refused(tmp_path, forge(good, tensors=whole | {name: value.double()}), "must be")
    refused(tmp_path, forge(good, tensors=whole | {"more": torch.ones(1)}), "'more' must be absent")
    for beta in (torch.nan, torch.inf):
        refused(
            tmp_path,
            forge(good, tensors=whole | {f"{layer}.beta": torch.tensor([beta])}),
            "beta must be finite",
        )
    layers = header_of(good)["layers"]
    per_channel = layers | {layer: layers[layer] | {"beta_per": "channel"}}
    refused(tmp_path, forge(good, {"layers": per_channel}), "q_proj.beta' must be")
    undecided = layers | {layer: layers[layer] | {"norm": "unnormalised"}}
    refused(tmp_path, forge(good, {"layers": undecided}), "norm")
    missing = header_of(good)["layers"]
    refused(
        tmp_path,
        forge(good, {"layers": missing | {"vit.layers.9.fc": missing[layer]}}),
        "must be linear layers",
    )
    refused(
        tmp_path, forge(good, {"layers": missing | {layer: {"weights": "full"}}}), "must be linear layers"
    )


def read_good(good, folder):
    (folder / "model.safetensors").write_bytes(good["model.safetensors"])
    return load_file(folder / "model.safetensors")
