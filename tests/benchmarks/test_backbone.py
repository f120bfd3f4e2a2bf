"""benchmarks/make_backbone.py on an archive of a few images."""

import io
import json
import re
import shutil
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from torch._dynamo.utils import counters

from ablate.config.builtin import ASSETS
from ablate.models import checkpoints, loading

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
CLASSES = {"n02": "tabby", "n01": "goldfish"}  # wnids.txt is not in alphabetical order
NAMES = [f"train/{each}/images/{each}_{i}.JPEG" for each in CLASSES for i in range(10)]
NAMES += [f"val/images/val_{i}.JPEG" for i in range(5)]
LEFT_OUT = {
    "train/n01/images/n01_3.JPEG",
    "train/n02/images/n02_0.JPEG",
    "train/n02/images/n02_9.JPEG",
    "val/images/val_1.JPEG",
}
TRAIN, VALIDATION = 17, 4  # images that remain
SMALL = ["--width", 64, "--depth", 2]


def pixels(name):
    """Plain, of a grey that only this image has: JPEG keeps it."""
    return np.full((32, 32, 3), 10 * NAMES.index(name), np.uint8)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A folder with the archive and the list, which also names an image that is not there."""
    folder = tmp_path_factory.mktemp("tiny-imagenet")
    annotations = "".join(f"val_{i}.JPEG\t{[*CLASSES][i % 2]}\t0\t0\t31\t31\n" for i in range(5))
    words = "".join(f"{key}\t{name}, another name\n" for key, name in CLASSES.items())
    files = {
        "train/n01/n01_boxes.txt": b"",
        "wnids.txt": "\n".join(CLASSES).encode(),
        "words.txt": words.encode(),
    }
    for name in NAMES:
        jpeg = io.BytesIO()
        Image.fromarray(pixels(name)).save(jpeg, "JPEG", quality=95)
        files[name] = jpeg.getvalue()
    files["val/val_annotations.txt"] = annotations.encode()
    with tarfile.open(folder / "tiny_imagenet32_train_val_jpeg.tar.xz", "w:xz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    (folder / "tiny_imagenet32_near_duplicates_of_cifar10.txt").write_text(
        "\n".join([*LEFT_OUT, "test/images/test_1.JPEG"])
    )
    return folder


@pytest.fixture
def script(monkeypatch):
    """The script's module, content with a few images."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    import make_backbone
    import tiny_imagenet

    monkeypatch.setattr(tiny_imagenet, "COUNTS", (TRAIN, VALIDATION))
    return make_backbone


@pytest.fixture
def command(script, archive, monkeypatch):
    """Runs the command; what it exits with."""

    def run(*arguments, data=archive):
        fixed = ["--data", str(data), "--threads", "1", "--batch", "8", "--no-compile"]
        monkeypatch.setattr(sys, "argv", ["make_backbone.py", *fixed, *map(str, arguments)])
        try:
            script.main()
        except SystemExit as ended:
            return ended.code
        return 0

    return run


def test_the_listed_images_are_left_out(script, archive):
    classes, train, validation = script.read(archive)
    assert classes == ["tabby", "goldfish"]
    kept = [name for name in NAMES if name not in LEFT_OUT]
    for split, names in ((train, kept[:TRAIN]), (validation, kept[TRAIN:])):
        wanted = np.stack([pixels(name) for name in names]).astype(int)
        assert split.images.shape == wanted.shape and np.abs(split.images - wanted).max() <= 2
    assert train.labels.tolist() == [0] * 8 + [1] * 9
    assert validation.labels.tolist() == [0, 0, 1, 0]


