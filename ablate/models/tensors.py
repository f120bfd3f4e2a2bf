"""Compares a checkpoint's file with its model, and refuses each tensor that does not fit by its name."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from ablate.errors import BadInput
from ablate.models import heads

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)  # dtypes that weights may be stored in


def check(
    model: Any, info: Mapping[str, Any], config: Mapping[str, Any], dtypes: Mapping[str, torch.dtype]
) -> None:
    """Check that a file holds the model that its configuration describes, in floating point.

    Args:
        model: The loaded model.
        info: transformers' loading info: missing, unexpected and mismatched keys.
        config: What the checkpoint's config.json holds.
        dtypes: Of the file's tensors.

    Raises:
        BadInput: A tensor is missing, of another shape, in surplus, no floating point, or not finite.
    """
    surplus = sorted(info["unexpected_keys"])
    if missing := sorted(key for key in info["missing_keys"] if not heads.is_part(model, key)):
        has = f" and has {len(surplus)} that the model does not have, {surplus[0]!r} first" if surplus else ""
        mend = "give a checkpoint of this model, saved without a wrapper"
        raise BadInput(f"lacks {len(missing)} of the model's tensors, {missing[0]!r} first{has}; {mend}")
    for key, shape, expected in sorted(info["mismatched_keys"]):
        if not heads.is_part(model, key):
            rule = f"by its config.json that must be {tuple(expected)}"
            mend = "correct the config.json (image_size, patch_size, hidden_size, ...)"
            raise BadInput(f"has {key!r} in the shape {tuple(shape)}, but {rule}; {mend}")
    _check_surplus(model, surplus, config)
    for key, dtype in dtypes.items():
        is_weight = key.endswith((".weight", ".bias")) or (dtype.itemsize == 1 and dtype != torch.bool)
        if dtype not in FLOATS and is_weight:
            mend = "give the model that was not quantized"
            raise BadInput(f"must hold weights in floating point, but {key!r} is {dtype}; {mend}")
    for key, value in model.state_dict().items():
        if value.is_floating_point() and not value.isfinite().all():
            raise BadInput(f"must hold finite weights, but {key!r} has NaN or infinite ones; train it again")


def _check_surplus(model: Any, surplus: list[str], config: Mapping[str, Any]) -> None:
    """Raises BadInput for tensors of another backbone than the configuration's, or of a second one."""
    if not surplus:
        return
    usual = {key for keys in _related_keys(config) for key in keys}
    unusual = [key for key in surplus if _bare(model, key) not in usual]
    parts = {name for name, _ in model.named_children()} - {*heads.behind(model)}
    parts |= {name for part in parts for name, _ in model.get_submodule(part).named_children()}
    inside = [key for key in unusual if key.split(".")[0] in {*parts, model.base_model_prefix}]
    if inside:
        mend = "correct the config.json, or save the model without them"
        count = f"holds {len(inside)} tensors that its model has no place for"
        raise BadInput(f"{count}, {inside[0]!r} first; {mend}")
    own = {_bare(model, key) for key in model.state_dict()}
    twice = [key for key in unusual if any(suffix in own for suffix in _suffixes(key))]
    if len(twice) > len(own) / 2:
        mend = "save the one that is meant"
        raise BadInput(f"holds the backbone more than once, {twice[0]!r} beside its own; {mend}")


def _bare(model: Any, key: str) -> str:
    return key.removeprefix(f"{model.base_model_prefix}.")


def _suffixes(key: str) -> Iterator[str]:
    """ "a.b.c" -> "b.c", "c"."""
    while "." in key:
        key = key.partition(".")[2]
        yield key


def _related_keys(config: Mapping[str, Any]) -> Iterator[set[str]]:
    """The tensors' names of each model of transformers for a configuration, such as one with text."""
    import transformers
    from transformers.models.auto import modeling_auto

    kind = config.get("model_type")
    names = {*(config.get("architectures") or ())}
    for table, mapping in vars(modeling_auto).items():
        if table.endswith("_MAPPING_NAMES") and (classes := mapping.get(kind)):
            names |= {classes} if isinstance(classes, str) else {*classes}
    for name in sorted(names):
        try:
            cls = getattr(transformers, name)
            settings = cls.config_class.from_dict(dict(config))
            with torch.device("meta"):
                model = cls(settings)
        except Exception:  # not in this version, not installed, or not for this configuration
            continue
        yield {_bare(model, key) for key in model.state_dict()}
