"""Divides images into training, validation and test sets, copies of an image into one set.

A missing validation or test set is taken from the training images. Within each class, images are ranked by
the sha256 of their path below the folder ("cat/001.png"): the first tenth is the test set, the next tenth is
for validation, at least one image each, and the rest is for training. Copies are images with equal pixels.
They go where the first ranked of them goes, and count as one; copies that are in several classes are for
training. A class with too few different images is split as if it had no copies.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ablate.data.folder_layout import SPLITS, Files, Layout
from ablate.errors import BadInput

Keys = Mapping[Path, bytes]  # by image, a key that is equal for copies


def split(layout: Layout, keys: Keys) -> dict[str, Files]:
    """Divide a folder's images into train, validation and test, by the rule at the top of this file.

    Args:
        layout: The classes and images of the folder; splits that it has stay as they are.
        keys: By image, a key that is equal for copies.

    Returns:
        By split, its images with their classes.

    Raises:
        BadInput: A class has too few images for a split that is taken from train.
    """
    files = layout.files
    absent = [name for name in ("test", "validation") if name not in files]
    if not absent:
        return {name: files[name] for name in SPLITS}
    splits: dict[str, Files] = {name: files.get(name, []) if name != "train" else [] for name in SPLITS}
    labels = _labels(files["train"], keys)
    for label, name in enumerate(layout.classes):
        members = (path for path, each in files["train"] if each == label)
        copies: dict[bytes, list[Path]] = {}
        for path in sorted(members, key=lambda path: _rank(path, layout.root)):
            copies.setdefault(keys[path], []).append(path)
        own = [paths for key, paths in copies.items() if len(labels[key]) == 1]
        shared = [paths for key, paths in copies.items() if len(labels[key]) > 1]
        # Too few images differ: copies are split apart, and `notes` reports them.
        if len(own) < len(absent) + 1:
            own, shared = [[path] for paths in copies.values() for path in paths], []
        if len(own) < len(absent) + 1:
            rule = f"each class must have an image for each split, {len(absent) + 1} in all"
            raise BadInput(f"{rule}, but {name!r} has {len(own)}; add some")
        tenth = max(1, round(len(own) / 10))
        for i, each in enumerate(absent):
            splits[each] += _sorted(own[i * tenth : (i + 1) * tenth], label)
        splits["train"] += _sorted(own[len(absent) * tenth :] + shared, label)
    return splits


def notes(splits: dict[str, Files], keys: Keys, folder: Path) -> list[str]:
    """Write which images are copies of others.

    Args:
        splits: By split, its images with their classes.
        keys: By image, a key that is equal for copies.
        folder: The paths in the notes are relative to it.

    Returns:
        A line each on copies in several classes, in several splits (where the user made the splits), and in
        one split.
    """
    files = [file for members in splits.values() for file in members]
    labels = _labels(files, keys)
    lines = []
    if ambiguous := [path for path, _ in files if len(labels[keys[path]]) > 1]:
        some = _some(ambiguous, folder)
        lines.append(f"{len(ambiguous):,} images are in several classes, as equal pixels ({some})")
    first = {name: {keys[path]: path for path, _ in reversed(files)} for name, files in splits.items()}
    for one, other in (("test", "train"), ("test", "validation"), ("validation", "train")):
        if pairs := [(path, there) for path, _ in splits[one] if (there := first[other].get(keys[path]))]:
            n = f"{len(pairs):,} of {len(splits[one]):,} {one} images"
            lines.append(f"{n} are in {other}, too, as equal pixels ({_some(pairs[0], folder)})")
    firsts = ((path, first[name][keys[path]]) for name, members in splits.items() for path, _ in members)
    if pairs := [(path, there) for path, there in firsts if path != there]:
        copies = f"{len(pairs):,} images are copies of others in their split"
        lines.append(f"{copies}, as equal pixels ({_some(pairs[0], folder)})")
    return lines


def _labels(files: Files, keys: Keys) -> dict[bytes, set[int]]:
    """By key, the classes that have such an image."""
    labels: dict[bytes, set[int]] = {}
    for path, label in files:
        labels.setdefault(keys[path], set()).add(label)
    return labels


def _rank(path: Path, root: Path) -> str:
    return hashlib.sha256(os.fsencode(path.relative_to(root).as_posix())).hexdigest()


def _some(paths: Sequence[Path], folder: Path) -> str:
    return ", ".join(repr(path.relative_to(folder).as_posix()) for path in paths[:3]) + ", ..." * (
        len(paths) > 3
    )


def _sorted(copies: list[list[Path]], label: int) -> Files:
    return sorted((path, label) for paths in copies for path in paths)
