"""The head of a checkpoint against the data's labels: kept, put into their order, cut to their rows, or made anew."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from ablate.labels import shortened

Fate = Literal["kept", "permuted", "taken", "new"]
_NEW: Literal["new"] = "new"
OUTPUTS = (nn.Linear, nn.Conv2d)  # what may end in the logits


@dataclass(frozen=True)
class Match:
    """What becomes of a head, decided by names alone, before a tensor is read.

    rows: for "permuted" and "taken", which of the checkpoint's own labels each of the data's is. note: a sentence about it.
    changed: what a trial's id holds of it: nothing where the head is what it always was, in order or of another size.
    """

    fate: Fate
    note: str
    own: tuple[str, ...] = ()
    rows: tuple[int, ...] = ()
    changed: tuple[int, ...] | Literal["new"] | None = None


def match(config: Mapping[str, Any], labels: Sequence[str]) -> Match:
    """Compare the labels of a checkpoint with the data's.

    Names are compared as they stand, and then, where that leaves them distinct, without regard to case and to whether
    spaces, underscores or hyphens are between words. Single letters keep their case.

    Args:
        config: What the checkpoint's config.json holds.
        labels: Names of the data's classes, in order.

    Returns:
        What becomes of the head, and a sentence that says so.
    """
    own, doubt = _own_labels(config)
    n, changed = len(own), _NEW if len(own) == len(labels) else None
    if doubt:
        return Match("new", f"The head is new: {doubt}", changed=changed)
    if rows := _rows(own, labels):
        if rows == tuple(range(n)):
            return Match("kept", "The head is kept: the checkpoint's labels are the data's")
        fate: Fate = "permuted" if len(rows) == n else "taken"
        order = (
            f"The head is kept, its rows in the data's order of the classes; the checkpoint's is {few(own)}"
        )
        part = f"The head is made of the {len(rows)} rows of the data's classes among the checkpoint's {n}"
        return Match(fate, order if fate == "permuted" else part, tuple(own), rows, rows)
    if _is_generic(own):
        said = f"the checkpoint's labels name no class, {f'they are {few(own)}' if own else 'it has none'}"
        return Match("kept", f"The head is kept as it is, for {few(labels)} in this order: {said}")
    note = f"The head is new: the checkpoint's {n} labels ({few(own)}) are not the data's {len(labels)} ({few(labels)})"
    return Match("new", note, changed=changed)


def few(names: Sequence[str], most: int = 4) -> str:
    """The names in a line, or the first of many; long ones without their middle."""
    return ", ".join(
        [*(shortened(name, 80) for name in names[:most]), *(["..."] if len(names) > most else [])]
    )


def _own_labels(config: Mapping[str, Any]) -> tuple[list[str], str]:
    """The labels of a checkpoint by the number of their output; and why they can't be trusted, where they can't."""
    try:
        given = config.get("id2label") or dict(
            enumerate(config.get("label_names") or ())
        )  # the latter is timm's
        names = {int(i): str(name) for i, name in given.items()}
        ids = {int(i): str(name) for name, i in (config.get("label2id") or {}).items()}
    except (AttributeError, TypeError, ValueError):
        return [], "the checkpoint's id2label and label2id must number its labels"
    whole = [*range(len(ids))] == sorted(ids) and len(ids) == len(names or ids)
    if whole and not _is_generic(ids) and _is_generic(names):
        names = ids
    own = [names[i] for i in sorted(names)]
    if sorted(names) != [*range(len(names))]:
        return (
            own,
            f"the checkpoint's labels must be numbered from 0, but are {few([str(i) for i in sorted(names)])}",
        )
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
    """The place of each label among one's own, each of which must be there once; empty where one is not."""
    readings: tuple[Callable[[str], str], ...] = (str, _plain)
    for reading in readings:
        theirs, wanted = [reading(name) for name in own], [reading(name) for name in labels]
        count, place = Counter(theirs), {name: i for i, name in enumerate(theirs)}
        if len(set(wanted)) == len(wanted) and all(count[name] == 1 for name in wanted):
            return tuple(place[name] for name in wanted)
    return ()


def _plain(name: str) -> str:
    """A name without what only writing it differs in. A sign at its beginning stays: -1 is not 1."""
    text = unicodedata.normalize("NFC", name).strip()
    text = text if len(text) == 1 else text.casefold()
    return re.sub(r"(?<=[^\W_])[\s_-]+(?=[^\W_])", " ", text)


def behind(model: nn.Module) -> list[str]:
    """The names of the modules behind the backbone, which is the one of the model's children with most modules."""
    names = [name for name, _ in model.named_children()]
    sizes = [sum(1 for _ in child.modules()) for child in model.children()]
    return names[sizes.index(max(sizes)) + 1 :] if names else []


def outputs(model: nn.Module, classes: int) -> dict[str, nn.Module]:
    """The layers whose outputs are the logits: the last of so many outputs in each module behind the backbone."""
    found: dict[int, tuple[str, nn.Module]] = {}
    for part in behind(model) or [""]:
        for name, module in model.get_submodule(part).named_modules(prefix=part):
            if isinstance(module, OUTPUTS) and len(module.weight) == classes:
                found[id(module) if part else 0] = (name, module)
    return dict(found.values())


def is_part(model: nn.Module, key: str) -> bool:
    """Whether a tensor is of the head: behind the backbone, in its pooler or, where nothing is behind, in the last layer."""
    last = [name for name, module in model.named_modules() if isinstance(module, OUTPUTS)][-1:]
    return key.startswith(tuple(f"{part}." for part in behind(model) or last)) or "pooler" in key.split(".")


def select(model: Any, rows: Sequence[int]) -> bool:
    """Cut or permute the model's outputs in place; whether its logits are then those of before, in this order."""
    pixels = torch.randn(2, 3, *_size(model.config))
    try:
        with torch.no_grad():
            before = model(pixels).logits[:, list(rows)]  # (2, classes)
            for layer in outputs(model, model.config.num_labels).values():
                for name, values in [*layer.named_parameters()]:
                    layer.register_parameter(name, nn.Parameter(values.detach()[list(rows)]))
                setattr(layer, "out_features" if isinstance(layer, nn.Linear) else "out_channels", len(rows))
            after = model(pixels).logits
    except Exception:  # a model that takes no such images, or whose head is of another make
        return False
    return after.shape == before.shape and torch.allclose(after, before, rtol=1e-4, atol=1e-5)


def _size(config: Any) -> tuple[int, int]:
    """(height, width) of images that a model takes, by its configuration."""
    timm = getattr(config, "pretrained_cfg", None) or {}
    size = getattr(config, "image_size", None) or getattr(
        getattr(config, "vision_config", None), "image_size", None
    )
    size = size or timm.get("input_size", (3, 64, 64))[1:]
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def renew(model: Any, layers: Iterable[nn.Module], seed: int) -> None:
    """Initialise these layers as transformers does it, from the seed."""
    torch.manual_seed(seed)
    for layer in layers:
        for part in (layer, *layer.parameters()):
            setattr(part, "_is_hf_initialized", False)  # noqa: B010
    model.initialize_weights()
