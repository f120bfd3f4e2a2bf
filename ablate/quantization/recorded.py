"""The quantization in a transformers model's configuration, so that `save_pretrained` keeps it.

transformers' `from_pretrained` says that it skips it, and loads the weights that were quantized in training.
"""

import copy
from typing import Any

from torch import nn

from ablate.config.trial_spec import LayerSpec, checked
from ablate.errors import BadInput, short_repr
from ablate.models.renamed_modules import spellings
from ablate.quantization.attention import attention_bits
from ablate.quantization.bitlinear import BitLinear, has_gain
from ablate.quantization.packed_header import FIELD, METHOD

HINT = "after from_pretrained: ablate.quantize_(model, ablate.recorded_precisions(model))"


def recorded_precisions(model: nn.Module) -> dict[str, LayerSpec]:
    """Read which layers of a loaded model were quantized, from its configuration.

    `quantize_(model, recorded_precisions(model))` quantizes a model as it was when `save_pretrained` or
    `Trainer.save_model` saved it, with its attention products.

    Args:
        model: Of transformers, as `from_pretrained` returns it.

    Returns:
        By layer name, its precision.

    Raises:
        BadInput: The configuration has no such record, or it names a learned beta or a static activation
            scale, which `from_pretrained` does not load.
    """
    found = record_of(model)
    layers = found.get("layers")
    if found.get("quant_method") != METHOD or not isinstance(layers, dict):
        rule = f"the model's configuration must have a {FIELD} of ablate"
        raise BadInput(f"{rule}, but got {short_repr(found or None)}; give quantize_ the precisions")
    specs = {name: checked(LayerSpec, fields, f"{FIELD} of {name!r}") for name, fields in layers.items()}
    own = own_names(model, [*specs])
    precisions = {own[name]: spec for name, spec in specs.items() if name in own}
    _check_learned(model, precisions)
    return precisions


def _check_learned(model: nn.Module, precisions: dict[str, LayerSpec]) -> None:
    """Raises BadInput where what a scale has learned is lost: `from_pretrained` does not read it."""
    own = {name for name, module in model.named_modules() if isinstance(module, BitLinear)}
    kept = [("beta", has_gain), ("activation scale", lambda spec: spec.is_static)]
    for what, has in kept:
        if lost := next((name for name, spec in precisions.items() if has(spec) and name not in own), None):
            rule = f"the {what} of {lost!r} is learned, and from_pretrained has not loaded it"
            mend = "keep the trained model's state_dict() with torch.save, and load that after quantize_"
            raise BadInput(f"{rule}; {mend}, or pack the trained model")


def own_names(model: nn.Module, names: list[str]) -> dict[str, str]:
    """Find the layers of a record in a model.

    Args:
        model: As the record's, its backbone alone, or by a version of transformers that has other names.
        names: Recorded.

    Returns:
        Recorded names -> the model's. The layers around a backbone are left out where the model is the
        backbone alone.
    """
    modules = {name for name, _ in model.named_modules()}
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    own = {}
    for name in names:
        spelled = [each for spelling in spellings(name) for each in (spelling, spelling.removeprefix(prefix))]
        found = next((each for each in [*spelled, f"{prefix}{name}"] if each in modules), None)
        is_around = prefix[:-1] not in modules and any(other.startswith(prefix) for other in names)
        if found or not is_around or name.startswith(prefix):
            own[name] = found or name
    return own


def record_of(model: nn.Module) -> dict[str, Any]:
    """The quantization that a model's configuration names, by whatever method; else empty."""
    found = getattr(getattr(model, "config", None), FIELD, None) or {}
    return found if isinstance(found, dict) else found.to_dict()


def check_unrecorded(model: nn.Module) -> None:
    """Raises BadInput where another library has quantized the model: its record would be lost."""
    if (method := record_of(model).get("quant_method", METHOD)) != METHOD:
        rule = (
            f"a model must be in floating point to be quantized, but this one's configuration names {method}"
        )
        raise BadInput(f"{rule}; load the original")


def record_(model: nn.Module) -> None:
    """Write the quantized layers of a model to its configuration, where it is one of transformers.

    Args:
        model: Its configuration is replaced by a copy in all of its modules: others may share it.
    """
    config: Any = getattr(model, "config", None)
    if not hasattr(config, "to_diff_dict"):
        return
    modules = model.named_modules()
    layers = {name: module.spec.model_dump() for name, module in modules if isinstance(module, BitLinear)}
    own = copy.copy(config)
    bits = attention_bits(model)
    attention = {} if bits is None else {"attention_bits": bits}
    setattr(own, FIELD, {"quant_method": METHOD, "layers": layers, "hint": HINT} | attention)
    for module in model.modules():
        for key in [key for key, value in vars(module).items() if value is config]:
            setattr(module, key, own)
