"""Which splits, classes and images the tables of a dataset have, before an image is decoded.

Splits have the names that `folder_layout` knows, or are named by options. The column of images, and that of
labels, is the one whose type says so; else one that has the type and a usual name; or it is named. An image
goes by its split and row, as in "train/00000012", and so is split by the rule of image folders.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ablate.data.folder_layout import SPLITS, Files, Layout, split_named
from ablate.data.hub_tables import Tables
from ablate.data.user_dataset import class_faults
from ablate.errors import BadInput, join_faults, short_repr, unknown

HIDDEN = (None, -1)  # labels that are not known; `datasets` writes -1
Kind = Literal["image", "label"]
TYPES: dict[Kind, str] = {"image": "Image", "label": "ClassLabel"}  # of `datasets`
HOLDS: dict[Kind, str] = {
    "image": "the images, as datasets.Image or as bytes of files",
    "label": "the labels, as classes, texts or whole numbers",
}
USUAL: dict[Kind, tuple[str, ...]] = {  # names of columns of other types
    "image": ("image", "img", "images", "jpg", "png"),
    "label": ("label", "labels", "class", "target", "cls"),
}
Options = Mapping[str, str]


def splits_of(found: Tables, options: Options) -> tuple[Tables, list[str]]:
    """Find the splits of a dataset.

    Args:
        found: Its tables, by their names.
        options: Each of SPLITS may name a table.

    Returns:
        The tables of train and, where the dataset has them, validation and test; and notes on the others.

    Raises:
        BadInput: There is none for train, two are for one split, or one that is lacking might be another.
    """
    named = {split: options[split] for split in SPLITS if split in options}
    for name in named.values():
        if name not in found:
            raise unknown("split", name, found)
    if len(set(named.values())) < len(named):
        raise BadInput(f"splits must differ, but got {', '.join(f'{k}={v}' for k, v in named.items())}")
    for name in found:
        split = split_named(name) or ("train" if len(found) == 1 else None)
        if split is None or name in named.values() or split in options:
            continue
        if split in named:
            rule = f"a split must be one table, but {named[split]!r} and {name!r} are for {split}"
            raise BadInput(f"{rule}; name the one to use, as in ?{split}={name}")
        named[split] = name
    others = [name for name in found if name not in named.values()]
    absent = [split for split in SPLITS if split not in named]
    if "train" in absent or (absent and others and not {*options} & {*SPLITS}):
        rule = "a dataset must have train, and no other splits where validation or test are lacking"
        advice = f"name those to use, as in ?train={next(iter(found))}"
        raise BadInput(f"{rule}, but this one has {', '.join(map(repr, found))}; {advice}")
    notes = [f"the split {name!r} was left out" for name in others]
    if absent:
        notes.append(f"no {' and '.join(absent)}: a tenth of {named['train']!r} each")
    return {split: found[named[split]] for split in SPLITS if split in named}, notes


def column_of(kind: Kind, chosen: Tables, options: Options) -> str:
    """Find the column of images or of labels.

    Args:
        kind: Which of them.
        chosen: The table of each split.
        options: `kind` may name the column.

    Returns:
        Its name.

    Raises:
        BadInput: It is not plain which one that is, or the splits have different ones.
    """
    features = chosen["train"].features
    sure = [name for name, feature in features.items() if type(feature).__name__ == TYPES[kind]]
    possible = [name for name, feature in features.items() if name in sure or _may_be(kind, feature)]
    if (named := options.get(kind)) is not None:
        if named not in features:
            raise unknown("column", named, features)
        candidates = [named] if named in possible else []
    else:
        candidates = sure or [name for name in possible if name in USUAL[kind]]
    if len(candidates) != 1:
        columns = ", ".join(f"{name} ({_type(feature)})" for name, feature in features.items())
        advice = f"give ?{kind}={(candidates or possible)[0]}" if possible else "save it with such a column"
        raise BadInput(f"one column must hold {HOLDS[kind]}, but there are: {columns}; {advice}")
    name = candidates[0]
    for split, table in chosen.items():
        if table.features.get(name) != features[name]:
            rule = f"splits must have the same columns, but {split} has another {name!r} than train"
            raise BadInput(f"{rule}; save them alike")
    return name


def _may_be(kind: Kind, feature: Any) -> bool:
    """Whether a column may hold encoded images, or labels, though its type does not say so."""
    if kind == "label":
        is_plain = re.match(r"u?int|bool|(large_)?string", _type(feature))
        return type(feature).__name__ == "Value" and is_plain is not None
    return _type(feature.get("bytes") if isinstance(feature, dict) else feature) in ("binary", "large_binary")


def _type(feature: Any) -> str:
    return str(getattr(feature, "dtype", type(feature).__name__))


def listed(chosen: Tables, options: Options, notes: list[str]) -> Layout:
    """List the classes, and the images of each split by row.

    Args:
        chosen: The table of each split.
        options: "label" may name the column of labels.
        notes: Of `splits_of`.

    Returns:
        As of a folder. A split other than train whose labels are all hidden is left out.

    Raises:
        BadInput: It is not plain which column has labels, or labels or classes are lacking.
    """
    column = column_of("label", chosen, options)
    tables = {split: table.with_format(None).select_columns([column]) for split, table in chosen.items()}
    labels, hidden = _known({split: table[:][column] for split, table in tables.items()})
    names = getattr(chosen["train"].features[column], "names", None)
    of_value = dict(enumerate(names)) if names else {v: str(v) for v in sorted(set().union(*labels.values()))}
    classes, unused = _classes(of_value, labels)
    index = {value: i for i, value in enumerate(classes)}
    files: dict[str, Files] = {
        split: [(Path(split, f"{row:08}"), index[value]) for row, value in enumerate(values)]
        for split, values in labels.items()
    }
    return Layout([*classes.values()], files, Path(), [*notes, *hidden, *unused])


def _known(labels: dict[str, list[Any]]) -> tuple[dict[str, list[Any]], list[str]]:
    """The labels of splits that have them, and a note on each of the others. Raises BadInput."""
    known, notes = dict(labels), []
    for split, values in labels.items():
        if not (hidden := [row for row, value in enumerate(values) if value in HIDDEN]):
            continue
        if len(hidden) < len(values) or split == "train":
            count = f"{len(hidden):,} of {len(values):,} of {split} have none, the first in row {hidden[0]:,}"
            raise BadInput(f"every image must have a label, but {count}; remove them")
        del known[split]
        notes.append(f"{split} was left out, as its labels are hidden: a tenth of train in its place")
    return known, notes


def _classes(names: dict[Any, str], labels: dict[str, list[Any]]) -> tuple[dict[Any, str], list[str]]:
    """Name by label, of classes that have images; and a note on the others. Raises BadInput."""
    present = {split: {*values} for split, values in labels.items()}
    if strange := set().union(*present.values()) - {*names}:
        rule = f"labels must be from 0 to {len(names) - 1}, as many as class names"
        raise BadInput(f"{rule}, but got {min(strange)}; save the dataset again")
    used = {label: name for label, name in names.items() if any(label in each for each in present.values())}
    unused = [name for label, name in names.items() if label not in used]
    if faults := class_faults([*used.values()]):
        raise BadInput(join_faults(faults))
    for split, each in present.items():
        if differ := [name for label, name in used.items() if label not in each]:
            rule = f"every split must have every class, but {split} has no {short_repr(differ[0])}"
            raise BadInput(f"{rule}; add some, or remove the class")
    few = f"{short_repr(unused[0])}{', ...' * (len(unused) > 1)}" if unused else ""
    return used, [f"{len(unused):,} classes have no image and were left out ({few})"] if unused else []
