"""Datasets that the package `datasets` reads: of a hub on loopback, of save_to_disk, and in Parquet."""

import hashlib
import io
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import run_ablate
from PIL import Image

from ablate import run_trial
from ablate.config.builtin import absolute_data
from ablate.config.trial_spec import LayerSpec, Recipe, TrialSpec
from ablate.data import datasets, hub_tables
from ablate.errors import BadInput
from ablate.training.trial import load_data

hf = pytest.importorskip("datasets")
hf.disable_progress_bars()
TESTS = Path(__file__).parent.parent
NAMES = ["ant", "bee", "cow"]


@pytest.fixture(autouse=True)
def own_hub_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(hf.config, "HF_DATASETS_CACHE", tmp_path / "hub_cache")


def pixels(n, seed, side=40):
    return np.random.default_rng(seed).integers(0, 256, (n, side, side, 3), np.uint8)


def png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    return file.getvalue()


def table(images, labels, label=None, image=None, **more):
    """A table of arrays, or of the bytes of files."""
    files = [each if isinstance(each, bytes) else png(each) for each in images]
    features = {"img": image or hf.Image(), "label": label or hf.ClassLabel(names=NAMES)}
    rows = {"img": [{"bytes": file, "path": None} for file in files] if image is None else files}
    features |= {key: feature for key, (feature, _) in more.items()}
    columns = rows | {"label": labels} | {key: values for key, (_, values) in more.items()}
    return hf.Dataset.from_dict(columns, features=hf.Features(features))


def saved(path, **tables):
    hf.DatasetDict(tables).save_to_disk(str(path))
    return f"hf:{path}"


@pytest.fixture
def insects(tmp_path):
    """60 images to train on and 15 to test, saved in each way."""
    train, test = table(pixels(60, 0), [*range(3)] * 20), table(pixels(15, 1), [*range(3)] * 5)
    saved(tmp_path / "saved", train=train, test=test)
    (tmp_path / "parquet").mkdir()
    for split, each in (("train", train), ("test", test)):
        each.to_parquet(tmp_path / "parquet" / f"{split}.parquet")
    train.save_to_disk(str(tmp_path / "one"))
    return tmp_path


def test_each_way_to_keep_a_dataset(insects, logged):
    found = datasets.load(f"hf:{insects}/saved")
    assert found.classes == NAMES and np.array_equal(found.test.images, pixels(15, 1))
    assert found.test.labels.tolist() == [*range(3)] * 5
    assert "no validation: a tenth of 'train' each" in logged()
    assert datasets.load(f"hf:{insects}/parquet").digest == found.digest
    alone = datasets.load(f"hf:{insects}/one")
    assert [len(split) for split in (alone.train, alone.validation, alone.test)] == [48, 6, 6]
    assert datasets.load(f"hf:{insects}/parquet/train.parquet").digest == alone.digest


def test_splits_are_made_by_the_hash_of_each_row(insects):
    found = datasets.load(f"hf:{insects}/one")
    ranked = sorted(range(2, 60, 3), key=lambda row: hashlib.sha256(f"train/{row:08}".encode()).hexdigest())
    cows = [found.test.images[found.test.labels == 2], found.validation.images[found.validation.labels == 2]]
    assert np.array_equal(np.concatenate(cows), pixels(60, 0)[sorted(ranked[:2]) + sorted(ranked[2:4])])


