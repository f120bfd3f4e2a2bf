"""Models that earlier versions packed: packed.json and tensors called NAME.packed (format 1)."""

import json

import pytest
import torch
from forgery import header_of, intact, spelled
from safetensors.torch import load, save

from ablate import load_packed, pack
from ablate.models import loading
from ablate.quantization.packed_files import files, read
from ablate.quantization.packed_header import sha256
from ablate.quantization.packed_loading import load_preprocess


@pytest.fixture
def old(tiny_vit, tmp_path):
    """A folder as earlier versions wrote it, and one of the same model as it is written now."""
    good = intact(tiny_vit, tmp_path / "new")
    header = header_of(good) | {"format": 1}
    del header["sha256"]
    tensors = load(good["model.safetensors"])
    body = save({_older(name, header["layers"]): value for name, value in tensors.items()})
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "packed.json").write_bytes(spelled(header | {"sha256": sha256(header, body)}))
    (tmp_path / "old" / "model.safetensors").write_bytes(body)
    return tmp_path / "old", tmp_path / "new"


def _older(name, layers):
    layer, _, part = name.rpartition(".")
    return f"{layer}.packed" if layer in layers and part == "weight" else name


def test_a_folder_of_format_1_is_the_same_model(old, tmp_path):
    pixels = torch.randn(2, 3, 32, 32)
    one, other = map(load_packed, old)
    assert loading.logits(one, pixels).equal(loading.logits(other, pixels))
    assert load_preprocess(old[0]) == load_preprocess(old[1])
    assert json.loads((old[0] / "packed.json").read_bytes())["format"] == read(old[0])[0].format == 1
    before = {file.name: file.read_bytes() for file in old[0].iterdir()}
    one.save_pretrained(tmp_path / "converted")
    for file in files(tmp_path / "converted"):
        assert file.read_bytes() == (old[1] / file.name).read_bytes()
    pack(one, old[0], preprocess=load_preprocess(old[1]))  # in its place
    assert {*before} == {"packed.json", "model.safetensors"}
    assert {file.name for file in old[0].iterdir()} == {"config.json", "model.safetensors"}
    assert loading.logits(load_packed(old[0]), pixels).equal(loading.logits(other, pixels))
