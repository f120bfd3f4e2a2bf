"""A user's own dataset, named `module:name`: a function without arguments that returns a dict of arrays.

    {
        "classes": ["cat", "dog"],
        "train": (images, labels),
        "validation": (images, labels),
        "test": (images, labels),
    }

Images are uint8 (N, H, W, 3), of one size in all splits; labels are integers (N,), each the index of a class.
Without `validation` or `test`, each is a tenth of the training images, by the rule of `splitting`.
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ablate.data import splitting
from ablate.data.dataset import Dataset, Split, digest_of
from ablate.data.folder_layout import SPLITS, Layout
from ablate.errors import BadInput, join_faults, short_repr
from ablate.plugins import load_plugin

log = logging.getLogger(__name__)
KEYS = ("classes", *SPLITS)
ADVICE = "see 'Your own dataset' in docs/guide.md"


def load(name: str) -> Dataset:
    """Import a user's function, call it, and check what it returns.

    Notes on equal images are printed on standard error as well.

    Args:
        name: `module:name`; the module is installed or on PYTHONPATH.

    Returns:
        The images, their digest computed from pixels and labels as that of every other dataset.

    Raises:
        BadInput: The function cannot be imported or called, or returns something else; all faults are
            reported together.
    """
    function = load_plugin("dataset", name)
    if not callable(function):
        raise _refusal(name, [f"must be a function without arguments, but got {short_repr(function)}"])
    try:
        returned = function()
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise BadInput(
            f"dataset {short_repr(name)} must be a function that returns arrays, but {reason}"
        ) from error
    classes, splits = _checked(name, returned)
    whole, notes = _completed(name, classes, splits)
    for note in notes:
        log.warning("%s: %s", name, note)
    train, validation, test = (whole[split] for split in SPLITS)
    return Dataset(classes, train, validation, test, digest_of((train, validation, test)), tuple(notes))


def _checked(name: str, returned: Any) -> tuple[list[str], dict[str, Split]]:
    """The classes and the given splits. Raises BadInput."""
    if not isinstance(returned, Mapping):
        raise _refusal(name, [f"must return a dict, but returns {short_repr(returned)}"])
    faults = [
        f"unknown key {short_repr(key)}, known: {', '.join(KEYS)}" for key in returned if key not in KEYS
    ]
    faults += [f"the dict must have {key!r}" for key in ("classes", "train") if key not in returned]
    if faults:
        raise _refusal(name, faults)
    faults = class_faults(returned["classes"])
    splits: dict[str, Split] = {}
    count = len(returned["classes"]) if not faults else None
    for key in SPLITS:
        if key not in returned:
            continue
        try:
            splits[key] = _split(returned[key], count)
        except ValueError as error:
            faults.append(f"{key}: {error}")
    sizes = {key: f"{split.images.shape[2]} x {split.images.shape[1]}" for key, split in splits.items()}
    if len(set(sizes.values())) > 1:
        sizes_of = ", ".join(f"{key} {size}" for key, size in sizes.items())
        faults.append(f"all images must have one size, but got {sizes_of}")
    if faults:
        raise _refusal(name, faults)
    return list(map(str, returned["classes"])), splits


def class_faults(classes: Any) -> list[str]:
    """Return what is wrong with the names of classes, a line each."""
    if isinstance(classes, str) or not isinstance(classes, Sequence):
        return [f"classes: must be a list of names, but got {short_repr(classes)}"]
    faults = []
    if wrong := [each for each in classes if not (isinstance(each, str) and each.isprintable() and each)]:
        faults.append(f"classes: a name must be text that can be printed, but got {short_repr(wrong[0])}")
    if len(classes) < 2:
        faults.append(f"classes: must be two or more, but got {short_repr(classes)}")
    if twice := [each for i, each in enumerate(classes) if each in classes[:i]]:
        faults.append(f"classes: names must differ, but {short_repr(twice[0])} is there twice")
    return faults


def _split(pair: Any, classes: int | None) -> Split:
    """Images and labels, checked. Raises ValueError, whose message is a part of a sentence."""
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise ValueError(f"must be (images, labels), but got {short_repr(type(pair).__name__)}")
    try:
        images, labels = (np.asarray(each) for each in pair)
    except Exception as error:  # ragged lists, tensors on a GPU
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"must be two arrays of numpy, but: {reason}") from None
    if images.ndim != 4 or images.shape[3] != 3 or not images.size:
        raise ValueError(f"images must have shape (N, H, W, 3), but got {images.shape}")
    if images.dtype != np.uint8:
        raise ValueError(f"images must be uint8, 0 to 255, but got {images.dtype}")
    if labels.shape != images.shape[:1]:
        raise ValueError(f"labels must have shape ({len(images)},), one an image, but got {labels.shape}")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be integers, but got {labels.dtype}")
    if classes is not None:
        if labels.min() < 0 or labels.max() >= classes:
            got = f"{labels.min()} to {labels.max()}"
            raise ValueError(f"labels must be from 0 to {classes - 1}, an index of a class, but got {got}")
        if absent := sorted(set(range(classes)) - set(np.unique(labels).tolist())):
            raise ValueError(f"every class must have an image, but class {absent[0]} has none")
    return Split(np.ascontiguousarray(images), np.ascontiguousarray(labels, np.int64))


def _completed(name: str, classes: list[str], splits: dict[str, Split]) -> tuple[dict[str, Split], list[str]]:
    """All three splits, those that are lacking taken from the training images; and notes on equal images.

    Images go by the paths "train/00012" and so on, so that the rule is that of image folders.
    """
    files = {
        key: [(Path(key, f"{i:08}"), int(label)) for i, label in enumerate(split.labels)]
        for key, split in splits.items()
    }
    keys = {
        path: hashlib.sha256(image.tobytes()).digest()
        for key, members in files.items()
        for (path, _), image in zip(members, splits[key].images[:], strict=True)
    }
    try:
        chosen = splitting.split(Layout(classes, files, Path(), []), keys)
    except BadInput as error:
        raise BadInput(f"dataset {short_repr(name)}: {error}") from None
    notes = splitting.notes(chosen, keys, Path())
    if not (absent := [key for key in SPLITS if key not in splits]):
        return splits, notes
    train, completed = splits["train"], dict(splits)
    for key in ("train", *absent):
        rows = [int(path.name) for path, _ in chosen[key]]
        completed[key] = Split(train.images[rows], train.labels[rows])
    return completed, [f"no {' and '.join(absent)}: a tenth of 'train' is used for each", *notes]


def _refusal(name: str, faults: Sequence[str]) -> BadInput:
    return BadInput(f"dataset {short_repr(name)}: {join_faults(faults)}; {ADVICE}")
