"""Module names that versions of transformers changed: those in a packed model are mapped to its model's."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

Rename = Callable[[str], str]

# Parts of names before and since some version of transformers from the oldest allowed one on. With them, an
# older version reads what a newer one wrote; the other way transformers' own conversions help as well.
RENAMED = (  # DINOv2, with registers too
    ("attention.attention.query.", "attention.q_proj."),
    ("attention.attention.key.", "attention.k_proj."),
    ("attention.attention.value.", "attention.v_proj."),
    ("attention.output.dense.", "attention.o_proj."),
)


def current_names(model: Any, names: Iterable[str]) -> dict[str, str]:
    """Map the names of a model's tensors in another version of transformers to those in this one.

    Args:
        model: A classifier.
        names: Of all of its tensors, as they were in the other version.

    Returns:
        Their names -> the model's own names. The same names where they are the model's already, and where no
        known change of names leads to the model's.
    """
    names, own = [*names], {*model.state_dict()}
    for rename in _renames(model):
        renamed = {name: rename(name) for name in names}
        if {*renamed.values()} == own and len(names) == len(own):
            return renamed
    return {name: name for name in names}


def spellings(name: str) -> list[str]:
    """Return a module's name as it is, and as the known changes would have it, in both directions."""
    return [name, _replaced(name, RENAMED), _replaced(name, [(new, old) for old, new in RENAMED])]


def _renames(model: Any) -> Iterator[Rename]:
    yield lambda name: name
    yield lambda name: _replaced(name, RENAMED)
    yield lambda name: _replaced(name, [(new, old) for old, new in RENAMED])
    with suppress(Exception):  # it is none of transformers', whose conversions are no public interface
        yield _conversion(model)


def _replaced(name: str, pairs: Iterable[tuple[str, str]]) -> str:
    for before, after in pairs:
        name = name.replace(before, after)
    return name


def _conversion(model: Any) -> Rename:
    """What transformers does to the names in the file of an older checkpoint of this model."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming

    conversions = get_model_conversion_mapping(model, add_legacy=False)
    renamings = [each for each in conversions if isinstance(each, WeightRenaming)]

    def rename(name: str) -> str:
        for renaming in renamings:
            name, _ = renaming.rename_source_key(name)
        return name

    return rename
