"""What sets a model family apart where neither its structure nor its configuration says it.

Layer groups, heads and the layers that stay in full precision are derived from a model's structure
(`layer_groups`, `heads`, `unquantizable`), so most families of transformers need no row here. A family that
does gets a row in one of these tables; its tiny twin in tests/families.py shows what works, and `python
docs/make_families.py` documents it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Size = tuple[int, int]  # (height, width), in pixels
Resize = int | Size  # an int is the shorter side
Channels = tuple[float, ...]  # one value for each of three channels


# Checkpoints


@dataclass(frozen=True)
class Backbone:
    """How to read a checkpoint whose model_type has no image classifier in transformers.

    Attributes:
        classifier: The model_type whose classifier is built.
        is_tower: The configuration is the `vision_config` of a model of images and texts.
    """

    classifier: str
    is_tower: bool = False


BACKBONES = {  # by model_type
    "vit_mae": Backbone("vit"),  # its encoder is a ViT
    "clip_vision_model": Backbone("clip", is_tower=True),
    "metaclip_2_vision_model": Backbone("metaclip_2", is_tower=True),
    "siglip_vision_model": Backbone("siglip", is_tower=True),
}
# Names of tensors in the file of a tower -> names in the classifier, as `key_mapping` of from_pretrained.
TOWER_KEYS = {r"^(?=(embeddings|encoder|head|pre_layrnorm|post_layernorm)\.)": "vision_model."}


# Image processors


def image_size(config: Any) -> Size | None:
    """The size of the images that a model of transformers takes, where its configuration names it."""
    parts = (config, getattr(config, "vision_config", None))
    named = next((size for part in parts if (size := getattr(part, "image_size", None))), None)
    if timm := getattr(config, "pretrained_cfg", None):
        arguments = getattr(config, "model_args", None) or {}
        named = arguments.get("img_size") or timm.get("input_size", ())[-2:]
    return (named, named) if isinstance(named, int) else (named[0], named[1]) if named else None


def size_of(processor: Any) -> Resize:
    """The `size` of an image processor.

    Args:
        processor: Of transformers.

    Returns:
        The shorter side, or (height, width).

    Raises:
        ValueError: It is neither.
    """
    size = dict(processor.size or {})
    if size.get("shortest_edge"):
        return int(size["shortest_edge"])
    if not (size.get("height") and size.get("width")):
        raise ValueError(f"its size must be a height and a width, or a shortest_edge, but is {size}")
    return int(size["height"]), int(size["width"])


def per_channel(values: Any) -> Channels:
    """Three values, where there may be one for all channels."""
    given = (values,) if isinstance(values, int | float) else tuple(values)
    return given * 3 if len(given) == 1 else given


def _plain_resize(processor: Any) -> tuple[Resize, None]:
    return size_of(processor), None


def _convnext_resize(processor: Any) -> tuple[Resize, Size | None]:
    if not isinstance(side := size_of(processor), int):
        raise ValueError(f"its size must be a shortest_edge, but is {side}")
    return (int(side / processor.crop_pct), (side, side)) if side < 384 else ((side, side), None)


def _poolformer_resize(processor: Any) -> tuple[Resize, None]:
    size, part = size_of(processor), processor.crop_pct
    if part is None:
        return size, None
    if isinstance(size, int):
        return int(size / part), None
    height, width = size
    return (int(height / part) if height == width else (int(height / part), int(width / part))), None


def _levit_resize(processor: Any) -> tuple[Resize, None]:
    size = size_of(processor)
    return (int(256 / 224 * size) if isinstance(size, int) else size), None


def _plain_normalisation(processor: Any) -> tuple[Channels, Channels]:
    if processor.do_normalize:
        return per_channel(processor.image_mean), per_channel(processor.image_std)
    return _no_normalisation(processor)


def _no_normalisation(processor: Any) -> tuple[Channels, Channels]:
    return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


def _efficientnet_normalisation(processor: Any) -> tuple[Channels, Channels]:
    """Beside the usual, it may subtract 1 after rescaling, and divide by the standard deviation once more."""
    mean, std = _plain_normalisation(processor)
    if processor.do_rescale and processor.rescale_offset:
        mean = tuple(value + 1 for value in mean)
    if processor.include_top:
        std = tuple(a * b for a, b in zip(std, per_channel(processor.image_std), strict=True))
    return mean, std


@dataclass(frozen=True)
class ProcessorRule:
    """How to read the fields of an image processor.

    Attributes:
        resize: Processor -> what it resizes to, and what it then crops to where its `crop_size` does not say
            it.
        normalisation: Processor -> mean and standard deviation of each channel.
        crops_first: A center crop comes before resizing, in proportion to the image.
        may_flip_channels: `do_flip_channel_order` turns RGB into BGR.
    """

    resize: Callable[[Any], tuple[Resize, Size | None]] = _plain_resize
    normalisation: Callable[[Any], tuple[Channels, Channels]] = _plain_normalisation
    crops_first: bool = False
    may_flip_channels: bool = False


PROCESSORS = {  # by the name of the class, without ImageProcessor; others follow the plain rule
    "ConvNext": ProcessorRule(resize=_convnext_resize),
    "EfficientNet": ProcessorRule(normalisation=_efficientnet_normalisation),
    "Levit": ProcessorRule(resize=_levit_resize),
    "MobileViT": ProcessorRule(normalisation=_no_normalisation, may_flip_channels=True),
    "Perceiver": ProcessorRule(crops_first=True),
    "PoolFormer": ProcessorRule(resize=_poolformer_resize),
}


def processor_rule(processor: Any) -> ProcessorRule:
    """The rule for a processor of transformers, in its PIL or its tensor version."""
    kind = type(processor).__name__.removesuffix("Pil").removesuffix("ImageProcessor")
    return PROCESSORS.get(kind, ProcessorRule())
