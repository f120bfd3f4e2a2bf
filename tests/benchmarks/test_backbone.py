"""benchmarks/make_backbone.py on an archive of a few images."""

import io
import json
import shutil
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
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
    monkeypatch.setattr(make_backbone, "RECIPE", make_backbone.RECIPE.model_copy(update={"batch_size": 8}))
    return make_backbone


@pytest.fixture
def command(script, archive, monkeypatch):
    """Runs the command; what it exits with."""

    def run(*arguments, data=archive):
        monkeypatch.setattr(
            sys, "argv", ["make_backbone.py", "--data", str(data), "--threads", "1", *map(str, arguments)]
        )
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
    assert command("--epochs", 3, "--weights", "ternary", "--out", whole) == 0
    for epochs in (1, 2):
        assert command("--epochs", 3, "--weights", "ternary", "--minutes", 0, "--out", stopped) == 0
        assert f"stopped after {epochs} of 3 epochs" in capsys.readouterr().out
    assert command("--epochs", 3, "--weights", "ternary", "--out", stopped) == 0
    assert (whole / "model.safetensors").read_bytes() == (stopped / "model.safetensors").read_bytes()
    files = {"config.json", "model.safetensors", "preprocessor_config.json", "training.json"}
    assert {path.name for path in stopped.iterdir()} == files
    before = {path: path.stat().st_mtime_ns for path in stopped.iterdir()}
    capsys.readouterr()
    assert command("--epochs", 3, "--weights", "ternary", "--out", stopped) == 0
    assert "is finished" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in stopped.iterdir()}

    assert command("--evaluate", stopped, "--weights", "ternary") == 0
    assert "4 validation images" in capsys.readouterr().out


def test_the_result_is_a_model_of_ours(command, script, tmp_path):
    out = tmp_path / "out"
    assert command("--epochs", 1, "--out", out) == 0
    saved = load_file(out / "model.safetensors")
    bundled = load_file(ASSETS / "vit-micro" / "model.safetensors")
    assert saved.keys() == bundled.keys()
    for name in saved.keys() - {"classifier.weight", "classifier.bias"}:
        assert (saved[name].dtype, saved[name].shape) == (bundled[name].dtype, bundled[name].shape), name
    assert loading.preprocess(str(out)) == loading.preprocess("vit-micro") == script.PREPROCESS
    model = checkpoints.load(str(out), [str(i) for i in range(10)])
    assert model(torch.zeros(1, 3, 32, 32)).logits.shape == (1, 10)
    own = checkpoints.load(str(out), [*CLASSES.values()])
    assert torch.equal(own.classifier.weight.half(), saved["classifier.weight"])


def test_crops_reflect_and_an_eighth_shares_its_offset(script):
    images = np.tile(np.arange(32 * 32 * 3, dtype=np.uint8).reshape(1, 32, 32, 3), (16, 1, 1, 1))
    got = script.augment(images, np.random.default_rng(0)).permute(0, 2, 3, 1).numpy()
    padded = np.pad(images[0], ((4, 4), (4, 4), (0, 0)), "reflect")
    crops = {(y, x): padded[y : y + 32, x : x + 32] for y in range(9) for x in range(9)}
    offsets = [
        next(
            at
            for at, crop in crops.items()
            if any(np.array_equal(image, each) for each in (crop, crop[:, ::-1]))
        )
        for image in got
    ]
    assert all(offsets[i] == offsets[i + 1] for i in range(0, 16, 2))
    assert len(set(offsets)) > 4


@pytest.mark.long
def test_half_of_the_patches_until_85_percent_of_the_steps(script, archive):
    classes, train, validation = script.read(archive)
    model = script.build(classes, "full")
    seen = {True: [], False: []}  # tokens in training and in evaluation
    model.vit.layers[0].register_forward_pre_hook(
        lambda module, args: seen[module.training].append(args[0].shape[1])
    )
    rows = [after["rows"][-1] for after in script.pretrain(model, train, validation, 7, None)]
    assert seen == {True: 18 * [33] + 3 * [65], False: 7 * [65]}  # 0.85 of 21 steps is 17.85
    assert rows[-1]["loss"] < rows[0]["loss"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--epochs", 0, "--out", "new"], "1 <= epochs must hold, but got 0"),
        (["--minutes", "nan", "--out", "new"], "0 <= minutes must hold, but got nan"),
        (["--out", "."], "--out must be new or of an earlier run"),
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
    assert command("--epochs", 2, "--minutes", 0, "--out", out) == 0
    capsys.readouterr()
    assert command("--epochs", 3, "--out", out) == 2
    assert_one_line(capsys, "--out must be new or begun with --epochs 3 --weights full")
    (out / "checkpoint.pt").write_bytes((out / "checkpoint.pt").read_bytes()[:1000])
    assert command("--epochs", 2, "--out", out) == 2
    assert_one_line(capsys, "--out must be new or of an earlier run")


def assert_one_line(capsys, start):
    error = capsys.readouterr().err
    assert error.startswith(start) and error.count("\n") == 1, error


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch.compile's own
def test_compiled_blocks_learn_as_much(command, tmp_path):
    records, graphs = [], []
    for name, *flags in (("plain",), ("compiled", "--compile")):
        assert command("--epochs", 1, "--weights", "ternary", *flags, "--out", tmp_path / name) == 0
        graphs.append(counters["stats"]["unique_graphs"])
        records.append(json.loads((tmp_path / name / "training.json").read_text()))
    plain, compiled = records
    assert "compile" not in plain["asked"] and compiled["asked"]["compile"] is True
    assert graphs[1] > graphs[0]
    assert compiled["epochs"][0]["loss"] == pytest.approx(plain["epochs"][0]["loss"], rel=0.1)
