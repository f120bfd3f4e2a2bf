"""Reads a checkpoint of transformers as an image classifier, and refuses tensors that do not fit.

The file may lack the head. It may hold more than the classifier only where another of transformers' models
for the same configuration has these tensors (`tensors`).
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ablate.errors import BadInput
from ablate.models import heads, tensors, timm_models
from ablate.models.families import BACKBONES, TOWER_KEYS
from ablate.models.heads import few
from ablate.models.locating import HUB_HINT, config_of, first_line, source, weight_files
from ablate.models.unfusing import unfuse_

TIMM = "timm_wrapper"  # the model_type of transformers
# transformers' verbosity and torch's random generator belong to the process.
_process_state = threading.RLock()


@dataclass(frozen=True)
class Loaded:
    """A classifier, and how its checkpoint differs from it. Names of tensors are the model's.

    Attributes:
        model: Of transformers.
        missing: Tensors of the head that the file lacks; they are random in the model.
        resized: Tensors of the head that have another shape in the file, with that shape; they are random in
            the model.
        surplus: Tensors of the file that the model does not have.
    """

    model: Any
    missing: frozenset[str]
    resized: dict[str, tuple[int, ...]]
    surplus: tuple[str, ...]

    @property
    def random(self) -> frozenset[str]:
        """The tensors of the model that do not come from the file."""
        return self.missing | self.resized.keys()


def read(name: str, labels: Sequence[str] | None = None) -> Loaded:
    """Read a checkpoint as an image classifier in float32. The random state of the process is restored.

    Args:
        name: A bundled name, a `save_pretrained` folder or a hub name.
        labels: Names of the outputs; the checkpoint's own by default.

    Returns:
        The model, and how the file differs from it.

    Raises:
        BadInput: The name is unknown, or the checkpoint is missing, broken, incomplete, or holds more than
            the model.
    """
    config, where = config_of(name), source(name)
    with exclusive(), _quiet():
        try:
            classifier, settings, key_mapping = _classifier(config, labels)
            # On CPUs bfloat16 attention trains faster through plain matrix products than through SDPA; timm
            # decides by itself.
            sdpa = classifier._supports_sdpa and (torch.cuda.is_available() or settings.model_type == TIMM)
            model, info = classifier.from_pretrained(
                where,
                config=settings,
                dtype=torch.float32,
                attn_implementation="sdpa" if sdpa else "eager",
                key_mapping=key_mapping,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                trust_remote_code=False,
            )
            dtypes = _dtypes(where)
        except BadInput as error:
            raise BadInput(f"cannot load model {name!r}: {error}") from None
        except Exception as error:  # each file format raises its own kind
            raise BadInput(f"cannot load model {name!r}: {first_line(error)}; {HUB_HINT}") from None
    if settings.model_type == TIMM:
        unfuse_(model)
    resized = {key: tuple(shape) for key, shape, _ in info["mismatched_keys"]}
    if labels is None and resized and all(heads.is_part(model, key) for key in resized):
        # Its configuration has no labels, and transformers assumes two; the file knows the number.
        return read(name, [f"LABEL_{i}" for i in range(max(resized.values())[0])])
    try:
        tensors.check(model, info, config, dtypes)
    except BadInput as error:
        raise BadInput(f"checkpoint {name!r} {error}") from None
    return Loaded(model, frozenset(info["missing_keys"]), resized, tuple(sorted(info["unexpected_keys"])))


def random_classifier(name: str, labels: Sequence[str]) -> nn.Module:
    """Build `timm/NAME:random`, its weights from torch's random generator, in evaluation mode."""
    classifier, settings, _ = _classifier(config_of(name), labels)
    import timm

    settings._attn_implementation = "sdpa"
    with _quiet(), torch.device("meta"):
        model = classifier(settings)
    # not transformers' own initialisation, which would be the same for every layer of every model
    model.timm_model = timm.create_model(settings.architecture, num_classes=settings.num_labels)
    unfuse_(model)
    return model.eval()


@contextmanager
def exclusive() -> Iterator[None]:
    """Keep other threads out of this context, and restore the random state of the process after it."""
    with _process_state, torch.random.fork_rng(range(torch.cuda.device_count())):
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide transformers' warnings and progress bars in this context."""
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


def _classifier(
    config: dict[str, Any], labels: Sequence[str] | None
) -> tuple[Any, Any, dict[str, str] | None]:
    """transformers' class for a checkpoint, its configuration, and the `key_mapping` of its tensors."""
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES as MAPPING

    kind = config.get("model_type") or (TIMM if "architecture" in config else "unknown")
    key_mapping = None
    if kind == TIMM:
        config = timm_models.checked_config(config)
    if backbone := BACKBONES.get(kind):
        kind = backbone.classifier
        if backbone.is_tower:
            config, key_mapping = {"vision_config": config, "architectures": None}, TOWER_KEYS
        config = config | {"model_type": kind}
    if kind not in MAPPING:
        known = few(sorted(MAPPING), 100)
        raise BadInput(f"transformers has no image classifier of model_type {kind!r}; give one of {known}")
    classes = [MAPPING[kind]] if isinstance(MAPPING[kind], str) else MAPPING[kind]
    name = next((each for each in config.get("architectures") or () if each in classes), classes[0])
    classifier = getattr(transformers, name)
    fields = {} if labels is None else label_fields(labels)
    settings = classifier.config_class.from_dict(dict(config), **fields)
    for key, value in fields.items():  # timm's number of classes has overwritten them
        setattr(settings, key, value)
    if settings.id2label and settings.num_labels != len(settings.id2label):  # PVT has a field of its own
        settings.num_labels = len(settings.id2label)
    return classifier, settings, key_mapping


def label_fields(labels: Sequence[str]) -> dict[str, Any]:
    """The `id2label` and `label2id` of a configuration."""
    return {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}


def _dtypes(where: str) -> dict[str, torch.dtype]:
    """The stored dtypes of a checkpoint's tensors; empty where its files do not have the usual names."""
    from transformers.modeling_utils import load_state_dict

    states = (load_state_dict(str(file), map_location="meta") for file in weight_files(where))
    return {key: value.dtype for state in states for key, value in state.items()}
