"""The model's image processor is followed to rounding, or refused."""

import json
from dataclasses import astuple, replace

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from transformers import AutoImageProcessor

from ablate.config.trial_spec import TrialSpec
from ablate.errors import BadInput
from ablate.models import checkpoints, digests, loading, locating
from ablate.quantization.packed_loading import load_preprocess
from ablate.quantization.packing import pack
from ablate.training.trial import trial_id

EDGE, SQUARE, ODD = {"shortest_edge": 32}, {"height": 32, "width": 32}, {"height": 29, "width": 24}
SIZES = [
    (90, 41),
    (33, 120),
    (50, 50),
    (20, 17),
    (32, 32),
]  # (width, height): wide, tall, square, smaller, as it is


def noise(size):
    width, height = size
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def tensor(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]  # (1, 3, H, W)


def saved(folder, kind, **fields):
    getattr(transformers, f"{kind}ImageProcessor")(**fields).save_pretrained(folder)
    return str(folder)


def check(folder, sizes=SIZES):
    """Every image comes out as the processor makes it, but for one step of its 8 bits."""
    ours, theirs = loading.preprocess(folder), AutoImageProcessor.from_pretrained(folder)
    for size in sizes:
        pixels, expected = (
            ours(tensor(noise(size)))[0],
            theirs(noise(size), return_tensors="pt")["pixel_values"][0],
        )
        assert pixels.shape == expected.shape == (3, *ours.size)
        assert (
            (pixels - expected).abs() * torch.tensor(ours.std)[:, None, None] / ours.scale
        ).max() <= 1.01, size
    return ours


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("ViT", {"size": ODD}),
        ("ViT", {"size": SQUARE, "resample": 0}),
        ("ViT", {"size": SQUARE, "resample": 1}),
        (
            "ViT",
            {"size": SQUARE, "rescale_factor": 1 / 127.5, "image_mean": [1.0, 1.1, 1.2], "image_std": 0.5},
        ),
        ("DeiT", {"size": {"height": 37, "width": 37}, "crop_size": SQUARE}),
        ("Beit", {"size": {"height": 38, "width": 38}, "crop_size": ODD, "do_center_crop": True}),
        ("CLIP", {"size": EDGE, "crop_size": ODD}),
        ("CLIP", {"size": EDGE, "crop_size": {"height": 41, "width": 40}}),
        ("CLIP", {"do_resize": False, "crop_size": ODD}),
        ("Siglip", {"size": SQUARE, "do_normalize": False}),
        ("Bit", {"size": {"shortest_edge": 36}, "crop_size": SQUARE}),
        ("Pvt", {"size": SQUARE}),
        ("Levit", {"size": EDGE, "crop_size": SQUARE}),
        ("Levit", {"size": ODD, "crop_size": SQUARE}),
        ("MobileViT", {"size": {"shortest_edge": 36}, "crop_size": SQUARE}),
        (
            "MobileViT",
            {"size": SQUARE, "crop_size": ODD, "do_flip_channel_order": False, "do_normalize": True},
        ),
        ("ConvNext", {"size": EDGE}),
        ("ConvNext", {"size": {"shortest_edge": 384}, "do_center_crop": True, "crop_size": SQUARE}),
        ("PoolFormer", {"size": EDGE, "crop_size": SQUARE}),
        ("PoolFormer", {"size": ODD, "crop_size": SQUARE, "crop_pct": 0.5}),
        ("MobileNetV1", {"size": {"shortest_edge": 36}, "crop_size": SQUARE}),
        ("MobileNetV2", {"size": {"shortest_edge": 36}, "crop_size": SQUARE}),
        ("EfficientNet", {"size": SQUARE}),
        (
            "EfficientNet",
            {"size": SQUARE, "rescale_offset": True, "rescale_factor": 1 / 127.5, "include_top": False},
        ),
        ("EfficientNet", {"size": SQUARE, "rescale_offset": True, "do_normalize": False, "image_std": 0.5}),
        ("Perceiver", {"size": SQUARE, "crop_size": {"height": 37, "width": 36}}),
        ("Segformer", {"size": ODD}),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_a_known_processor_is_followed(kind, fields, tmp_path):
    check(saved(tmp_path, kind, **fields))


@pytest.mark.parametrize(
    "fields",
    [
        {
            "feature_extractor_type": "ViTFeatureExtractor",
            "size": 32,
            "image_mean": [0.5] * 3,
            "image_std": [0.5] * 3,
        },
        {"feature_extractor_type": "ConvNextFeatureExtractor", "size": 32, "crop_pct": 0.8, "resample": 3},
        {
            "feature_extractor_type": "CLIPFeatureExtractor",
            "size": 36,
            "crop_size": 32,
            "do_center_crop": True,
        },
        {
            "image_processor_type": "ViTImageProcessorFast",
            "size": SQUARE,
            "crop_pct": 0.5,
            "do_flip_channel_order": True,
        },
    ],
    ids=lambda fields: str(next(iter(fields.values()))),
)
def test_an_old_or_odd_file_is_read_as_transformers_reads_it(fields, tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(fields))
    check(str(tmp_path))