@pytest.mark.long
def test_stopped_and_gone_on_is_the_same_to_the_bit(command, tmp_path, capsys):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    asked = ["--passes", 3, *SMALL, "--weights", "ternary", "--out"]
    assert command(*asked, whole) == 0
    for passes in (1, 2):
        assert command(*asked, stopped, "--minutes", 0) == 0
        assert f"stopped after {passes} of 3 passes" in capsys.readouterr().out
    assert command(*asked, stopped) == 0
    assert (whole / "model.safetensors").read_bytes() == (stopped / "model.safetensors").read_bytes()
    records = [json.loads((out / "training.json").read_text()) for out in (whole, stopped)]
    assert all(records[0][name] == records[1][name] for name in ("asked", "top1", "top1_last"))
    files = {"config.json", "model.safetensors", "preprocessor_config.json", "training.json"}
    assert {path.name for path in stopped.iterdir()} == files
    before = {path: path.stat().st_mtime_ns for path in stopped.iterdir()}
    capsys.readouterr()
    assert command(*asked, stopped) == 0
    assert "is finished" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in stopped.iterdir()}

    assert command("--evaluate", stopped, "--weights", "ternary") == 0
    assert "4 validation images" in capsys.readouterr().out


@pytest.mark.long
def test_the_result_is_a_model_like_the_bundled_one(command, script, tmp_path, capsys):
    out = tmp_path / "out"
    assert command("--passes", 1, "--out", out) == 0
    assert re.search(
        r"pass 1 of 1: loss \S+, [\d,]+ images a second, 0 min 00 s left", capsys.readouterr().out
    )
    saved, bundled = (load_file(folder / "model.safetensors") for folder in (out, ASSETS / "vit-micro"))
    assert saved.keys() == bundled.keys()
    for name in saved.keys() - {"classifier.weight", "classifier.bias"}:
        assert (saved[name].dtype, saved[name].shape) == (bundled[name].dtype, bundled[name].shape), name
    configs = (json.loads((folder / "config.json").read_text()) for folder in (out, ASSETS / "vit-micro"))
    ours, theirs = (
        {
            key: value
            for key, value in config.items()
            if key not in ("id2label", "label2id", "transformers_version")
        }
        for config in configs
    )
    assert ours == ours | theirs  # a later transformers may write more
    assert loading.preprocess(str(out)) == loading.preprocess("vit-micro") == script.PREPROCESS
    own = checkpoints.load(str(out), [*CLASSES.values()])
    assert torch.equal(own.classifier.weight.half(), saved["classifier.weight"])


def test_stochastic_depth_grows_and_is_off_in_evaluation(script, monkeypatch):
    settings = script.Settings(width=64, depth=5)
    model = script.build(["cat", "dog"], settings, False)
    assert [block.dropout.p for block in model.vit.layers] == pytest.approx([0, 0.0125, 0.025, 0.0375, 0.05])
    pixels, outputs = torch.randn(4, 3, 32, 32), []
    for block, p in zip(model.vit.layers, (0, 0, 0, 0, 1), strict=True):
        block.dropout.p = p
    for training in (False, True):
        model.train(training)
        outputs += [model(pixels).logits]
    model.vit.layers = model.vit.layers[:4]
    assert torch.equal(outputs[1], model(pixels).logits)  # the last block drops both of its branches
    assert not torch.allclose(outputs[0], outputs[1])


def test_matrices_alone_decay(script):
    from pretraining import optimizer_of

    settings = script.Settings(width=64, depth=1)
    model = script.build(["cat", "dog"], settings, False)
    decay = {
        id(parameter): group["weight_decay"]
        for group in optimizer_of(model, settings).param_groups
        for parameter in group["params"]
    }
    decayed = {name for name, parameter in model.named_parameters() if decay[id(parameter)]}
    linear = {
        f"{name}.weight" for name, each in model.named_modules() if isinstance(each, nn.Linear | nn.Conv2d)
    }
    assert decayed == linear and len(linear) == 8


def test_the_rate_warms_up_and_follows_a_cosine(script):
    from pretraining import rate

    shares = (0, 0.025, 0.05, 0.525, 1)
    assert [rate(share) for share in shares] == pytest.approx([0, 0.5, 1, 0.5005, 0.001])


