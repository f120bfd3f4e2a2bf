"""A checkpoint of transformers as an image classifier: read, held against the model, its head fitted to the data's labels.

What the model has and the file lacks may be the head alone; what the file has and the model lacks, only what another of
transformers' models for the same configuration has: anything else is refused by its name.
"""

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ablate.config import builtin
from ablate.errors import BadInput
from ablate.models import heads, tensors, torchvision_models
from ablate.models.heads import few
from ablate.models.locating import config_of, first_line, source, unread

TOWERS = ("clip", "siglip", "metaclip_2")  # dual encoders whose image tower has checkpoints of its own
_one_at_a_time = threading.RLock()  # what transformers shows, and torch's generator, belong to the process


@dataclass(frozen=True)
class LoadReport:
    """What became of a checkpoint.

    Attributes:
        head: "kept", "permuted" into the data's order, "taken" where only some of its rows are, or made "new".
        notes: What a user should know, a sentence each; the first is about the head.
    """

    head: heads.Fate
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Loaded:
    """A classifier, and what its file gives of it.

    missing: the tensors of its head that the file lacks. resized: those that the file has in another shape, which is their
    value. surplus: those that the file has beside. In the model, the first two are random.
    """

    model: Any
    missing: frozenset[str]
    resized: dict[str, tuple[int, ...]]
    surplus: tuple[str, ...]

    @property
    def random(self) -> frozenset[str]:
        return self.missing | self.resized.keys()


def load(name: str, labels: list[str], seed: int = 0) -> nn.Module:
    """The model with a head for `labels`; what no checkpoint gives, such as a head, is initialised from `seed`.

    Raises BadInput for an unknown name and for a checkpoint that is missing, broken, incomplete, or holds more than the model.
    """
    return load_with_report(name, labels, seed)[0]


def load_with_report(name: str, labels: list[str], seed: int = 0) -> tuple[nn.Module, LoadReport]:
    """Load a checkpoint as a classifier of the data's classes.

    Args:
        name: A bundled name, one of torchvision's, a `save_pretrained` folder or a hub name.
        labels: Names of the data's classes, in order.
        seed: Of the random values that no checkpoint gives, such as those of a new head.

    Returns:
        The model in float32 on the CPU, ready for evaluation, and what became of the checkpoint and of its head.

    Raises:
        BadInput: The name is unknown, or the checkpoint is missing, broken, incomplete, or holds more than the model.
    """
    with _alone():
        torch.manual_seed(seed)
        if name in builtin.KNOWN:
            weights = "ImageNet's" if name in torchvision_models.PRETRAINED else "random"
            return torchvision_models.build(name, labels), LoadReport(
                "new", (f"The head is new; all else has {weights} weights",)
            )
        return _load(name, labels, seed)


def _load(name: str, labels: list[str], seed: int) -> tuple[nn.Module, LoadReport]:
    config = config_of(name)
    found = heads.match(config, labels)
    fate, note = found.fate, found.note
    loaded = read(name, found.own or labels)
    if found.rows and (loaded.random or not heads.select(loaded.model, found.rows)):
        fate, note = (
            "new",
            f"The head is new: the rows of a {type(loaded.model).__name__}'s cannot be told apart",
        )
        torch.manual_seed(seed)
        loaded = read(name, labels)
    model, last = loaded.model, heads.outputs(loaded.model, len(labels))
    if not last:
        raise BadInput(
            f"the head of model {name!r} must have {len(labels)} outputs, but a {type(model).__name__} cannot; give another"
        )
    ends = {f"{layer}.{key}" for layer, module in last.items() for key, _ in module.named_parameters()}
    if loaded.missing or (loaded.resized and found.fate != "new"):
        lacks = "has none" if ends <= loaded.missing else f"lacks {few(sorted(loaded.missing))}"
        other = f"'s number of outputs is {max(loaded.resized.values(), default=(0,))[0]}, and the data's of classes {len(labels)}"
        fate, note = "new", f"The head is new: the checkpoint{f' {lacks}' if loaded.missing else other}"
    if fate == "new" and not ends <= loaded.random:
        heads.renew(model, last.values(), seed)
    notes = [note]
    if others := sorted(loaded.random - ends):
        notes.append(f"New as well, and part of the head: {few(others)}")
    if loaded.surplus:
        notes.append(
            f"The classifier has no use for {len(loaded.surplus)} of the checkpoint's tensors: {few(loaded.surplus)}"
        )
    if others := unread(name):
        notes.append(f"The folder has its weights more than once; not read: {few(others)}")
    if fate != "new" and config.get("problem_type") == "multi_label_classification":
        notes.append(
            "The head was trained to give an image several labels; here the largest output is the class"
        )
    names = dict(enumerate(labels))
    model.config.id2label, model.config.label2id, model.num_labels = (
        names,
        {v: k for k, v in names.items()},
        len(labels),
    )
    if model.config.problem_type in ("regression", "multi_label_classification"):
        model.config.problem_type = None
    return model, LoadReport(fate, tuple(notes))


