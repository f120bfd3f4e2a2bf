"""Lists the folders and images below a folder, and notes what was left out.

Left out and counted, at any depth: what is hidden or the system's, files without the extension of an image,
images in no class's folder. A file that links lead to counts once in a class, a folder beside it once.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ablate.data.decoding import extensions
from ablate.errors import BadInput

# files and folders of systems, in lower case; all names that begin with a dot are hidden
SYSTEM = {
    *("__macosx", "__pycache__", "@eadir", "@recycle", "@recently-snapshot", "@tmp", "#recycle", "#snapshot"),
    *("$recycle.bin", "lost+found", "recycler", "recycled", "system volume information"),
    *("network trash folder", "temporary items", "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db"),
    *("desktop.ini", "icon\r"),
}
LINKED = "linking to what counts already"


class File(NamedTuple):
    """An image file.

    Attributes:
        path: As it was reached.
        real: The same, with all links resolved.
        linked: Whether a link leads to it.
    """

    path: Path
    real: str
    linked: bool


class Walk:
    """Lists folders and images.

    Attributes:
        left_out: By path, why a file or folder was left out on the way.
    """

    def __init__(self) -> None:
        self.left_out: dict[str, str] = {}
        self._extensions = extensions()

    def folders(self, folder: Path) -> list[str]:
        """Names of the folders in a folder, sorted as torchvision sorts classes."""
        real, names = os.path.realpath(folder), dict[str, str]()
        for entry in _links_last(filter(_is_folder, self._visible(folder))):
            target = _target(entry, real)
            if target in names or Path(real).is_relative_to(target):
                self.left_out[entry.path] = LINKED
            else:
                names[target] = entry.name
        return sorted(names.values())

    def leave_out_images(self, folder: Path) -> None:
        """Leave out the images that lie in a folder itself."""
        for entry in self._visible(folder):
            if not _is_folder(entry) and self._is_image(entry):
                self.left_out[entry.path] = "in no class's folder"

    def images(self, folder: Path) -> list[Path]:
        """Images at any depth, each file once, in the order of torchvision's ImageFolder."""
        files: dict[str, File] = {}
        # A file comes before its links.
        for file in sorted(self.below(folder), key=lambda file: file.linked):
            if files.setdefault(file.real, file) is not file:
                self.left_out[str(file.path)] = LINKED
        return sorted((file.path for file in files.values()), key=lambda path: (str(path.parent), path.name))

    def below(
        self, folder: Path, real: str = "", entered: set[str] | None = None, linked: bool = False
    ) -> Iterator[File]:
        """List images at any depth.

        Args:
            folder: Where to begin.
            real: Its path without links; "": it is found out.
            entered: The real paths of the folders that were entered before; those entered here are added.
            linked: Whether a link leads to the folder.

        Yields:
            Files, folder by folder.
        """
        real, entered = real or os.path.realpath(folder), set() if entered is None else entered
        entered.add(real)
        for entry in _links_last(self._visible(folder)):
            is_link, target = entry.is_symlink(), _target(entry, real)
            if not _is_folder(entry):
                if self._is_image(entry):
                    yield File(Path(entry.path), target, linked or is_link)
            elif target in entered or (
                is_link and any(Path(each).is_relative_to(target) for each in entered)
            ):
                self.left_out[entry.path] = LINKED
            else:
                yield from self.below(Path(entry.path), target, entered, linked or is_link)

    def notes(self, folder: Path) -> list[str]:
        """One line that says how many files and folders were left out, and why; none where there are none."""
        reasons: dict[str, list[str]] = {}
        for path, reason in self.left_out.items():
            reasons.setdefault(reason, []).append(os.path.relpath(path, folder))
        each = [f"{len(paths):,} {reason} ({_some(paths)})" for reason, paths in reasons.items()]
        return [f"left out: {'; '.join(each)}"] if each else []

    def _visible(self, folder: Path) -> Iterator[os.DirEntry[str]]:
        try:
            entries = list(os.scandir(folder))
        except OSError as error:
            advice = "give a folder that can be read"
            raise BadInput(f"cannot read {str(folder)!r}: {error.strerror}; {advice}") from None
        for entry in entries:
            if entry.name.startswith(".") or entry.name.lower() in SYSTEM:
                self.left_out[entry.path] = "hidden or the system's"
            else:
                yield entry

    def _is_image(self, entry: os.DirEntry[str]) -> bool:
        """Whether it is named as an image; also a broken link, which is reported when it is read."""
        path, is_link = Path(entry.path), entry.is_symlink()
        if Path(entry.name).suffix.lower() not in self._extensions:
            is_broken = is_link and not path.exists()
            reason = "linking to what is not there" if is_broken else "without the extension of an image"
        elif not (path.is_file() if is_link else entry.is_file()) and path.exists():
            reason = "not regular files"
        else:
            return True
        self.left_out[entry.path] = reason
        return False


def state(folder: Path) -> str:
    """Return what changes when a file or folder below is added, removed, renamed or written.

    Returns:
        A digest of names, sizes and times.
    """
    walk, entered, sha = Walk(), set[str](), hashlib.sha256()
    try:
        for file in walk.below(folder, os.path.realpath(folder), entered):
            about = Path(file.real).stat()
            times = about.st_mtime_ns, about.st_ctime_ns
            sha.update(f"{str(file.path)!r} {about.st_ino} {about.st_size} {times}\n".encode())
        sha.update(f"{sorted(entered)} {sorted(walk.left_out)}".encode())
    except (OSError, BadInput) as error:  # reading the folder reports it
        sha.update(repr(error).encode())
    return sha.hexdigest()


def _links_last(entries: Iterator[os.DirEntry[str]]) -> list[os.DirEntry[str]]:
    return sorted(entries, key=lambda entry: (entry.is_symlink(), entry.name))


def _target(entry: os.DirEntry[str], real: str) -> str:
    """The path of an entry without links; `real` is that of its folder."""
    return os.path.realpath(entry.path) if entry.is_symlink() else f"{real}/{entry.name}"


def _is_folder(entry: os.DirEntry[str]) -> bool:
    with suppress(OSError):  # a link to itself
        return entry.is_dir()
    return False


def _some(paths: list[str]) -> str:
    return ", ".join(map(repr, sorted(paths)[:3])) + (", ..." if len(paths) > 3 else "")