def test_smaller_shares_of_the_images_are_nested(script, archive):
    classes, images, _ = script.read(archive)
    kept = []
    for share, seed in ((0.25, 0), (0.5, 0), (0.5, 1)):
        settings = script.Settings(width=64, depth=1, batch=2, images=share, seed=seed)
        training = script.Pretraining(script.build(classes, settings, False), images, settings)
        kept.append({*training.pixels[:, 0, 0, 0].tolist()})  # a grey for each image
    assert [*map(len, kept)] == [4, 8, 8]
    assert kept[0] < kept[1] != kept[2]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--passes", 0, "--rate", "nan", "--out", "new"], "passes: .* but got 0; rate: .* but got nan"),
        (["--minutes", "nan", "--images", 1.1, "--out", "new"], "images: .* 1.1; minutes: .* but got nan"),
        (
            ["--width", 100, "--weights", "int9", "--out", "new"],
            "weights: .* 'int9'; width: .* multiple of 64",
        ),
        (
            ["--batch", 18, "--out", "new"],
            "batch must be at most the number of training images, 17, but got 18",
        ),
        (["--out", "."], "--out must be new or of an earlier run"),
        (["--out", "mine.txt/new"], "--out must be a folder that can be made"),
        (["--evaluate", "nowhere"], "--evaluate must be a model for the 2 classes"),
    ],
)
def test_bad_input(command, tmp_path, monkeypatch, capsys, arguments, reason):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.txt").write_text("")
    assert command(*arguments) == 2
    assert_one_line(capsys, reason)


def test_bad_data(command, archive, tmp_path, capsys):
    data, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(archive, data)
    (listed := next(data.glob("*.txt"))).write_text("")
    assert command("--out", out, data=data) == 2
    assert_one_line(
        capsys, "without the listed images, 17 must remain for training and 4 for validation, but 20 and 5 do"
    )
    (packed := next(data.glob("*.xz"))).write_bytes(packed.read_bytes()[: packed.stat().st_size // 2])
    assert command("--out", out, data=data) == 2
    assert_one_line(capsys, f"{packed.name} must be an archive of JPEGs, but cannot be read")
    for gone in (packed, listed):
        gone.unlink()
        assert command("--out", out, data=data) == 2
        assert_one_line(
            capsys, f"--data must hold {packed.name} and {listed.name}, but there is no '{packed}'"
        )
    assert not out.exists()


def test_a_folder_of_another_run_is_left_alone(command, tmp_path, capsys):
    out = tmp_path / "out"
    assert command("--passes", 2, *SMALL, "--minutes", 0, "--out", out) == 0
    capsys.readouterr()
    assert command("--passes", 3, *SMALL, "--out", out) == 2
    assert_one_line(capsys, "--out must be new or begun with passes 3, but .* with passes 2; give another")
    (out / "checkpoint.pt").write_bytes((out / "checkpoint.pt").read_bytes()[:1000])
    assert command("--passes", 2, *SMALL, "--out", out) == 2
    assert_one_line(capsys, "--out must be new or of an earlier run")


def test_a_loss_that_is_not_finite_ends_the_training(command, tmp_path, capsys):
    out = tmp_path / "out"
    assert command("--passes", 3, *SMALL, "--rate", 1e30, "--out", out) == 1
    assert_one_line(capsys, "training loss is not finite at step . of 6; give a lower --rate")


def assert_one_line(capsys, start):
    error = capsys.readouterr().err
    assert re.search(start, error) and error.count("\n") == 1, error


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch.compile's own
def test_compiled_it_learns_as_much(command, tmp_path):
    torch.compiler.reset()
    counters.clear()
    losses = []
    for flag in ("--no-compile", "--compile"):
        out = tmp_path / flag
        assert command("--passes", 2, *SMALL, "--weights", "ternary", flag, "--out", out) == 0
        losses.append(json.loads((out / "training.json").read_text())["passes"][0]["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=0.01)
    assert counters["stats"]["unique_graphs"] == 2 and not counters["graph_break"]  # augmentation and model
