"""Tiny-ImageNet-200 at 32 x 32 pixels without images like CIFAR-10's, for `make_backbone.py`."""

import lzma
import tarfile
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from ablate.data.datasets import Split
from ablate.errors import BadInput

ARCHIVE, LISTED = "tiny_imagenet32_train_val_jpeg.tar.xz", "tiny_imagenet32_near_duplicates_of_cifar10.txt"
TEXTS = ("wnids.txt", "words.txt", "val/val_annotations.txt")
COUNTS = (99_103, 9_961)  # images for training and validation
SIDE = 32  # pixels


def read(folder: Path) -> tuple[list[str], Split, Split]:
    """Class names, training and validation images, in the archive's order, without the listed ones.

    Raises BadInput where a file is missing or broken, or other than COUNTS images remain.
    """
    for path in (folder / ARCHIVE, folder / LISTED):
        if not path.is_file():
            raise BadInput(
                f"--data must hold {ARCHIVE} and {LISTED}, but there is no {str(path)!r}; "
                "give the folder of both"
            )
    listed = set((folder / LISTED).read_text().split())
    texts, images = {}, {}
    try:
        with tarfile.open(folder / ARCHIVE, "r|xz") as archive:
            for member in archive:
                if member.name in TEXTS:
                    texts[member.name] = [
                        line.split("\t") for line in content(archive, member).decode().splitlines()
                    ]
                elif member.name.endswith(".JPEG") and member.name not in listed:
                    images[member.name] = np.asarray(
                        Image.open(BytesIO(content(archive, member))).convert("RGB")
                    )
    except (OSError, EOFError, lzma.LZMAError, tarfile.TarError) as error:
        raise BadInput(
            f"{ARCHIVE} must be an archive of JPEGs, but cannot be read: {error}; get it again"
        ) from None
    if absent := [name for name in TEXTS if name not in texts]:
        raise BadInput(f"{ARCHIVE} must hold {absent[0]}, but does not; get it again")
    if odd := [name for name, pixels in images.items() if pixels.shape != (SIDE, SIDE, 3)]:
        rule = f"images must have {SIDE} x {SIDE} pixels"
        raise BadInput(f"{rule}, but {odd[0]!r} has {images[odd[0]].shape[:2]}; resize it")
    ids = {row[0]: label for label, row in enumerate(texts["wnids.txt"])}
    words, validation = ({row[0]: row[1] for row in texts[name]} for name in TEXTS[1:])
    labels: dict[str, dict[str, int]] = {"train": {}, "val": {}}  # of each split's images, by name
    for name in images:
        split, _, rest = name.partition("/")
        label = ids.get(rest.split("/")[0] if split == "train" else validation.get(Path(name).name, ""))
        if split in labels and label is not None:
            labels[split][name] = label
    if (found := tuple(map(len, labels.values()))) != COUNTS:
        rule = "without the listed images, {:,} must remain for training and {:,} for validation".format(
            *COUNTS
        )
        raise BadInput(f"{rule}, but {found[0]:,} and {found[1]:,} do; get {ARCHIVE} and {LISTED} again")
    train, val = (
        Split(np.stack([images[n] for n in each]), np.array([*each.values()])) for each in labels.values()
    )
    return [words[each].split(",")[0] for each in ids], train, val


def content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    return file.read() if file else b""
