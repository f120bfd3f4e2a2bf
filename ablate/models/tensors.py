"""What a checkpoint's file holds against what its model has: each tensor that does not fit is refused by its name."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from ablate.errors import BadInput
from ablate.models import heads

WHOLE = (torch.float32, torch.float16, torch.bfloat16, torch.float64)  # what weights may be stored as


def check(
    model: Any, info: Mapping[str, Any], config: Mapping[str, Any], stored: Mapping[str, torch.dtype]
) -> None:
    """Raises BadInput where the file can't be what the configuration says.

    info: what transformers says of the loading. stored: the types of the file's tensors.
    """
    surplus = sorted(info["unexpected_keys"])
    if lacks := sorted(key for key in info["missing_keys"] if not heads.is_part(model, key)):
        beside = (
            f" and has {len(surplus)} that the model does not have, {surplus[0]!r} first" if surplus else ""
        )
        mend = "give a checkpoint of this model, saved without a wrapper"
        raise BadInput(f"lacks {len(lacks)} of the model's tensors, {lacks[0]!r} first{beside}; {mend}")
    for key, shape, wanted in sorted(info["mismatched_keys"]):
        if not heads.is_part(model, key):
            rule = f"has {key!r} in the shape {tuple(shape)}, but by its config.json that must be {tuple(wanted)}"
            raise BadInput(f"{rule}; correct the config.json (image_size, patch_size, hidden_size, ...)")
    _check_surplus(model, surplus, config)
    for key, dtype in stored.items():
        if dtype not in WHOLE and (
            key.endswith((".weight", ".bias")) or (dtype.itemsize == 1 and dtype != torch.bool)
        ):
            raise BadInput(
                f"must hold weights in floating point, but {key!r} is {dtype}; give the model that was not quantized"
            )
    for key, value in model.state_dict().items():
        if value.is_floating_point() and not value.isfinite().all():
            raise BadInput(f"must hold finite weights, but {key!r} has NaN or infinite ones; train it again")


def _check_surplus(model: Any, surplus: list[str], config: Mapping[str, Any]) -> None:
    """Raises BadInput for tensors of a backbone that is not the configuration's, or of a second one."""
    if not surplus:
        return
    bare, prefix = [_bare(model, key) for key in surplus], model.base_model_prefix
    usual = {key for other in _relatives(config) for key in other}
    left = [key for key, short in zip(surplus, bare, strict=True) if short not in usual]
    parts = {name for name, _ in model.named_children()} - {*heads.behind(model)}
    parts |= {name for part in parts for name, _ in model.get_submodule(part).named_children()}
    mend = "correct the config.json, or save the model without them"
    if inside := [key for key in left if key.split(".")[0] in {*parts, prefix}]:
        raise BadInput(
            f"holds {len(inside)} tensors that its model has no place for, {inside[0]!r} first; {mend}"
        )
    own = {_bare(model, key) for key in model.state_dict()}
    twice = [key for key in left if any(tail in own for tail in _tails(key))]
    if len(twice) > len(own) / 2:
        raise BadInput(
            f"holds the backbone more than once, {twice[0]!r} beside its own; save the one that is meant"
        )


def _bare(model: Any, key: str) -> str:
    return key.removeprefix(f"{model.base_model_prefix}.")


def _tails(key: str) -> Iterator[str]:
    while "." in key:
        key = key.partition(".")[2]
        yield key


def _relatives(config: Mapping[str, Any]) -> Iterator[set[str]]:
    """The names of the tensors of each of transformers' models for the configuration: of masked modelling, with text, ..."""
    import transformers
    from transformers.models.auto import modeling_auto

    kind = config.get("model_type")
    names = {*(config.get("architectures") or ())}
    for table, mapping in vars(modeling_auto).items():
        if table.endswith("_MAPPING_NAMES") and (found := mapping.get(kind)):
            names |= {found} if isinstance(found, str) else {*found}
    for name in sorted(names):
        try:
            made = getattr(transformers, name)
            settings = made.config_class.from_dict(dict(config))
            with torch.device("meta"):
                model = made(settings)
        except Exception:  # not of this version, not installed, or not for these settings
            continue
        yield {_bare(model, key) for key in model.state_dict()}
