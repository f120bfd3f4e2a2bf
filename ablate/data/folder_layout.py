"""Which classes and image files a folder has, before a pixel is read.

Classes are folders, in the order of torchvision's ImageFolder. Folders above them may be splits, named as Hugging Face's
datasets name them: train or training; val, valid, validation or dev; test, testing, eval or evaluation; in any case, also
with "set", "data" or "images" behind or, where folders of classes are in them, beside other words and numbers, as in
seg_train or val2017. Beside train, a split may be lacking.

Left out and counted, at any depth: what is hidden or the system's, files without the extension of an image, images in no
class's folder. A file that links lead to counts once in a class, a folder beside it once.
"""

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ablate.data.decoding import extensions
from ablate.errors import BadInput

Files = list[tuple[Path, int]]  # image and class

SPLITS = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
SYSTEM = {  # in lower case; beside all names that begin with a dot
    *(
        "__macosx",
        "__pycache__",
        "@eadir",
        "@recycle",
        "@recently-snapshot",
        "@tmp",
        "#recycle",
        "#snapshot",
        "$recycle.bin",
    ),
    *(
        "lost+found",
        "recycler",
        "recycled",
        "system volume information",
        "network trash folder",
        "temporary items",
    ),
    *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r"),
}


class Layout(NamedTuple):
    """Classes in order; the images of each split that the folder has, train always; a line on what was left out."""

    classes: list[str]
    files: dict[str, Files]
    root: Path  # of the classes of train
    notes: list[str]


class _File(NamedTuple):
    path: Path
    real: str  # without links
    linked: bool


def layout(folder: Path) -> Layout:
    """List the classes and images of a folder, and what was left out.

    Args:
        folder: A folder of a folder a class, or of folders of splits above these.

    Returns:
        The classes in order, and the images of each split that the folder has.

    Raises:
        BadInput: The folder has another layout, or can't be read; the message names the rule and what to rename or move.
    """
    if not folder.is_dir():
        mend = (
            "unpack it, and give the folder"
            if folder.is_file()
            else "give imagefolder:PATH or imagefolder:PATH?size=N"
        )
        raise BadInput(f"imagefolder must be a folder of images, but {str(folder)!r} is none; {mend}")
    walk = _Walk()
    names = walk.folders(folder)
    words = {name: split for name in names if (split := _split(name))}
    if len(set(words.values())) < 2:
        words = _among(walk, folder, names) or words
    if len(set(words.values())) > 1 or any(walk.folders(folder / name) for name in words):
        roots, notes = _splits(walk, folder, words)
    else:
        roots, notes = {"train": folder}, [f"{name!r} counts as a class, not as a split" for name in words]
    found = {split: _classes(walk, root) for split, root in roots.items()}
    classes = found["train"][0]
    for split, (others, _) in found.items():
        if differ := sorted(set(classes) ^ set(others)):
            rule = f"train and {split} of {str(folder)!r} must have the same classes"
            raise BadInput(f"{rule}, but differ in {differ[0]!r}; add or remove its folder")
    for root in {folder, *roots.values()}:
        walk.loose(root)
    return Layout(
        classes,
        {split: files for split, (_, files) in found.items()},
        roots["train"],
        [*walk.notes(folder), *notes],
    )


def state(folder: Path) -> str:
    """What changes when a file or a folder below is added, removed, renamed or written; a digest of names, sizes and times."""
    walk, seen, sha = _Walk(), set[str](), hashlib.sha256()
    try:
        for file in walk.below(folder, os.path.realpath(folder), seen):
            about = Path(file.real).stat()
            times = about.st_mtime_ns, about.st_ctime_ns
            sha.update(f"{str(file.path)!r} {about.st_ino} {about.st_size} {times}\n".encode())
        sha.update(f"{sorted(seen)} {sorted(walk.left)}".encode())
    except (OSError, BadInput) as error:  # reading will say so, too
        sha.update(repr(error).encode())
    return sha.hexdigest()