def test_it_is_what_an_image_folder_of_the_same_files_is(tiny_vit, tmp_path, logged):
    sizes = [(50, 40), (32, 64), (20, 27)] * 8  # smaller, larger, turned: all that depends on a size
    images = [pixels(1, i, max(size))[0][: size[1], : size[0]] for i, size in enumerate(sizes)]
    images[3:6] = images[:3]  # copies
    labels = [i // 3 % 2 for i in range(24)]
    labels[3:6] = labels[:3]
    for split, rows in (("train", range(12)), ("val", range(12, 18)), ("test", range(18, 24))):
        for i in rows:
            path = tmp_path / "folder" / split / NAMES[labels[i]] / f"{i:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(images[i]))
    train, validation, test = (
        table(images[a:b], labels[a:b], hf.ClassLabel(names=NAMES[:2]))
        for a, b in ((0, 12), (12, 18), (18, 24))
    )
    name = saved(tmp_path / "saved", train=train, valid=validation, test=test)
    for options in ("", "?size=24"):
        folder, found = (
            load_data(each + options, str(tiny_vit)) for each in (f"imagefolder:{tmp_path / 'folder'}", name)
        )
        for split in ("train", "validation", "test"):
            one, other = getattr(folder, split), getattr(found, split)
            order = np.argsort(other.labels, kind="stable")  # a folder's are class by class
            assert np.array_equal(one.images, other.images[order])
        by_file = load_data(f"hf:{tmp_path / 'folder'}{options}", str(tiny_vit))  # whose rows hold paths
        assert by_file.digest == folder.digest
        assert (folder.at_decoding, folder.covered) == (found.at_decoding, found.covered)
        assert folder.digest_of_b == found.digest_of_b and folder.mirrored == found.mirrored
    assert "3 images are copies of others in their split, as equal pixels ('train/00000003'" in logged()


def test_columns_are_found_or_named(tmp_path):
    labels = [*range(3)] * 10
    name = saved(
        tmp_path / "a",
        train=table(
            pixels(30, 0), labels, coarse=(hf.ClassLabel(names=["x", "y"]), [i % 2 for i in range(30)])
        ),
    )
    with pytest.raises(BadInput, match=r"one column must hold the labels, .* give \?label=label"):
        datasets.load(name)
    assert datasets.load(f"{name}?label=coarse").classes == ["x", "y"]
    assert datasets.load(f"{name}?label=label&image=img&size=16").train.images.shape == (24, 16, 16, 3)
    words = [["wasp", "ant", "bee"][i] for i in labels]
    plain = saved(
        tmp_path / "b",
        train=table(
            pixels(30, 0), words, hf.Value("string"), hf.Value("binary"), path=(hf.Value("string"), words)
        ),
    )
    found = datasets.load(plain)
    assert found.classes == ["ant", "bee", "wasp"] and np.bincount(found.train.labels).tolist() == [8] * 3
    numbers = saved(
        tmp_path / "c", train=table(pixels(30, 0), [10 * i + 2 for i in labels], hf.Value("int64"))
    )
    assert datasets.load(numbers).classes == ["2", "12", "22"]


def test_splits_are_named_where_their_names_say_nothing(tmp_path):
    one = table(pixels(30, 0), [*range(3)] * 10)
    name = saved(tmp_path / "a", train=one, extra=table(pixels(30, 1), [*range(3)] * 10))
    with pytest.raises(
        BadInput, match=r"no other splits where .* this one has 'train', 'extra'; name those to use"
    ):
        datasets.load(name)
    found = datasets.load(f"{name}?test=extra")
    assert [len(split) for split in (found.train, found.validation, found.test)] == [27, 3, 30]
    both = saved(tmp_path / "b", train=one, val=one, dev=one)
    with pytest.raises(
        BadInput, match=r"'val' and 'dev' are for validation; name the one to use, as in \?vali"
    ):
        datasets.load(both)
    assert len(datasets.load(f"{both}?validation=dev").validation) == 30


def test_labels_that_are_hidden_and_classes_without_images(tmp_path, logged):
    train, hidden = table(pixels(40, 0), [0, 2] * 20), table(pixels(4, 1), [-1] * 4)
    found = datasets.load(saved(tmp_path / "a", train=train, test=hidden))
    assert found.classes == ["ant", "cow"] and len(found.test) == 4 and {*found.test.labels} == {0, 1}
    written = logged()
    assert "test was left out, as its labels are hidden" in written
    assert "1 classes have no image and were left out ('bee')" in written
    with pytest.raises(
        BadInput, match="every image must have a label, but 4 of 44 of train have none, the first in row 40"
    ):
        datasets.load(saved(tmp_path / "b", train=hf.concatenate_datasets([train, hidden])))
    with pytest.raises(BadInput, match="every split must have every class, but test has no 'cow'"):
        datasets.load(saved(tmp_path / "c", train=train, test=table(pixels(2, 1), [0, 0])))


def test_broken_images_are_named(tmp_path):
    files = [png(image) for image in pixels(30, 0)]
    whole, files[7], files[9] = files[7], b"no image", b""
    with pytest.raises(BadInput, match=r"2 of 30 can't: 'train/00000007' \(no image\), 'train/00000009' \("):
        datasets.load(saved(tmp_path / "a", train=table(files, [*range(3)] * 10)))
    files[7], files[9] = whole[:900], whole
    with pytest.raises(BadInput, match=r"1 of 30 can't: 'train/00000007' \(.*truncated"):
        datasets.load(saved(tmp_path / "b", train=table(files, [*range(3)] * 10)))
    null = hf.Features({"img": hf.Image(), "label": hf.ClassLabel(names=NAMES)})
    rows = {"img": [None, *files[1:]], "label": [*range(3)] * 10}
    with pytest.raises(BadInput, match=r"1 of 30 can't: 'train/00000000' \(null\)"):
        datasets.load(saved(tmp_path / "c", train=hf.Dataset.from_dict(rows, features=null)))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hf:", "unknown dataset 'hf:'"),
        ("hf:/no/where", "must be a folder or a .parquet file, but '/no/where' does not exist"),
        ("hf:{}/notes.txt", "must be a folder or a .parquet file, but .* is neither"),
        ("hf:{}/broken.parquet", "that the package datasets loads, but: .*; see 'Your images'"),
        ("hf:{}/empty", "that the package datasets loads, but: .*any data files"),
        ("hf:{}/one?sise=64", "unknown option of hf: 'sise'; did you mean 'size'"),
        ("hf:{}/one?64", r"options must be written \?key=value&key=value, each once, but got '\?64'"),
        ("hf:{}/one?size=8&size=9", "each once, but got '.size=8&size=9'"),
        ("hf:{}/one?size=big", "size must be a whole number of pixels, but got .size=big"),
        ("hf:{}/one?size=7", "8 <= size <= 4096 must hold"),
        ("hf:{}/one?image=label", "one column must hold the images, as .*; give .image=img"),
        ("hf:{}/one?label=lable", "unknown column 'lable'; did you mean 'label'"),
        ("hf:{}/saved?test=tset", "unknown split 'tset'; did you mean 'test'"),
        ("hf:{}/saved?train=train&test=train", "splits must differ, but got train=train, test=train"),
        (
            "hf:{}/floats",
            r"the labels, as classes, texts or whole numbers, but .*, label \(float32\); save it",
        ),
        ("hf:{}/hollow", "every split must have images, but one in .*hollow' has none; save"),
        ("hf:beans:", "must have a name or a path"),
    ],
)
def test_what_is_refused(insects, name, message):
    (insects / "notes.txt").write_text("")
    (insects / "broken.parquet").write_bytes(b"PAR1")
    (insects / "empty").mkdir()
    rows = table(pixels(6, 0), [0.0, 1.0, 2.0] * 2, label=hf.Value("float32"))
    saved(insects / "floats", train=rows)
    saved(insects / "hollow", train=rows, test=rows.select([]))
    with pytest.raises(BadInput, match=message) as error:
        datasets.load(name.format(insects))
    assert "\n" not in str(error.value) and len(str(error.value)) < 800


