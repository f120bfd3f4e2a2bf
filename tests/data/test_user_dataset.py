"""A user's own dataset, named module:name: what it may return, what is refused, and one trial on it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ablate import run_trial
from ablate.cli.main import app
from ablate.config.builtin import absolute_data
from ablate.config.study_spec import load_study
from ablate.config.trial_spec import LayerSpec, Recipe, TrialSpec
from ablate.data import datasets
from ablate.errors import BadInput

WORK = Path(__file__).parent.parent.parent
GUIDE = WORK / "docs" / "guide.md"
MODULE = """
import numpy as np

def images(n, seed, side=32):
    return np.random.default_rng(seed).integers(0, 256, (n, side, side, 3), dtype=np.uint8)

def labels(n):
    return np.arange(n) % 2

def make(train=40, validation=8, test=6):
    splits = {"train": train, "validation": validation, "test": test}
    arrays = {name: (images(n, n), labels(n)) for name, n in splits.items() if n}
    return {"classes": ["cat", "dog"], **arrays}

"""


@pytest.fixture
def user_module(tmp_path, monkeypatch):
    """Writes a module of the user, which makes its arrays by the code; returns the dataset's name."""
    monkeypatch.syspath_prepend(str(tmp_path))
    names = []

    def write(code="def data():\n    return make()\n"):
        names.append(f"user_arrays_{len(names)}")
        (tmp_path / f"{names[-1]}.py").write_text(MODULE + code)
        return f"{names[-1]}:data"

    yield write
    for name in names:
        sys.modules.pop(name, None)
    for key in [key for key in datasets._loaded if key[0].startswith("user_arrays_")]:
        del datasets._loaded[key]


def test_its_arrays_are_the_dataset(user_module):
    name = user_module()
    dataset = datasets.load(name)
    assert dataset.classes == ["cat", "dog"]
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [40, 8, 6]
    module = sys.modules[name.partition(":")[0]]
    for split, n in ((dataset.train, 40), (dataset.validation, 8), (dataset.test, 6)):
        assert split.images.dtype == np.uint8 and split.labels.dtype == np.int64
        assert np.array_equal(split.images, module.images(n, n))
        assert np.array_equal(split.labels, module.labels(n))
    assert datasets.load(name) is dataset  # imported and called once a process


def test_the_digest_is_that_of_the_contents(user_module):
    first, same, other = (
        datasets.load(user_module(f"def data():\n    return {code}\n"))
        for code in ("make()", "{**make(), 'classes': ('a', 'b')}", "make(train=42)")
    )
    assert first.digest == same.digest != other.digest and len(first.digest) == 64


def test_splits_that_are_lacking_are_tenths_of_train_and_copies_stay_together(user_module, logged):
    code = """
def data():
    both = make(validation=0, test=0)
    images, labels = both["train"]
    return {**both, "train": (np.concatenate([images, images[:20]]), np.concatenate([labels, labels[:20]]))}
"""
    dataset = datasets.load(user_module(code))
    splits = [dataset.train, dataset.validation, dataset.test]
    pixels = [{image.tobytes() for image in split.images} for split in splits]
    assert [len(each) for each in pixels] == [32, 4, 4]  # of 20 different images a class
    assert not pixels[0] & pixels[1] and not pixels[0] & pixels[2] and not pixels[1] & pixels[2]
    assert sum(map(len, splits)) == 60
    assert dataset.notes[0] == "no validation and test: a tenth of 'train' is used for each"
    assert "are copies of others in their split" in logged()