def _split(name: str) -> str | None:
    """The split that a folder's name means."""
    word = re.sub(r"[ ._-]*(set|data|images)?$", "", name.strip().lower())
    return next((split for split, words in SPLITS.items() if word in words), None)


def _among(walk: "_Walk", folder: Path, names: list[str]) -> dict[str, str]:
    """The split that is a word of each folder's name, as in seg_train or val2017; none where one of them holds no folders."""
    found = {
        name: {split for word in re.split(r"[\W\d_]+", name) if (split := _split(word))} for name in names
    }
    words = {name: splits.pop() for name, splits in found.items() if len(splits) == 1}
    return (
        words if len(set(words.values())) > 1 and all(walk.folders(folder / name) for name in words) else {}
    )


def _splits(walk: "_Walk", folder: Path, words: dict[str, str]) -> tuple[dict[str, Path], list[str]]:
    """The folder of each split, and a line on those that are no split."""
    found: dict[str, list[str]] = {split: [] for split in SPLITS}
    for name, split in words.items():
        found[split].append(name)
    for split, names in found.items():
        if len(names) > 1:
            both = " and ".join(map(repr, names))
            raise BadInput(
                f"a split must be one folder, but {str(folder)!r} has {both} for {split}; keep or rename one"
            )
    others = [name for name in walk.folders(folder) if name not in words and any(walk.below(folder / name))]
    absent = [split for split, names in found.items() if not names]
    if "train" in absent or (absent and others):
        beside = f" and has {others[0]!r}, which is no split's name" if others else ""
        raise BadInput(
            f"a folder of splits must have train/, and no other folders of images where val/ or test/ are lacking, but "
            f"{str(folder)!r} lacks {' and '.join(absent)}{beside}; rename or remove folders, or have a folder a class alone"
        )
    notes = [f"{name!r} was left out: no split has this name" for name in others]
    if absent:
        notes.append(f"no folder for {' and '.join(absent)}: a tenth of {found['train'][0]!r} each")
    return {split: folder / names[0] for split, names in found.items() if names}, notes


def _classes(walk: "_Walk", folder: Path) -> tuple[list[str], Files]:
    """The classes of a folder that has a folder a class, and their images."""
    names = walk.folders(folder)
    if not names:
        raise BadInput(
            f"{str(folder)!r} must hold a folder of images a class, but has no folders; make a folder a class"
        )
    for name in names:
        if any(
            unicodedata.category(letter) in ("Cc", "Cs") for letter in name
        ):  # control characters; bytes that are no text
            raise BadInput(
                f"a class must have a name that can be printed, but {str(folder)!r} has {name!r}; rename the folder"
            )
        if len({_split(below) for below in walk.folders(folder / name)} - {None}) > 1:
            raise BadInput(
                f"splits must stand above classes, but {str(folder / name)!r} holds splits; give it, or move them up"
            )
    images = [walk.images(folder / name) for name in names]
    if empty := [name for name, found in zip(names, images, strict=True) if not found]:
        rule = "the folder of a class must hold images that Pillow reads"
        instead = [path for path in walk.left if Path(path).is_relative_to(folder / empty[0])]
        having = f"{str(folder / empty[0])!r} has none" + (
            f" ({instead[0]!r} was left out)" if instead else ""
        )
        raise BadInput(f"{rule}, but {having}; remove it, or add some")
    if len(names) < 2:
        raise BadInput(
            f"{str(folder)!r} must hold two classes or more, but has {names}; make a folder a class"
        )
    return names, [(path, label) for label, paths in enumerate(images) for path in paths]


