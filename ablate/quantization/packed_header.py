"""The header of a packed model: format, packed layers, architecture and image processing.

It is written as transformers' config.json, with all that is ours in its `quantization_config`. Up to format 1
it was a file of its own, packed.json.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from importlib.metadata import version
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import nn

from ablate.config.trial_spec import LayerSpec, Spec
from ablate.errors import BadInput
from ablate.labels import one_line
from ablate.models.preprocessing import Preprocess
from ablate.models.torchvision_models import Named

FORMAT = 2  # version of the layout
METHOD, FIELD = "ablate", "quantization_config"
Dtype = Literal["float32", "float16", "bfloat16"]
UNWRITTEN = {"architectures", "dtype", FIELD}  # of a configuration: the header says them by itself

Side = Annotated[int, Field(ge=1, le=2**14)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Part = Annotated[float, Field(gt=0, le=16)]


class Images(Spec):
    """The image processing of a model: the fields of `Preprocess`, from `source` on where they are set."""

    size: tuple[Side, Side]
    resize: Side | tuple[Side, Side] | None
    interpolation: Literal["nearest", "nearest-exact", "lanczos", "bilinear", "bicubic"]
    scale: Finite
    mean: tuple[Finite, Finite, Finite]
    std: tuple[Positive, Positive, Positive]
    source: tuple[Side, Side] | None = None
    swapped: bool = False
    crop: bool = True
    crop_first: tuple[Part, Part] | None = None
    rounded: bool = False


class Architecture(Spec):
    """A model of transformers by its class, or a baseline by its name; `config` holds its labels too."""

    name: str
    attention: Literal["eager", "sdpa"]
    config: dict[str, Any]


class Stored(LayerSpec):
    """A packed layer, its norm decided. `beta_per` "tensor" and what only training reads are not written."""

    beta_per: Literal["tensor", "channel"] = "tensor"  # whatever a LayerSpec's default is
    norm: bool = False


class Header(Spec):
    """What describes a packed model.

    Attributes:
        format: FORMAT, or 1.
        sha256: Over the other fields and the tensors.
        dtype: Of the tensors in full precision.
        layers: By layer name, its precision.
        model: None for a model that transformers has no class for.
        preprocess: None for a model that was packed without it.
        attention_bits: Of the operands of its attention products; None, which is not written: floats.
    """

    format: Literal[1, 2]
    sha256: str
    dtype: Dtype
    layers: dict[str, Stored]
    model: Architecture | None
    preprocess: Images | None
    attention_bits: Annotated[int, Field(ge=2, le=8)] | None = None


def header_of(
    model: nn.Module,
    layers: Mapping[str, LayerSpec],
    preprocess: Preprocess | None,
    dtype: str,
    attention_bits: int | None = None,
) -> dict[str, Any]:
    """Describe a model.

    Args:
        model: To be packed.
        layers: By name, the precision of its quantized layers.
        preprocess: The image processing that it expects.
        dtype: Of its tensors in full precision.
        attention_bits: Of the operands of its attention products; None: floats.

    Returns:
        The fields of a `Header`, without `sha256`.
    """
    attention = {} if attention_bits is None else {"attention_bits": attention_bits}
    return {
        "format": FORMAT,
        "dtype": dtype,
        "layers": {name: _stored(spec) for name, spec in layers.items()},
        "model": _architecture(model),
        "preprocess": preprocess and _images(preprocess),
        **attention,
    }


@contextmanager
def naming_versions(header: Header) -> Iterator[None]:
    """Name both versions of transformers in a BadInput of this context, where they differ.

    Args:
        header: Of the model. Its configuration has the version that it was packed with.

    Raises:
        BadInput: As in the context.
    """
    try:
        yield
    except BadInput as error:
        config = header.model.config if header.model else {}
        then, now = one_line(str(config.get("transformers_version", "")))[:40], version("transformers")
        if then in ("", now):
            raise
        mend = "load it with that version, or pack the model again"
        raise BadInput(f"{error}; packed with transformers {then}, and this is {now}: {mend}") from None


def preprocess_of(images: Images | None) -> Preprocess | None:
    """Return the image processing of a header; None where a model was packed without it."""
    return None if images is None else Preprocess(**images.model_dump())


def to_config(header: dict[str, Any]) -> dict[str, Any]:
    """Write a header as the content of config.json, from which transformers builds the model as well.

    Args:
        header: The fields of a `Header`.

    Returns:
        The configuration. `dtype` is that of the loaded model, and not of the stored tensors.
    """
    config: dict[str, Any] = {}
    if model := header["model"]:
        names = {"architectures": [model["name"]], "attn_implementation": model["attention"]}
        config = {**model["config"], **names, "dtype": "float32"}
    own = {key: value for key, value in header.items() if key != "model"}
    return config | {FIELD: own | {"quant_method": METHOD}}


def of_config(config: dict[str, Any]) -> dict[str, Any]:
    """Undo `to_config`, as far as the content allows; what it was not made by comes out otherwise.

    Args:
        config: With a dict as its `quantization_config`.

    Returns:
        The fields of a `Header`, not checked.
    """
    rest = dict(config)
    own = {key: value for key, value in rest.pop(FIELD).items() if key != "quant_method"}
    if "architectures" not in rest:
        return own | {"model": None}
    names, attention, _ = (rest.pop(key, None) for key in ("architectures", "attn_implementation", "dtype"))
    name = names[0] if isinstance(names, list) and names else names
    return own | {"model": {"name": name, "attention": attention, "config": rest}}


def dumps(header: dict[str, Any]) -> bytes:
    """Write a header or a configuration in its only spelling: sorted, without spaces."""
    return json.dumps(header, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def sha256(header: dict[str, Any], tensors: bytes) -> str:
    """Compute the digest of a packed model.

    Args:
        header: The fields of a `Header`, without `sha256`.
        tensors: The content of model.safetensors.

    Returns:
        64 hexadecimal digits.
    """
    return hashlib.sha256(dumps(header) + tensors).hexdigest()


def _images(preprocess: Preprocess) -> dict[str, Any]:
    """Its fields; those that came after the first version only where they are set."""
    stored = [field for field in fields(preprocess) if field.name in Images.model_fields]
    values = {field: getattr(preprocess, field.name) for field in stored}
    return {field.name: value for field, value in values.items() if value != field.default}


def _stored(spec: LayerSpec) -> dict[str, Any]:
    unwritten = {"straight_through", "calibration"} | ({"beta_per"} if spec.beta_per == "tensor" else set())
    return spec.model_dump(exclude=unwritten)


def _architecture(model: nn.Module) -> dict[str, Any] | None:
    """Class and configuration, without the keys UNWRITTEN; of a baseline, its name and labels."""
    config = getattr(model, "config", None)
    if config is None:
        return None
    if isinstance(config, Named):
        labels = {str(i): label for i, label in config.id2label.items()}
        return {"name": config.name, "attention": "eager", "config": {"id2label": labels}}
    fields = config.to_diff_dict().items()
    public = {key: value for key, value in fields if key[0] != "_" and key not in UNWRITTEN}
    attention = "sdpa" if config._attn_implementation == "sdpa" else "eager"
    config = json.loads(json.dumps(public))  # labels get text for keys
    return {"name": type(model).__name__, "attention": attention, "config": config}