@pytest.mark.parametrize(
    ("kind", "fields", "reason"),
    [
        (
            "ViT",
            {"size": {"longest_edge": 40}},
            "a height and a width, or a shortest_edge, but is {'longest_edge': 40}",
        ),
        ("ViT", {"size": SQUARE, "resample": 4}, "its resample must be one of"),
        (
            "ViT",
            {"size": SQUARE, "do_pad": True, "pad_size": {"height": 40, "width": 40}},
            r"shape \(3, 40, 40\)",
        ),
        (
            "CLIP",
            {"size": {"shortest_edge": 32, "longest_edge": 40}, "crop_size": SQUARE},
            "must be followed to 1/255",
        ),
        ("Donut", {"size": SQUARE}, "must be followed to 1/255, but differs by"),
        ("PPLCNet", {"resize_short": 32, "crop_size": 28}, "must be followed to 1/255, but differs by"),
        (
            "TextNet",
            {"size": EDGE, "do_center_crop": True, "crop_size": SQUARE, "size_divisor": 20},
            "must be followed",
        ),
        ("ImageGPT", {"size": SQUARE, "clusters": np.zeros((2, 3))}, "makes no pixel_values"),
        ("Siglip2", {"size": SQUARE}, "makes pixels of shape"),
        ("VideoMAE", {"size": EDGE, "crop_size": SQUARE}, r"makes pixels of shape \(1, 3, 32, 32\)"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_what_cannot_be_followed_is_refused(kind, fields, reason, tmp_path):
    with pytest.raises(
        BadInput, match=f"must have a preprocessor_config.json that can be followed.*{reason}"
    ):
        loading.preprocess(saved(tmp_path, kind, **fields))


@pytest.mark.parametrize(
    "fields", [{"size": EDGE, "do_center_crop": False}, {"size": SQUARE, "do_resize": False}], ids=str
)
def test_without_a_crop_images_must_have_the_models_shape(fields, tmp_path):
    ours = check(saved(tmp_path, "ViT", **fields), sizes=[(32, 32)])
    for size in SIZES[:2]:
        with pytest.raises(
            BadInput, match=f"must bring images to 32 x 32, but not those of {size[0]} x {size[1]}; set"
        ):
            ours(tensor(noise(size)))
        with pytest.raises(BadInput, match="must bring images"):
            ours.of(np.zeros((1, *size[::-1], 3), np.uint8))


def test_digests_count_new_fields_only_where_they_are_set(tmp_path):
    plain = loading.preprocess("vit-micro")
    assert json.dumps(plain.identity) == json.dumps(astuple(plain)[:6])
    assert digests.digest("vit-micro").startswith("5c5bef8e06b5a069")
    assert replace(plain, swapped=True).identity != plain.identity
    assert (
        replace(plain, source=(3, 4), crop=False, at_decoding=True).identity == plain.identity
    )  # refuses, or says what came in


def test_lanczos_runs_on_the_cpu_where_torch_has_it(monkeypatch):
    lanczos = replace(
        loading.preprocess("vit-micro"), interpolation="lanczos", resize=(20, 24), size=(20, 24)
    )
    images = torch.randint(0, 256, (2, 3, 40, 50), dtype=torch.uint8)
    assert lanczos.geometry(images).shape == (2, 3, 20, 24)
    monkeypatch.setattr(torch, "__version__", "2.11.0+cu130")
    with pytest.raises(BadInput, match=r"lanczos needs torch 2\.12, but this is 2\.11\.0\+cu130; upgrade it"):
        lanczos.geometry(images)


def test_new_fields_are_packed_only_where_they_are_set(tiny_vit, tmp_path):
    plain, model = loading.preprocess(str(tiny_vit)), checkpoints.load(str(tiny_vit), ["a", "b"])
    pack(model, tmp_path, preprocess=plain)
    assert set(json.loads((tmp_path / "config.json").read_text())["quantization_config"]["preprocess"]) == {
        *("size", "resize", "interpolation", "scale", "mean", "std")
    }
    other = replace(plain, swapped=True, crop=False, crop_first=(0.9, 0.8), interpolation="nearest-exact")
    pack(model, tmp_path, preprocess=replace(other, at_decoding=True))
    assert load_preprocess(tmp_path) == other


def test_a_model_saved_anew_in_the_same_folder_is_seen(tmp_path):
    """In one process, as in a notebook."""
    config = transformers.ViTConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=16,
        patch_size=8,
    )

    def save(**fields):
        transformers.ViTForImageClassification(config).save_pretrained(tmp_path)
        saved(tmp_path, "ViT", size={"height": 16, "width": 16}, **fields)
        spec = TrialSpec(model=str(tmp_path))
        return loading.preprocess(str(tmp_path)).mean, digests.digest(str(tmp_path)), trial_id(spec)

    torch.manual_seed(0)
    first, then, processed = save(), save(), save(image_mean=[0.1, 0.2, 0.3])
    assert (first[0], then[0], processed[0]) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), (0.1, 0.2, 0.3))
    assert len({first[1], then[1], processed[1]}) == len({first[2], then[2], processed[2]}) == 3


def test_files_of_another_machine_replace_those_given_before(tmp_path):
    one, two = ({"preprocessor_config.json": file.read_bytes()} for file in _processors(tmp_path, 16, 24))
    for files, side in ((one, 16), (one, 16), (two, 24)):
        locating.provide("/elsewhere/model", files)
        assert loading.preprocess("/elsewhere/model").size == (side, side)


def _processors(folder, *sides):
    for side in sides:
        yield folder.joinpath(
            saved(folder / str(side), "ViT", size={"height": side, "width": side}), "preprocessor_config.json"
        )