def test_a_test_image_that_is_trained_on_is_reported(user_module, logged):
    code = "def data():\n    made = make()\n    return {**made, 'test': made['train']}\n"
    dataset = datasets.load(user_module(code))
    assert "40 of 40 test images are in train, too, as equal pixels" in dataset.notes[0]
    assert "test images are in train" in logged()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("data = 3", "must be a function without arguments, but got 3"),
        ("def data(x):\n    pass", "must be a function that returns arrays, but TypeError: "),
        ("def data():\n    raise OSError('no\\nfile')", "returns arrays, but OSError: no file"),
        ("def data():\n    return [1]", r"must return a dict, but returns \[1\]"),
        (
            "def data():\n    return {**make(), 'val': 0}",
            "unknown key 'val', known: classes, train, validation, test",
        ),
        ("def data():\n    return {}", "must have 'classes'; the dict must have 'train'"),
        (
            "def data():\n    return {**make(), 'classes': 'ab'}",
            "classes: must be a list of names, but got 'ab'",
        ),
        (
            "def data():\n    return {**make(), 'classes': ['a', 1]}",
            "classes: a name must be text .* but got 1",
        ),
        (
            "def data():\n    return {**make(), 'classes': ['a']}",
            r"classes: must be two or more, but got \['a'\]",
        ),
        (
            "def data():\n    return {**make(), 'classes': ['a', 'a']}",
            "names must differ, but 'a' is there twice",
        ),
        (
            "def data():\n    return {**make(), 'train': images(4, 0)}",
            r"train: must be \(images, labels\), but got",
        ),
        (
            "def data():\n    return {**make(), 'test': (images(4, 0).transpose(0, 3, 1, 2), labels(4))}",
            r"test: images must have shape \(N, H, W, 3\), but got \(4, 3, 32, 32\)",
        ),
        (
            "def data():\n    return {**make(), 'train': (images(4, 0) / 255, labels(4))}",
            "train: images must be uint8, 0 to 255, but got float64",
        ),
        (
            "def data():\n    return {**make(), 'train': (images(4, 0), labels(3))}",
            r"labels must have shape \(4,\), one an image, but got \(3,\)",
        ),
        (
            "def data():\n    return {**make(), 'train': (images(4, 0), labels(4) / 1)}",
            "labels must be integers, but got float64",
        ),
        (
            "def data():\n    return {**make(), 'train': (images(4, 0), labels(4) + 1)}",
            "labels must be from 0 to 1, an index of a class, but got 1 to 2",
        ),
        (
            "def data():\n    return {**make(), 'validation': (images(4, 0), labels(4) * 0)}",
            "validation: every class must have an image, but class 1 has none",
        ),
        (
            "def data():\n    return {**make(), 'test': (images(4, 0, 16), labels(4))}",
            "one size, but got train 32 x 32, validation 32 x 32, test 16 x 16",
        ),
        (
            "def data():\n    return make(train=2, test=0)",
            "each class must have an image for each split, 2 in all, but 'cat' has 1",
        ),
        (
            "def data():\n    return {'classes': ['a'], 'train': 0, 'test': 0}",
            "classes: must be two or more.*; train: must be .*; test: must be .*; see 'Your own dataset'",
        ),
    ],
)
def test_what_is_wrong_is_named(user_module, code, message):
    name = user_module(code)
    with pytest.raises(BadInput, match=message) as error:
        datasets.load(name)
    assert name in str(error.value) and "\n" not in str(error.value)


def test_a_module_that_cannot_be_imported_is_named():
    with pytest.raises(
        BadInput, match="dataset 'no_such_module:data' must be importable, but got ModuleNotFound"
    ):
        datasets.load("no_such_module:data")


def test_prefixes_come_before_modules(tmp_path, monkeypatch):
    assert datasets.kind_of("imagefolder:pets").name == "imagefolder:PATH"
    assert datasets.kind_of("cifar10:data").name == datasets.kind_of("my.pets:data").name == "MODULE:NAME"
    at_hand = {"imagefolder:pets": True, "cifar10": True, "hf:/pets": True, "a:b": False, "hf:a": False}
    assert {name: datasets.is_at_hand(name) for name in at_hand} == at_hand
    assert datasets.is_at_hand("nothing") and datasets.kind_of("hf:pets").name == "hf:NAME"
    for name in ("imagefolder:", "my-pets:data", "pets", "pets:", ":data"):
        with pytest.raises(BadInput, match="unknown dataset"):
            datasets.load(name)
    assert absolute_data("my.pets:data", tmp_path) == "my.pets:data"
    assert absolute_data("imagefolder:pets", tmp_path) == f"imagefolder:{tmp_path / 'pets'}"