class _Walk:
    """Lists folders and images; `left` has what was left out on the way, each with the reason."""

    def __init__(self) -> None:
        self.left: dict[str, str] = {}
        self.extensions = extensions()

    def folders(self, folder: Path) -> list[str]:
        """Names of the folders in a folder, sorted as torchvision sorts classes."""
        real, once = os.path.realpath(folder), dict[str, str]()
        for entry in sorted(
            filter(_is_folder, self._visible(folder)), key=lambda entry: (entry.is_symlink(), entry.name)
        ):
            target = os.path.realpath(entry.path) if entry.is_symlink() else f"{real}/{entry.name}"
            if target in once or Path(real).is_relative_to(target):
                self.left[entry.path] = "linking to what counts already"
            else:
                once[target] = entry.name
        return sorted(once.values())

    def loose(self, folder: Path) -> None:
        """Leave out the images that are in a folder itself."""
        for entry in self._visible(folder):
            if not _is_folder(entry) and self._is_image(entry):
                self.left[entry.path] = "in no class's folder"

    def images(self, folder: Path) -> list[Path]:
        """Images at any depth, each file once, in the order of torchvision's ImageFolder."""
        once: dict[str, _File] = {}
        for file in sorted(
            self.below(folder), key=lambda file: file.linked
        ):  # a link gives way to what it leads to
            if once.setdefault(file.real, file) is not file:
                self.left[str(file.path)] = "linking to what counts already"
        return sorted((file.path for file in once.values()), key=lambda path: (str(path.parent), path.name))

    def below(
        self, folder: Path, real: str = "", seen: set[str] | None = None, linked: bool = False
    ) -> Iterator[_File]:
        """Images at any depth; `seen` are the real paths of the folders that were entered."""
        real, seen = real or os.path.realpath(folder), set() if seen is None else seen
        seen.add(real)
        for entry in sorted(self._visible(folder), key=lambda entry: (entry.is_symlink(), entry.name)):
            link = entry.is_symlink()
            target = os.path.realpath(entry.path) if link else f"{real}/{entry.name}"
            if not _is_folder(entry):
                if self._is_image(entry):
                    yield _File(Path(entry.path), target, linked or link)
            elif target in seen or (link and any(Path(each).is_relative_to(target) for each in seen)):
                self.left[entry.path] = "linking to what counts already"
            else:
                yield from self.below(Path(entry.path), target, seen, linked or link)

    def notes(self, folder: Path) -> list[str]:
        """One line: how many files and folders were left out, and why."""
        reasons: dict[str, list[str]] = {}
        for path, reason in self.left.items():
            reasons.setdefault(reason, []).append(os.path.relpath(path, folder))
        each = [f"{len(paths):,} {reason} ({_some(paths)})" for reason, paths in reasons.items()]
        return [f"left out: {'; '.join(each)}"] if each else []

    def _visible(self, folder: Path) -> Iterator[os.DirEntry[str]]:
        try:
            entries = list(os.scandir(folder))
        except OSError as error:
            raise BadInput(
                f"cannot read {str(folder)!r}: {error.strerror}; give a folder that can be read"
            ) from None
        for entry in entries:
            if entry.name.startswith(".") or entry.name.lower() in SYSTEM:
                self.left[entry.path] = "hidden or the system's"
            else:
                yield entry

    def _is_image(self, entry: os.DirEntry[str]) -> bool:
        """Also a link that leads nowhere: it is named when it is read."""
        if Path(entry.name).suffix.lower() not in self.extensions:
            lost = entry.is_symlink() and not Path(entry.path).exists()
            self.left[entry.path] = (
                "linking to what is not there" if lost else "without the extension of an image"
            )
        elif (
            not (Path(entry.path).is_file() if entry.is_symlink() else entry.is_file())
            and Path(entry.path).exists()
        ):
            self.left[entry.path] = "not regular files"
        else:
            return True
        return False


def _is_folder(entry: os.DirEntry[str]) -> bool:
    with suppress(OSError):  # a link to itself
        return entry.is_dir()
    return False


def _some(paths: list[str]) -> str:
    return ", ".join(map(repr, sorted(paths)[:3])) + (", ..." if len(paths) > 3 else "")
