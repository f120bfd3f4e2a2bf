"""Loads a checkpoint as a classifier of the data's classes, with a head that fits their labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ablate.config import builtin
from ablate.errors import BadInput
from ablate.models import heads, timm_models, torchvision_models
from ablate.models.heads import few
from ablate.models.locating import config_of, unread
from ablate.models.pretrained import Loaded, exclusive, label_fields, random_classifier, read
from ablate.models.unfusing import unfuse_


@dataclass(frozen=True)
class LoadReport:
    """What became of a checkpoint.

    Attributes:
        head: "kept", "permuted" into the data's order, "taken" where it has some of the rows, or "new".
        notes: What a user should know, a sentence each; the first is about the head.
    """

    head: heads.Fate
    notes: tuple[str, ...]


def load(name: str, labels: list[str], seed: int = 0) -> nn.Module:
    """Load a checkpoint as a classifier of the data's classes.

    Args:
        name: A bundled name, one of torchvision's, a `save_pretrained` folder or a hub name.
        labels: Names of the data's classes, in order.
        seed: Of the values that no checkpoint gives, such as those of a new head.

    Returns:
        The model in float32 on the CPU, in evaluation mode.

    Raises:
        BadInput: The name is unknown, or the checkpoint is missing, broken, incomplete, or holds more than
            the model.
    """
    return load_with_report(name, labels, seed)[0]


def load_with_report(name: str, labels: list[str], seed: int = 0) -> tuple[nn.Module, LoadReport]:
    """Load a checkpoint as a classifier of the data's classes, and report what became of it.

    Args:
        name: A bundled name, one of torchvision's, a `save_pretrained` folder or a hub name.
        labels: Names of the data's classes, in order.
        seed: Of the values that no checkpoint gives, such as those of a new head.

    Returns:
        The model in float32 on the CPU, in evaluation mode, and what became of the checkpoint and
        its head.

    Raises:
        BadInput: The name is unknown, or the checkpoint is missing, broken, incomplete, or holds more than
            the model.
    """
    with exclusive():
        torch.manual_seed(seed)
        if name in builtin.KNOWN:
            weights = "ImageNet's" if name in torchvision_models.PRETRAINED else "random"
            note = f"The head is new; all else has {weights} weights"
            unfuse_(model := torchvision_models.build(name, labels))
            return model, LoadReport("new", (note,))
        if timm_models.is_random(name):
            return random_classifier(name, labels), LoadReport("new", ("All weights are random",))
        return _load(name, labels, seed)


def _load(name: str, labels: list[str], seed: int) -> tuple[nn.Module, LoadReport]:
    match = heads.match(config_of(name), labels)
    fate, note = match.fate, match.note
    loaded = read(name, match.own or labels)
    if match.rows and (loaded.random or not heads.select(loaded.model, match.rows)):
        kind = type(loaded.model).__name__
        fate, note = "new", f"The head is new: the rows of a {kind}'s cannot be told apart"
        torch.manual_seed(seed)
        loaded = read(name, labels)
    model, layers = loaded.model, heads.outputs(loaded.model, len(labels))
    if not layers:
        rule = f"the head of model {name!r} must have {len(labels)} outputs"
        raise BadInput(f"{rule}, but a {type(model).__name__} cannot; give another")
    head = {f"{layer}.{key}" for layer, module in layers.items() for key, _ in module.named_parameters()}
    if loaded.missing or (loaded.resized and match.fate != "new"):
        fate, note = "new", f"The head is new: {_why_new(loaded, head, labels)}"
    if fate == "new" and not head <= loaded.random:
        heads.renew(model, layers.values(), seed)
    notes = [note, *_notes(name, fate, loaded, head)]
    _set_labels(model, labels)
    return model, LoadReport(fate, tuple(notes))


def _why_new(loaded: Loaded, head: set[str], labels: Sequence[str]) -> str:
    if loaded.missing:
        lacks = "has none" if head <= loaded.missing else f"lacks {few(sorted(loaded.missing))}"
        return f"the checkpoint {lacks}"
    outputs = max(loaded.resized.values(), default=(0,))[0]
    return f"the checkpoint's number of outputs is {outputs}, and the data's of classes {len(labels)}"


def _notes(name: str, fate: heads.Fate, loaded: Loaded, head: set[str]) -> list[str]:
    """What a user should know beside what became of the head."""
    notes = []
    if others := sorted(loaded.random - head):
        notes.append(f"New as well, and part of the head: {few(others)}")
    if surplus := loaded.surplus:
        count = f"{len(surplus)} of the checkpoint's tensors"
        notes.append(f"The classifier has no use for {count}: {few(surplus)}")
    if files := unread(name):
        notes.append(f"The folder has its weights more than once; not read: {few(files)}")
    if fate != "new" and config_of(name).get("problem_type") == "multi_label_classification":
        trained = "The head was trained to give an image several labels"
        notes.append(f"{trained}; here the largest output is the class")
    return notes


def _set_labels(model: Any, labels: Sequence[str]) -> None:
    for key, value in label_fields(labels).items():
        setattr(model.config, key, value)
    model.num_labels = len(labels)
    if model.config.problem_type in ("regression", "multi_label_classification"):
        model.config.problem_type = None
