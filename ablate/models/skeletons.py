"""A model built from its description alone: structure without values, on the meta device.

The description may come from a stranger, so nothing is built that would load code or files, or fill the
memory.
"""

import copy
import threading
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from ablate.config import builtin
from ablate.errors import BadInput
from ablate.models import timm_models, torchvision_models
from ablate.models.locating import first_line

REFUSED = {"auto_map", "quantization_config", "attn_implementation"}  # keys that load code or files
MAX_LABELS = 2**16  # that a configuration may name by their number alone
SIZES = ("image_size", "patch_size", "num_channels")
MAX_COMPUTED_BYTES = 2**28  # of buffers that a model computes when it is built, such as positions in windows


@torch.inference_mode(False)
def from_config(name: str, attention: str, config: dict[str, Any], parameters: int) -> nn.Module:
    """Build an image classifier on the meta device.

    Only buffers that no file holds, because the model computes them when it is built, have values, on the
    CPU.

    Args:
        name: Of a class of transformers, or of a model of torchvision (`builtin.KNOWN`).
        attention: The attention implementation of transformers.
        config: What config.json holds.
        parameters: The number of parameters of the model. At most twice as many are built, because a model
            may replace some while it is built.

    Returns:
        The model.

    Raises:
        BadInput: The class is no image classifier, the configuration is refused, or the build fails.
    """
    if name in builtin.KNOWN:
        return torchvision_models.from_config(name, config)
    import transformers  # takes seconds
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES as MAPPING

    classes = {each for names in MAPPING.values() for each in ([names] if isinstance(names, str) else names)}
    if name not in classes:
        rule = "the model must be an image classifier of transformers"
        raise BadInput(f"{rule}, but got {name[:80]!r}; give a skeleton")
    _check_config(config)
    if name == "TimmWrapperForImageClassification":
        config = timm_models.checked_config(config)
    left, thread = 2 * parameters, threading.get_ident()

    def count(module: nn.Module, key: str, parameter: nn.Parameter) -> None:
        nonlocal left
        if threading.get_ident() != thread:  # the hook is the whole process's
            return
        left -= 1
        if left < 0:
            raise BadInput(f"it describes more parameters than the {parameters} tensors that there are")

    handle = register_module_parameter_registration_hook(count)
    try:
        with torch.device("meta"):
            settings = getattr(transformers, name).config_class.from_dict(dict(config))
            settings._attn_implementation = attention
            model = getattr(transformers, name)(settings)
        _compute_buffers(model)
        return model
    except Exception as error:  # each model checks its configuration in its own way
        raise BadInput(f"cannot build {name} from its configuration: {first_line(error)[:200]}") from None
    finally:
        handle.remove()


def _check_config(config: Mapping[str, Any]) -> None:
    """Raises BadInput for a key, at any depth, that loads code or files, or fills memory."""
    mend = "pack the model again"
    for key, value in config.items():
        parts = value if isinstance(value, list) else [value]
        if key.startswith("_") or key in REFUSED:
            raise BadInput(f"the configuration must not hold {key[:80]!r}; {mend}")
        if key == "num_labels" and not (type(value) is int and 0 <= value <= MAX_LABELS):
            raise BadInput(f"num_labels must be at most {MAX_LABELS}, but got {str(value)[:80]}; {mend}")
        if key in SIZES and any(type(part) is int and part < 1 for part in parts):
            raise BadInput(f"{key} must be at least 1, but got {str(value)[:80]}; {mend}")
        if key not in ("id2label", "label2id"):
            for part in parts:
                if isinstance(part, dict):
                    _check_config(part)


def _compute_buffers(model: Any) -> None:
    """Compute the buffers that no file holds, as transformers does when it loads a checkpoint."""
    unset = [
        (module, key)
        for module in model.modules()
        for key, value in module._buffers.items()
        if key in module._non_persistent_buffers_set and value is not None and value.is_meta
    ]
    if (needed := sum(module._buffers[key].nbytes for module, key in unset)) > MAX_COMPUTED_BYTES:
        raise BadInput(f"its buffers must take at most {MAX_COMPUTED_BYTES} bytes, but take {needed}")
    timms = [(module, key) for module, key in unset if hasattr(module, "init_non_persistent_buffers")]
    for module in {id(module): module for module, _ in timms}.values():
        computed = copy.deepcopy(module).to_empty(device="cpu")  # it asks its parameters for their device
        computed.init_non_persistent_buffers()
        module._buffers.update({key: computed._buffers[key] for other, key in timms if other is module})
    unset = [(module, key) for module, key in unset if module._buffers[key].is_meta]
    for module, key in unset:
        module._buffers[key] = torch.empty_like(module._buffers[key], device="cpu")
        module._is_hf_initialized = False
    if unset:
        model.initialize_weights()  # parameters stay on the meta device, without values
    if left := [key for module, key in unset if module._buffers[key]._version == 0]:
        raise BadInput(f"it computes {left[0]!r} in a way that cannot be repeated; give a skeleton")