def read(name: str, labels: Sequence[str] | None = None) -> Loaded:
    """The checkpoint as an image classifier in float32, with outputs for `labels`, or for those of its own.

    The random state of the process is as it was. Raises BadInput as `load` does.
    """
    config, where = config_of(name), source(name)
    with _alone(), _quiet():
        try:
            classifier, settings, renamed = _classifier(config, labels)
            # On CPUs bfloat16 attention trains faster through plain matrix products than through SDPA.
            sdpa = torch.cuda.is_available() and classifier._supports_sdpa
            model, info = classifier.from_pretrained(
                where,
                config=settings,
                dtype=torch.float32,
                attn_implementation="sdpa" if sdpa else "eager",
                key_mapping=renamed,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                trust_remote_code=False,
            )
            stored = _dtypes(where)
        except BadInput as error:
            raise BadInput(f"cannot load model {name!r}: {error}") from None
        except Exception as error:  # each file format raises its own kind
            mend = "give a bundled name, a save_pretrained folder or, with a network, a hub name"
            raise BadInput(f"cannot load model {name!r}: {first_line(error)}; {mend}") from None
    resized = {key: tuple(shape) for key, shape, _ in info["mismatched_keys"]}
    loaded = Loaded(model, frozenset(info["missing_keys"]), resized, tuple(sorted(info["unexpected_keys"])))
    if (
        labels is None and resized and all(heads.is_part(model, key) for key in resized)
    ):  # more outputs than it has labels for
        return read(name, [f"LABEL_{i}" for i in range(max(resized.values())[0])])
    try:
        tensors.check(model, info, config, stored)
    except BadInput as error:
        raise BadInput(f"checkpoint {name!r} {error}") from None
    return loaded


def _classifier(
    config: dict[str, Any], labels: Sequence[str] | None
) -> tuple[Any, Any, dict[str, str] | None]:
    """transformers' class for the checkpoint, its configuration, and how the file's tensors are to be renamed."""
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES as MAPPING

    kind, renamed = (
        config.get("model_type") or ("timm_wrapper" if "architecture" in config else "unknown"),
        None,
    )
    tower = kind.removesuffix("_vision_model")
    if kind == "vit_mae":  # the encoder is a ViT
        kind, config = "vit", config | {"model_type": "vit"}
    elif tower != kind and tower in TOWERS:
        kind, config = tower, {"model_type": tower, "vision_config": config, "architectures": None}
        renamed = {r"^(?=(embeddings|encoder|head|pre_layrnorm|post_layernorm)\.)": "vision_model."}
    if kind not in MAPPING:
        raise BadInput(
            f"transformers has no image classifier of model_type {kind!r}; give one of {few(sorted(MAPPING), 100)}"
        )
    classes = [MAPPING[kind]] if isinstance(MAPPING[kind], str) else MAPPING[kind]
    chosen = next((each for each in config.get("architectures") or () if each in classes), classes[0])
    classifier = getattr(transformers, chosen)
    names = (
        {}
        if labels is None
        else {"id2label": dict(enumerate(labels)), "label2id": {v: i for i, v in enumerate(labels)}}
    )
    settings = classifier.config_class.from_dict(dict(config), **names)
    for key, value in names.items():  # timm's count of classes has overwritten them
        setattr(settings, key, value)
    if settings.id2label and settings.num_labels != len(settings.id2label):  # PVT counts them apart
        settings.num_labels = len(settings.id2label)
    return classifier, settings, renamed


def _dtypes(where: str) -> dict[str, torch.dtype]:
    """The types in which the checkpoint's tensors are stored; none where its files have names of their own."""
    from transformers.modeling_utils import load_state_dict
    from transformers.utils import cached_file

    def path(file: str) -> str | None:
        return cached_file(where, file, local_files_only=True, _raise_exceptions_for_missing_entries=False)

    for name in ("model.safetensors", "pytorch_model.bin"):
        if whole := path(name):
            shards = [whole]
        elif index := path(f"{name}.index.json"):
            listed = json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"].values()
            shards = [shard for each in sorted(set(listed)) if (shard := path(each))]
        else:
            continue
        return {
            key: value.dtype
            for shard in shards
            for key, value in load_state_dict(shard, map_location="meta").items()
        }
    return {}


@contextmanager
def _alone() -> Iterator[None]:
    """Within: no other thread is here, and the random state of the process is put back afterwards."""
    with _one_at_a_time, torch.random.fork_rng(range(torch.cuda.device_count())):
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    """Within: transformers shows neither warnings nor progress."""
    from transformers.utils import logging

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()
