"""What identifies a model in the ids of its trials: a digest of its files, and what becomes of its head."""

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from ablate.config import builtin
from ablate.errors import BadInput
from ablate.models import heads, timm_models, torchvision_models
from ablate.models.loading import Stamp, location, preprocess
from ablate.models.locating import HUB_HINT, WEIGHTS, config_of, file_of, first_line, weight_files
from ablate.models.pretrained import exclusive, random_classifier, read

NO_EFFECT = (  # keys of a configuration that change no output
    "_name_or_path",
    "transformers_version",
    "dtype",
    "torch_dtype",
    "id2label",
    "label2id",
)
PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
# Digest of a bundled model's files -> the digest of the first versions of ablate, so that its trials keep
# their ids.
BUNDLED = {
    "ad145a8648cf82090d9200cd22a6e932cf53b909f5a66f9965859f68be2558eb":  # vit-micro
    "5c5bef8e06b5a0694ef554deece93d1eeb70e5fc943d42c11c2be89861b79d76",
}
_kept = {**BUNDLED}  # digest of files -> the one that is used in its place


def digest(name: str) -> str:
    """sha256 of a checkpoint's files, which no version of a library changes; cached until they change.

    Configuration and image processor count as they stand in their files, without labels and versions.

    Args:
        name: As of `checkpoints.load`.

    Returns:
        64 hexadecimal digits. A model that `keep_start` has recognised keeps its earlier digest.

    Raises:
        BadInput: The name is unknown, or a file is missing or broken.
    """
    computed = _digest(name, *location(name))
    return _kept.get(computed, computed)


@lru_cache
def _digest(name: str, source: str, stamp: Stamp) -> str:
    if name in builtin.KNOWN:
        with exclusive():
            return torchvision_models.digest(name)
    if timm_models.is_random(name):
        return _random_digest(name)
    config = {key: value for key, value in config_of(name).items() if key not in NO_EFFECT}
    try:
        processors = [_fields(file_of(source, file)) for file in PROCESSOR_FILES]
        weights = [_sha256_of(file) for file in weight_files(source)]
        if not weights:
            raise ValueError(f"it has none of {', '.join(WEIGHTS)}")
    except Exception as error:  # of the network, the hub and the disk
        raise BadInput(f"cannot load model {name!r}: {first_line(error)}; {HUB_HINT}") from None
    about = json.dumps([config, processors, weights], sort_keys=True)
    return hashlib.sha256(about.encode()).hexdigest()


def _random_digest(name: str) -> str:
    """sha256 of a model's name, its image processing and the shapes of its tensors without the head."""
    with exclusive(), torch.device("meta"):
        model = random_classifier(name, ["one"])
    tensors = model.state_dict().items()
    shapes = {key: [*value.shape] for key, value in tensors if not heads.is_part(model, key)}
    about = [name, shapes, preprocess(name).identity]
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _fields(path: Path | None) -> Any:
    return None if path is None else json.loads(path.read_text(encoding="utf-8-sig"))


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _first_digest(name: str) -> str:
    """The digest of the first versions of ablate: of what transformers made of the files, in its names."""
    loaded = read(name)
    config, model = loaded.model.config, loaded.model
    unread = (*NO_EFFECT, "architectures")
    fields = {key: value for key, value in config.to_diff_dict().items() if key not in unread}
    about = json.dumps([fields, preprocess(name).identity], sort_keys=True, default=str)
    sha = hashlib.sha256(about.encode())
    for key, tensor in sorted(model.state_dict().items()):
        if key not in loaded.random:
            sha.update(key.encode() + tensor.contiguous().numpy().tobytes())
    return sha.hexdigest()


def keep_start(name: str, labels: list[str], recorded: str) -> None:
    """Recognise a model by what a run recorded as its `start`, so that ids of its trials stay what they are.

    Versions of ablate before the digest of files recorded another one. Where it is that of the model as it
    is now, the model keeps it until `forget_kept` is called.

    Args:
        name: As of `checkpoints.load`.
        labels: Names of the data's classes, in order.
        recorded: What `start` was when the run began.

    Raises:
        BadInput: The name is unknown, or the checkpoint broken.
    """
    computed = _digest(name, *location(name))
    _kept[computed] = BUNDLED.get(computed, computed)
    if name in builtin.KNOWN or timm_models.is_random(name) or start(name, labels) == recorded:
        return
    if _start(first := _first_digest(name), name, labels) == recorded:
        _kept[computed] = first


def forget_kept() -> None:
    """Let each model have the digest of its files again, whatever `keep_start` has recognised."""
    _kept.clear()
    _kept.update(BUNDLED)


def start(name: str, labels: list[str]) -> str:
    """A hash of what a trial starts from: the checkpoint, and what becomes of its head for these labels.

    Args:
        name: As of `checkpoints.load`.
        labels: Names of the data's classes, in order.

    Returns:
        `digest(name)` where the head is kept in order or has another size, as in the first versions; else
        another hash.

    Raises:
        BadInput: The name is unknown, or the checkpoint broken.
    """
    return _start(digest(name), name, labels)


def _start(checkpoint: str, name: str, labels: list[str]) -> str:
    changed = heads.match(config_of(name), labels).changed
    if changed is None:
        return checkpoint
    return hashlib.sha256(json.dumps([checkpoint, changed]).encode()).hexdigest()
