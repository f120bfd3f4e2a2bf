"""What becomes of a checkpoint's head for the data's labels: kept, permuted, cut to some rows, or new."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from ablate.labels import shortened
from ablate.models.families import image_size

Fate = Literal["kept", "permuted", "taken", "new"]
_NEW: Literal["new"] = "new"
OUTPUTS = (nn.Linear, nn.Conv2d)  # types of layers whose outputs may be the logits


@dataclass(frozen=True)
class Match:
    """What becomes of a head, decided by labels alone, before a tensor is read.

    Attributes:
        fate: "kept", "permuted", "taken" (some rows) or "new".
        note: A sentence about it.
        own: The checkpoint's labels, where the head is permuted or taken.
        rows: For each label of the data, its row in the checkpoint's head.
        changed: Its part in a trial's id. None where the head is kept in order or has another size, which
            keeps the ids of the first versions.
    """

    fate: Fate
    note: str
    own: tuple[str, ...] = ()
    rows: tuple[int, ...] = ()
    changed: tuple[int, ...] | Literal["new"] | None = None


def match(config: Mapping[str, Any], labels: Sequence[str]) -> Match:
    """Compare the labels of a checkpoint with the data's.

    Labels are compared as they are. Where not all of the data's are found that way, case is ignored, except
    in single letters, and so is whether spaces, underscores or hyphens separate words.

    Args:
        config: What the checkpoint's config.json holds.
        labels: Names of the data's classes, in order.

    Returns:
        What becomes of the head.
    """
    own, doubt = _own_labels(config)
    n, changed = len(own), _NEW if len(own) == len(labels) else None
    if doubt:
        return Match("new", f"The head is new: {doubt}", changed=changed)
    if rows := _rows(own, labels):
        if rows == tuple(range(n)):
            return Match("kept", "The head is kept: the checkpoint's labels are the data's")
        if len(rows) == n:
            order = f"its rows in the data's order of the classes; the checkpoint's is {few(own)}"
            return Match("permuted", f"The head is kept, {order}", tuple(own), rows, rows)
        note = f"The head is made of the {len(rows)} rows of the data's classes among the checkpoint's {n}"
        return Match("taken", note, tuple(own), rows, rows)
    if _is_generic(own):
        why = f"the checkpoint's labels name no class, {f'they are {few(own)}' if own else 'it has none'}"
        return Match("kept", f"The head is kept as it is, for {few(labels)} in this order: {why}")
    theirs, wanted = f"the checkpoint's {n} labels ({few(own)})", f"the data's {len(labels)} ({few(labels)})"
    return Match("new", f"The head is new: {theirs} are not {wanted}", changed=changed)


def few(names: Sequence[str], most: int = 4) -> str:
    """The names in a line for messages.

    Args:
        names: Of anything; long ones lose their middle.
        most: How many are shown before "...".

    Returns:
        The names, separated by commas.
    """
    shown = [shortened(name, 80) for name in names[:most]]
    return ", ".join([*shown, "..."] if len(names) > most else shown)


def _own_labels(config: Mapping[str, Any]) -> tuple[list[str], str]:
    """The checkpoint's labels by output, and why they cannot be trusted ("" where they can)."""
    try:
        # timm has `label_names`.
        id2label = config.get("id2label") or dict(enumerate(config.get("label_names") or ()))
        names = {int(i): str(name) for i, name in id2label.items()}
        ids = {int(i): str(name) for name, i in (config.get("label2id") or {}).items()}
    except (AttributeError, TypeError, ValueError):
        return [], "the checkpoint's id2label and label2id must number its labels"
    whole = [*range(len(ids))] == sorted(ids) and len(ids) == len(names or ids)
    if whole and not _is_generic(ids) and _is_generic(names):
        names = ids
    own = [names[i] for i in sorted(names)]
    if sorted(names) != [*range(len(names))]:
        numbers = few([str(i) for i in sorted(names)])
        return own, f"the checkpoint's labels must be numbered from 0, but are {numbers}"
    if not _is_generic(ids) and (wrong := [name for i, name in ids.items() if names.get(i) != name]):
        return own, f"the checkpoint's id2label and label2id contradict each other in {wrong[0]!r}"
    if config.get("problem_type") == "regression":
        return own, "the checkpoint's is one for regression"
    return own, ""