def test_reading_a_study_imports_nothing(user_module, tmp_path):
    name = user_module("raise AssertionError('imported')")
    (tmp_path / "own.toml").write_text(f'question = "q"\nspace = "layers_bits"\ndata = "{name}"\n')
    assert load_study(str(tmp_path / "own.toml")).data == name
    assert name.partition(":")[0] not in sys.modules


def test_it_is_listed(monkeypatch, capsys):
    app(["data", "ls", "--json"], standalone_mode=False)
    rows = {row["name"]: row["where"] for row in json.loads(capsys.readouterr().out)}
    assert [*rows] == [
        "cifar10-mini",
        "cifar10-1k",
        "cifar10",
        "cifar100",
        "imagefolder:PATH",
        "hf:NAME",
        "MODULE:NAME",
    ]
    assert rows["imagefolder:PATH"] == rows["MODULE:NAME"] == "yours"


@pytest.mark.long
def test_a_trial_runs_on_it(user_module, tiny_vit):
    spec = TrialSpec(
        model=str(tiny_vit),
        data=user_module(),
        layers={"block0.fc1": LayerSpec(weights="binary")},
        recipe=Recipe(epochs=1, batch_size=8, bf16=False),
        test=True,
    )
    record = run_trial(spec)
    assert (record["status"], record["images"]) == ("complete", 40)
    assert 0 <= record["accuracy"] <= 1 and 0 <= record["test_accuracy"] <= 1


def test_the_guides_example_runs(tmp_path, monkeypatch):
    section = GUIDE.read_text().partition("### Your own dataset")[2]
    code = section.partition("```python\n")[2].partition("```")[0]
    (tmp_path / "shapes.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    try:
        dataset = datasets.load("shapes:dataset")
    finally:
        sys.modules.pop("shapes", None)
    assert "ablate study --data shapes:dataset" in section
    assert len(dataset.train) and len(dataset.validation) and len(dataset.test)


@pytest.mark.slow
def test_a_study_on_it_and_what_is_read_of_it_without_the_module(user_module, tiny_study, tmp_path):
    """`rerun` and `resume` import the module; `status`, `report` and `figures` do without it."""
    name = user_module()
    study = tiny_study.replace("trials = 4", f'trials = 2\nconfirm = 1\ndata = "{name}"')
    study = study.replace("fraction = [0.02, 0.04]", "fraction = [0.5, 1.0]")
    (tmp_path / "own.toml").write_text(study)

    def command(*arguments, path=""):
        environment = {**os.environ, "COLUMNS": "200", "PYTHONPATH": path}
        words = [sys.executable, "-m", "ablate", *map(str, arguments)]
        return subprocess.run(words, cwd=WORK, capture_output=True, text=True, env=environment)

    run = tmp_path / "run"
    done = command("study", tmp_path / "own.toml", "--concurrency", 1, "--out", run, path=str(tmp_path))
    assert done.returncode == 0, done.stderr
    digest = json.loads((run / "provenance.json").read_text())["dataset_sha256"]
    assert digest == datasets.load(name).digest
    for verb in ("status", "report", "figures"):
        done = command(verb, run)
        assert done.returncode == 0 and name not in done.stderr, done.stderr
    trial = json.loads((run / "ledger.jsonl").read_text().splitlines()[0])["trial_id"]
    without, with_it = (command("rerun", run, "--trial", trial, path=path) for path in ("", str(tmp_path)))
    assert without.returncode == 2 and f"dataset {name!r} must be importable" in without.stderr
    assert with_it.returncode == 0, with_it.stderr
    resumed = command("resume", run, "--trials", 3, path=str(tmp_path))
    assert resumed.returncode == 0, resumed.stderr
