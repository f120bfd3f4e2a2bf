"""Which images are for training, for validation and for testing, so that copies of one are not apart.

Where a folder has no split of its own for validation or testing, it is taken from the training images. Within each class,
images are ranked by the sha256 of their path below the folder ("cat/001.png"): the first tenth is the test set, the next
tenth is for validation, at least one image each, and the rest is for training. Copies, whose pixels are equal, go where the
first ranked of them goes and count as one; those that are in several classes are for training. A class with too few images
that differ is split as if it had no copies.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ablate.data.folder_layout import SPLITS, Files, Layout
from ablate.errors import BadInput

Keys = Mapping[Path, bytes]  # equal for copies


def split(layout: Layout, keys: Keys) -> dict[str, Files]:
    """Divide a folder's images into train, validation and test, by the rule at the top of this file.

    Args:
        layout: The classes and images of the folder; splits that it has stay as they are.
        keys: By image, what is equal for copies.

    Returns:
        By split, its images with their classes.

    Raises:
        BadInput: A class has too few images for a split that is taken from train.
    """
    files = layout.files
    absent = [name for name in ("test", "validation") if name not in files]
    if not absent:
        return {name: files[name] for name in SPLITS}
    found: dict[str, Files] = {
        name: files[name] if name in files and name != "train" else [] for name in SPLITS
    }
    labels: dict[bytes, set[int]] = {}
    for path, label in files["train"]:
        labels.setdefault(keys[path], set()).add(label)
    for label, name in enumerate(layout.classes):
        copies: dict[bytes, list[Path]] = {}
        for path in sorted(
            (path for path, each in files["train"] if each == label),
            key=lambda path: _rank(path, layout.root),
        ):
            copies.setdefault(keys[path], []).append(path)
        own = [paths for key, paths in copies.items() if len(labels[key]) == 1]
        shared = [paths for key, paths in copies.items() if len(labels[key]) > 1]
        if (
            len(own) < len(absent) + 1
        ):  # too few that differ: copies count, and `notes` says that they are apart
            own, shared = [[path] for paths in copies.values() for path in paths], []
        if len(own) < len(absent) + 1:
            rule = f"a class must have an image a split, {len(absent) + 1} in all"
            raise BadInput(f"{rule}, but {name!r} has {len(own)}; add some")
        tenth = max(1, round(len(own) / 10))
        for i, each in enumerate(absent):
            found[each] += _sorted(own[i * tenth : (i + 1) * tenth], label)
        found["train"] += _sorted(own[len(absent) * tenth :] + shared, label)
    return found


def notes(splits: dict[str, Files], keys: Keys, folder: Path) -> list[str]:
    """A line on each kind of copies: in several classes, kept together, and apart where the folder's own splits have them."""
    labels: dict[bytes, set[int]] = {}
    everything = [file for files in splits.values() for file in files]
    for path, label in everything:
        labels.setdefault(keys[path], set()).add(label)
    lines = []
    if torn := [path for path, _ in everything if len(labels[keys[path]]) > 1]:
        lines.append(f"{len(torn):,} images are in several classes, as equal pixels ({_some(torn, folder)})")
    first = {name: {keys[path]: path for path, _ in reversed(files)} for name, files in splits.items()}
    for one, other in (("test", "train"), ("test", "validation"), ("validation", "train")):
        if pairs := [(path, there) for path, _ in splits[one] if (there := first[other].get(keys[path]))]:
            n = f"{len(pairs):,} of {len(splits[one]):,} {one} images"
            lines.append(f"{n} are in {other}, too, as equal pixels ({_some(pairs[0], folder)})")
    again = ((path, first[name][keys[path]]) for name, files in splits.items() for path, _ in files)
    if pairs := [(path, there) for path, there in again if path != there]:
        lines.append(
            f"{len(pairs):,} images are copies of others in their split, as equal pixels ({_some(pairs[0], folder)})"
        )
    return lines


def _rank(path: Path, root: Path) -> str:
    return hashlib.sha256(os.fsencode(path.relative_to(root).as_posix())).hexdigest()


def _some(paths: Sequence[Path], folder: Path) -> str:
    return ", ".join(repr(path.relative_to(folder).as_posix()) for path in paths[:3]) + ", ..." * (
        len(paths) > 3
    )


def _sorted(copies: list[list[Path]], label: int) -> Files:
    return sorted((path, label) for paths in copies for path in paths)