def _is_generic(names: Mapping[int, str] | Sequence[str]) -> bool:
    """Whether names are only their numbers, as in LABEL_0, class 1 or 2."""
    numbered = names.items() if isinstance(names, Mapping) else enumerate(names)
    return all(re.fullmatch(rf"(label|class)?[ _-]*0*{i}", name.strip().casefold()) for i, name in numbered)


def _rows(own: Sequence[str], labels: Sequence[str]) -> tuple[int, ...]:
    """The index in `own` of each label; empty where one of them is missing or ambiguous."""
    normalisations: tuple[Callable[[str], str], ...] = (str, _plain)
    for normalised in normalisations:
        theirs, wanted = [normalised(name) for name in own], [normalised(name) for name in labels]
        count, index = Counter(theirs), {name: i for i, name in enumerate(theirs)}
        if len(set(wanted)) == len(wanted) and all(count[name] == 1 for name in wanted):
            return tuple(index[name] for name in wanted)
    return ()


def _plain(name: str) -> str:
    """A name without differences of spelling alone. A sign at its beginning stays: -1 is not 1."""
    text = unicodedata.normalize("NFC", name).strip()
    text = text if len(text) == 1 else text.casefold()
    return re.sub(r"(?<=[^\W_])[\s_-]+(?=[^\W_])", " ", text)


def behind(model: nn.Module) -> list[str]:
    """The names of a model's children after its backbone, which is the child with most modules.

    timm says itself which modules its classifiers are.
    """
    if (timm := getattr(model, "timm_model", None)) is not None:
        found = timm.get_classifier()
        heads = {id(each) for each in (found if isinstance(found, tuple | list | nn.ModuleList) else [found])}
        return [name for name, module in model.named_modules() if id(module) in heads]
    names = [name for name, _ in model.named_children()]
    sizes = [sum(1 for _ in child.modules()) for child in model.children()]
    return names[sizes.index(max(sizes)) + 1 :] if names else []


def outputs(model: nn.Module, classes: int) -> dict[str, nn.Module]:
    """The layers whose outputs are the logits.

    Args:
        model: A classifier.
        classes: The number of its outputs.

    Returns:
        Name -> layer: in each module after the backbone, the last layer of this many outputs.
    """
    layers: dict[int, tuple[str, nn.Module]] = {}
    for part in behind(model) or [""]:
        for name, module in model.get_submodule(part).named_modules(prefix=part):
            if isinstance(module, OUTPUTS) and len(module.weight) == classes:
                layers[id(module) if part else 0] = (name, module)
    return dict(layers.values())


def is_part(model: nn.Module, key: str) -> bool:
    """Whether a tensor belongs to the head.

    Args:
        model: A classifier.
        key: The tensor's name.

    Returns:
        True after the backbone, in a pooler and, where nothing is after the backbone, in the last layer.
    """
    last = [name for name, module in model.named_modules() if isinstance(module, OUTPUTS)][-1:]
    return key.startswith(tuple(f"{part}." for part in behind(model) or last)) or "pooler" in key.split(".")


def select(model: Any, rows: Sequence[int]) -> bool:
    """Cut or permute the model's outputs in place.

    Args:
        model: A classifier of transformers.
        rows: Of the head, to keep in this order.

    Returns:
        Whether the logits of random images are then those of before, in this order.
    """
    pixels = torch.randn(2, 3, *(image_size(model.config) or (64, 64)))
    try:
        with torch.no_grad():
            before = model(pixels).logits[:, list(rows)]  # (2, classes)
            for layer in outputs(model, model.config.num_labels).values():
                for name, values in [*layer.named_parameters()]:
                    layer.register_parameter(name, nn.Parameter(values.detach()[list(rows)]))
                setattr(layer, "out_features" if isinstance(layer, nn.Linear) else "out_channels", len(rows))
            after = model(pixels).logits
    except Exception:  # the model does not accept such images, or its head has another structure
        return False
    return after.shape == before.shape and torch.allclose(after, before, rtol=1e-4, atol=1e-5)


def renew(model: Any, layers: Iterable[nn.Module], seed: int) -> None:
    """Initialise layers as transformers does for a new model.

    Args:
        model: That holds them.
        layers: To initialise; all others stay.
        seed: Of their values.
    """
    torch.manual_seed(seed)
    for layer in layers:
        for part in (layer, *layer.parameters()):
            setattr(part, "_is_hf_initialized", False)  # noqa: B010
    model.initialize_weights()
