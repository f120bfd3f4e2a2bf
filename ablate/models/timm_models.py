"""Models of timm, as transformers' TimmWrapper reads them.

`timm/NAME` is on the hub, where NAME may have a tag. `timm/NAME:random` has random weights. A local folder is
what timm's `save_for_hf` and `push_to_hf_hub` write.
"""

import math
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from torch.utils._pytree import tree_leaves

from ablate.errors import BadInput, short_repr, unknown
from ablate.models.preprocessing import Preprocess

PREFIX, RANDOM = "timm/", ":random"
# Arguments of timm.create_model that load files, or that transformers gives it itself.
REFUSED = {"checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir", "features_only"}
GIVEN = {"pretrained", "num_classes"}
LARGEST = 2**12  # integer among them: timm computes lists as long as that when it builds a model
# timm's names of interpolations -> torchvision's.
INTERPOLATIONS = {each: each for each in ("bilinear", "bicubic", "lanczos")} | {"nearest": "nearest-exact"}


def is_random(name: str) -> bool:
    """Whether a name is `timm/NAME:random`."""
    return name.startswith(PREFIX) and name.endswith(RANDOM)


def require() -> None:
    """Raises BadInput where timm is not installed."""
    if find_spec("timm") is None:
        raise BadInput("models of timm need the extra ablate-vit[timm]; pip install timm")


def hub_name(name: str) -> str:
    """The name on the hub of a model of timm: with its default tag, where it has none.

    Args:
        name: `timm/NAME`, or `timm/NAME.TAG`.

    Returns:
        `timm/NAME.TAG`.

    Raises:
        BadInput: timm is not installed, or has no such model, or no weights for it.
    """
    base, _, tag = name.removeprefix(PREFIX).partition(".")
    _check_known(base)
    if tag:
        return name
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(base)
    if config is None or not config.hf_hub_id:
        raise BadInput(f"timm has no weights for {base!r} on the hub; give {PREFIX}{base}{RANDOM}")
    return str(config.hf_hub_id)


def random_config(name: str) -> dict[str, Any]:
    """What timm would write to config.json for a model without weights.

    Args:
        name: `timm/NAME:random`.

    Returns:
        Its architecture, and the image processing of its default weights.

    Raises:
        BadInput: timm is not installed, or has no such model.
    """
    base = name.removeprefix(PREFIX).removesuffix(RANDOM)
    _check_known(base)
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(base)
    fields = {} if config is None else config.to_dict()
    kept = ("input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std")
    return {"architecture": base, "pretrained_cfg": {key: fields[key] for key in kept if key in fields}}


def checked_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Check that a configuration names a model of timm and no file, and adapt it to transformers.

    Args:
        config: What config.json holds.

    Returns:
        The same, without what transformers gives to timm by itself and newer versions of timm write as well.

    Raises:
        BadInput: timm is not installed or has no such model, or an argument would load a file.
    """
    architecture, arguments = config.get("architecture"), config.get("model_args") or {}
    _check_known(architecture)
    if not isinstance(arguments, dict) or (refused := sorted(REFUSED & arguments.keys())):
        got = refused if isinstance(arguments, dict) else arguments
        raise BadInput(f"model_args must be arguments of a model of timm, but got {short_repr(got)}")
    if large := [key for key, value in arguments.items() if any(map(_is_large, tree_leaves(value)))]:
        got = f"{short_repr(large[0])} is {short_repr(arguments[large[0]])}"
        raise BadInput(f"model_args must be at most {LARGEST}, but {got}")
    kept = {key: value for key, value in arguments.items() if key not in GIVEN}
    return {"num_classes": 1000, **config, "model_args": kept}  # without a number transformers fails


def read_data_config(config: Mapping[str, Any]) -> Preprocess:
    """The processing that timm's data configuration describes.

    Args:
        config: As timm.data.resolve_data_config returns it.

    Returns:
        The processing.

    Raises:
        ValueError: It is none that can be followed.
    """
    channels, *size = config["input_size"]
    mode, interpolation = config["crop_mode"], config["interpolation"]
    if channels != 3 or interpolation not in INTERPOLATIONS:
        known = ", ".join(INTERPOLATIONS)
        raise ValueError(f"it must resize 3 channels by one of {known}, but {channels} by {interpolation}")
    height, width = (math.floor(side / config["crop_pct"]) for side in size)
    if mode != "squash" and (mode != "center" or height != width):
        raise ValueError(f"its crop_mode must be squash, or center and square, but is {mode} to {size}")
    return Preprocess(
        size=(size[0], size[1]),
        resize=(height, width) if mode == "squash" else height,
        interpolation=INTERPOLATIONS[interpolation],
        scale=1 / 255,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        rounded=True,
    )


def _is_large(value: object) -> bool:
    return isinstance(value, int | float) and not abs(value) <= LARGEST  # nor NaN


def _check_known(architecture: Any) -> None:
    require()
    import timm

    if not isinstance(architecture, str) or not timm.is_model(architecture) or "." in architecture:
        raise unknown("model of timm", str(architecture), timm.list_models())
