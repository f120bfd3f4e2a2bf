"""Which classes and image files a folder has, before a pixel is read.

Classes are folders, in the order of torchvision's ImageFolder. Folders above them may be splits, named as
Hugging Face's datasets name them: train or training; val, valid, validation or dev; test, testing, eval or
evaluation; in any case, also with "set", "data" or "images" behind or, where folders of classes are in them,
beside other words and numbers, as in seg_train or val2017. Beside train, a split may be lacking.
`folder_walk` lists the files.
"""

import re
import unicodedata
from pathlib import Path
from typing import NamedTuple

from ablate.data.folder_walk import Walk
from ablate.errors import BadInput

Files = list[tuple[Path, int]]  # image and class

SPLITS = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}


class Layout(NamedTuple):
    """The classes and images of a folder.

    Attributes:
        classes: Names, in order.
        files: The images of each split that the folder has, train always.
        root: The folder that has the classes of train.
        notes: A line on what was left out, and on other folders.
    """

    classes: list[str]
    files: dict[str, Files]
    root: Path
    notes: list[str]


def layout(folder: Path) -> Layout:
    """List the classes and images of a folder, and what was left out.

    Args:
        folder: A folder of a folder a class, or of folders of splits above these.

    Returns:
        The classes in order, and the images of each split that the folder has.

    Raises:
        BadInput: The folder has another layout, or can't be read; the message names the rule and what to
            rename or move.
    """
    if not folder.is_dir():
        way = "give imagefolder:PATH or imagefolder:PATH?size=N"
        advice = "unpack it, and give the folder" if folder.is_file() else way
        fault = "is not a folder" if folder.exists() else "does not exist"
        raise BadInput(f"imagefolder must be a folder of images, but {str(folder)!r} {fault}; {advice}")
    walk = Walk()
    roots, notes = _roots(walk, folder)
    content = {split: _classes(walk, root) for split, root in roots.items()}
    classes = content["train"][0]
    for split, (others, _) in content.items():
        if differ := sorted(set(classes) ^ set(others)):
            rule = f"train and {split} of {str(folder)!r} must have the same classes"
            raise BadInput(f"{rule}, but differ in {differ[0]!r}; add or remove its folder")
    for root in {folder, *roots.values()}:
        walk.leave_out_images(root)
    files = {split: images for split, (_, images) in content.items()}
    return Layout(classes, files, roots["train"], [*walk.notes(folder), *notes])


def _roots(walk: Walk, folder: Path) -> tuple[dict[str, Path], list[str]]:
    """By split, the folder that has its classes; and a line on each folder that is no split."""
    names = walk.folders(folder)
    split_of = {name: split for name in names if (split := split_named(name))}
    if len(set(split_of.values())) < 2:
        split_of = _splits_by_word(walk, folder, names) or split_of
    if len(set(split_of.values())) > 1 or any(walk.folders(folder / name) for name in split_of):
        return _splits(walk, folder, split_of)
    return {"train": folder}, [f"{name!r} counts as a class, not as a split" for name in split_of]


def split_named(name: str) -> str | None:
    """The split that a folder's name means."""
    word = re.sub(r"[ ._-]*(set|data|images)?$", "", name.strip().lower())
    return next((split for split, words in SPLITS.items() if word in words), None)


def _splits_by_word(walk: Walk, folder: Path, names: list[str]) -> dict[str, str]:
    """The split that is a word of each folder's name, as in seg_train; none where one holds no folders."""
    split_of = {}
    for name in names:
        splits = {split for word in re.split(r"[\W\d_]+", name) if (split := split_named(word))}
        if len(splits) == 1:
            split_of[name] = splits.pop()
    is_layout = len(set(split_of.values())) > 1 and all(walk.folders(folder / name) for name in split_of)
    return split_of if is_layout else {}


def _splits(walk: Walk, folder: Path, split_of: dict[str, str]) -> tuple[dict[str, Path], list[str]]:
    """The folder of each split, and a line on those that are no split."""
    names_of: dict[str, list[str]] = {split: [] for split in SPLITS}
    for name, split in split_of.items():
        names_of[split].append(name)
    for split, names in names_of.items():
        if len(names) > 1:
            both = f"{str(folder)!r} has {' and '.join(map(repr, names))} for {split}"
            raise BadInput(f"a split must be one folder, but {both}; keep or rename one")
    others = [
        name for name in walk.folders(folder) if name not in split_of and any(walk.below(folder / name))
    ]
    absent = [split for split, names in names_of.items() if not names]
    if "train" in absent or (absent and others):
        rule = "a folder of splits must have train/"
        rule += ", and no other folders of images where val/ or test/ are lacking"
        beside = f" and has {others[0]!r}, which is no split's name" if others else ""
        fault = f"{str(folder)!r} lacks {' and '.join(absent)}{beside}"
        raise BadInput(f"{rule}, but {fault}; rename or remove folders, or have a folder a class alone")
    notes = [f"{name!r} was left out: no split has this name" for name in others]
    if absent:
        notes.append(f"no folder for {' and '.join(absent)}: a tenth of {names_of['train'][0]!r} each")
    return {split: folder / names[0] for split, names in names_of.items() if names}, notes


def _classes(walk: Walk, folder: Path) -> tuple[list[str], Files]:
    """The classes of a folder that has a folder a class, and their images."""
    names = walk.folders(folder)
    if not names:
        rule = f"{str(folder)!r} must hold a folder of images a class"
        raise BadInput(f"{rule}, but has no folders; make a folder a class")
    for name in names:
        _check_class(walk, folder, name)
    images = [walk.images(folder / name) for name in names]
    for name, paths in zip(names, images, strict=True):
        if not paths:
            empty = folder / name
            left_out = [path for path in walk.left_out if Path(path).is_relative_to(empty)]
            hint = f" ({left_out[0]!r} was left out)" if left_out else ""
            rule = "the folder of a class must hold images that Pillow reads"
            raise BadInput(f"{rule}, but {str(empty)!r} has none{hint}; remove it, or add some")
    if len(names) < 2:
        rule = f"{str(folder)!r} must hold two classes or more"
        raise BadInput(f"{rule}, but has {names}; make a folder a class")
    return names, [(path, label) for label, paths in enumerate(images) for path in paths]


def _check_class(walk: Walk, folder: Path, name: str) -> None:
    """Raises BadInput for a class whose name cannot be printed, or whose folder holds splits."""
    # Control characters, and bytes that could not be decoded.
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
        rule = "a class must have a name that can be printed"
        raise BadInput(f"{rule}, but {str(folder)!r} has {name!r}; rename the folder")
    if len({split_named(below) for below in walk.folders(folder / name)} - {None}) > 1:
        where = repr(str(folder / name))
        raise BadInput(f"splits must stand above classes, but {where} holds splits; give it, or move them up")