def test_paths_become_absolute_and_files_that_change_are_read_again(insects, monkeypatch):
    monkeypatch.chdir(insects)
    assert absolute_data("hf:one?size=64", Path()) == f"hf:{insects}/one?size=64"
    assert (
        absolute_data("hf:user/one", insects) == "hf:user/one"
        and absolute_data("hf:two", insects) == "hf:two"
    )
    assert absolute_data("hf:./two", insects) == f"hf:{insects}/two"
    before = datasets.load("hf:one")
    assert datasets.load("hf:one") is before
    table(pixels(60, 9), [*range(3)] * 20).save_to_disk(str(insects / "one"))
    assert datasets.load("hf:one").digest != before.digest


def test_a_hub_that_is_silent_is_refused(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:  # connects, and never answers
        monkeypatch.setattr(hf.config, "HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr(hub_tables, "CONNECT_S", 0.2)
        with pytest.raises(
            BadInput, match=r"not in the cache, and the hub does not answer: .*timed out; try again"
        ):
            datasets.load("hf:ants/bees")
    monkeypatch.setattr(hf.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(BadInput, match="not in the cache, and HF_HUB_OFFLINE is set"):
        datasets.load("hf:ants/bees")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(BadInput, match=r"need the extra ablate-vit\[hub\]; pip install datasets"):
        datasets.load("hf:ants/bees")


@pytest.mark.long
def test_a_dataset_of_the_hub_is_downloaded_once(insects):
    code = """
import json, sys
from pathlib import Path
from dataset_hub import hub
import os
files = {f"data/{path.name}": path.read_bytes() for path in Path(sys.argv[1]).iterdir()}
with hub("ants/bees", files) as os.environ["HF_ENDPOINT"]:
    from ablate.data import datasets
    from ablate.errors import BadInput
    found = [datasets.load("hf:ants/bees").digest]
    for name in ("hf:ants/none", "hf:ants/bees:other"):
        try:
            datasets.load(name)
        except BadInput as error:
            found.append(str(error))
datasets._loaded.clear()
print(json.dumps([*found, datasets.load("hf:ants/bees:default").digest]))
"""
    environment = os.environ | {"HF_HOME": str(insects / "home"), "PYTHONPATH": f"{TESTS}:{TESTS.parent}"}
    environment |= {"HF_HUB_DISABLE_TELEMETRY": "1"}
    run = subprocess.run(
        [sys.executable, "-c", code, str(insects / "parquet")],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    online, missing, other, offline = json.loads(run.stdout)
    assert online == offline == datasets.load(f"hf:{insects}/parquet").digest
    assert "'ants/none' doesn't exist on the Hub" in missing and "BuilderConfig 'other' not found" in other


@pytest.mark.long
def test_a_trial_and_a_dry_run(insects, tiny_vit):
    spec = TrialSpec(
        model=str(tiny_vit),
        data=f"hf:{insects}/saved",
        layers={"block0.fc1": LayerSpec(weights="binary")},
        recipe=Recipe(epochs=1, batch_size=8, bf16=False),
        test="A",
    )
    record = run_trial(spec)
    assert (record["status"], record["images"]) == ("complete", 54)
    run = run_ablate(insects, "study", "--dry-run", "--model", str(tiny_vit), "--data", f"hf:{insects}/saved")
    assert run.returncode == 0 and "54 to train on, 6 to validate, 15 to test" in run.stdout
