"""Datasets of the Hugging Face hub, and local ones that the package `datasets` reads, as "hf:...".

`hub_tables` finds the tables, `table_layout` their splits, classes and images, which `image_files` decodes.
"""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Optional
from urllib.parse import parse_qsl

from ablate.config.builtin import HUB
from ablate.data import image_files
from ablate.data.dataset import Dataset
from ablate.data.decoding import Refused, Source
from ablate.data.folder_layout import SPLITS
from ablate.data.hub_tables import tables
from ablate.data.table_layout import column_of, listed, splits_of
from ablate.errors import BadInput, short_repr, unknown

if TYPE_CHECKING:  # it loads torch, which a list of datasets does not need
    from ablate.models.preprocessing import Preprocess

OPTIONS = ("image", "label", "size", *SPLITS)


class Name(NamedTuple):
    """The parts of "hf:NAME:CONFIG?key=value&key=value", or of "hf:PATH?key=value".

    Attributes:
        where: An absolute path, or a name on the hub.
        config: Of a dataset on the hub that has several.
        options: Some of OPTIONS.
    """

    where: str
    config: str | None
    options: dict[str, str]


def load(name: str, preprocess: Optional["Preprocess"] = None) -> Dataset:
    """Load a dataset through the package `datasets`.

    Args:
        name: "hf:NAME", "hf:NAME:CONFIG" or, with an absolute path, "hf:PATH"; options may follow, as in
            "?image=img&label=fine_label&size=64&test=holdout".
        preprocess: What the model's image processor does, where a model is known.

    Returns:
        The images at one size, and their digest.

    Raises:
        BadInput: An option is unknown, the dataset is refused by `hub_tables.tables`, its splits or columns
            are not found, or `image_files.decoded` refuses its images.
    """
    where, config, options = parsed(name)
    found = tables(where, config)
    try:
        chosen, notes = splits_of(found, options)
        column = column_of("image", chosen, options)
        layout = listed(chosen, options, notes)
    except BadInput as error:
        raise BadInput(f"{short_repr(name)[1:-1]}: {error}") from None
    images = {split: _encoded(table, column) for split, table in chosen.items()}

    def read(path: Path) -> Source:
        value = images[path.parent.name][int(path.name)][column]
        if isinstance(value, dict):
            value = value["path"] and Path(value["path"]) if value["bytes"] is None else value["bytes"]
        if value is None:
            raise Refused("null")
        return value

    side = int(options["size"]) if "size" in options else None
    files = [file["filename"] for table in chosen.values() for file in table.cache_files]
    return image_files.dataset(
        image_files.decoded(layout, name, side, preprocess, lambda: _state(map(Path, files)), read)
    )


def state(name: str) -> str | None:
    """Return what changes with the files of a local dataset; None for one of the hub."""
    if is_remote(name):
        return None
    path = Path(parsed(name).where)
    return _state([path, *sorted(path.rglob("*"))])


def _state(files: Iterable[Path]) -> str:
    sha = hashlib.sha256()
    for file in files:
        try:
            about = file.stat()
        except OSError:  # loading reports it
            continue
        sha.update(f"{os.fspath(file)!r} {about.st_ino} {about.st_size} {about.st_mtime_ns}\n".encode())
    return sha.hexdigest()


def is_remote(name: str) -> bool:
    """Whether a dataset is one of the hub, "hf:NAME"."""
    return name.startswith(HUB) and not name.startswith(f"{HUB}/")


def parsed(name: str) -> Name:
    """Take a dataset's name apart. Raises BadInput for options that are unknown or no numbers."""
    rest = name.removeprefix(HUB)
    where, _, query = rest.rpartition("?") if "?" in rest else (rest, "", "")
    where, colon, config = (where, "", "") if where.startswith("/") else where.partition(":")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
        if len(options := dict(pairs)) < len(pairs):
            raise ValueError("an option is given twice")
    except ValueError:
        rule = "options must be written ?key=value&key=value, each once"
        raise BadInput(f"{rule}, but got {short_repr('?' + query)}; known: {', '.join(OPTIONS)}") from None
    if strange := [key for key in options if key not in OPTIONS]:
        raise unknown("option of hf:", strange[0], OPTIONS)
    if not options.get("size", "0").isdecimal():
        raise BadInput(f"size must be a whole number of pixels, but got ?size={options['size']}")
    if not where or (colon and not config):
        raise BadInput(
            f"hf: must have a name or a path, as in hf:uoft-cs/cifar10, but got {short_repr(name)}"
        )
    return Name(where, config or None, options)


def _encoded(table: Any, column: str) -> Any:
    """The table with one column, whose images are left encoded."""
    import datasets

    table = table.select_columns([column]).with_format(None)
    is_image = isinstance(table.features[column], datasets.Image)
    return table.cast_column(column, datasets.Image(decode=False)) if is_image else table
