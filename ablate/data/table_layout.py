"""Which splits, classes and images the tables of a dataset have, before an image is decoded.

Splits have the names that `folder_layout` knows, or are named by options. The column of images, and that of
labels, is the one whose type says so; else one that has the type and a usual name; or it is named. An image
goes by its split and row, as in "train/00000012", and so is split by the rule of image folders.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ablate.data.folder_layout import SPLITS, Files, Layout, split_named
from ablate.data.hub_tables import Tables
from ablate.data.user_dataset import class_faults
from ablate.errors import BadInput, join_faults, short_repr, unknown

HIDDEN = (None, -1)  # labels that are not known; `datasets` writes -1
IMAGES = ("image", "img", "images", "jpg", "png")  # usual names of columns
LABELS = ("label", "labels", "class", "target", "cls")
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


def image_column(chosen: Tables, options: Options) -> str:
    """Return the column of images. Raises BadInput where it is not plain which one that is."""
    return _column("image", chosen, options, IMAGES, _is_image)


def _column(
    kind: str, chosen: Tables, options: Options, usual: Sequence[str], fits: Callable[[Any], bool | str]
) -> str:
    """The column of all splits that the option names, or the one that can be it."""
    features = chosen["train"].features
    if (name := options.get(kind)) is not None:
        if name not in features:
            raise unknown("column", name, features)
        candidates = [name]
    else:
        sure = [each for each in features if fits(features[each]) is True]
        candidates = sure or [each for each in features if each in usual and fits(features[each])]
    if len(candidates) != 1 or not fits(features[candidates[0]]):
        columns = ", ".join(f"{each} ({_type(feature)})" for each, feature in features.items())
        example = candidates[0] if len(candidates) > 1 else "NAME"
        raise BadInput(f"one column must hold the {kind}s, but there are: {columns}; give ?{kind}={example}")
    for split, table in chosen.items():
        if table.features.get(candidates[0]) != features[candidates[0]]:
            fault = f"but {split} has another {candidates[0]!r} than train"
            raise BadInput(f"splits must have the same columns, {fault}; save them alike")
    return candidates[0]


def _type(feature: Any) -> str:
    return str(getattr(feature, "dtype", type(feature).__name__))


def _is_image(feature: Any) -> bool | str:
    """True for images, "bytes" for what may be encoded ones, "" for neither."""
    if type(feature).__name__ == "Image":
        return True
    content = feature.get("bytes") if isinstance(feature, dict) else feature
    return "bytes" if _type(content) in ("binary", "large_binary") else ""


def _is_label(feature: Any) -> bool | str:
    """True for classes, another type's name for what may be one, "" for neither."""
    if type(feature).__name__ == "ClassLabel":
        return True
    is_plain = type(feature).__name__ == "Value"
    return (
        _type(feature)
        if is_plain and _type(feature).startswith(("int", "uint", "string", "bool", "large_s"))
        else ""
    )


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
    column = _column("label", chosen, options, LABELS, _is_label)
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
