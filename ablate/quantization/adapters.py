"""What PEFT must not do unsaid to a quantized layer: merge an adapter into its weights.

The weights are quantized after the merge, so that the sum is another one: with binary weights most of an
adapter is lost.
"""

from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook

from ablate.errors import BadInput


def refuse_merging(kind: type[nn.Module]) -> None:
    """Make PEFT's layers around a kind of layer refuse to merge. PEFT has no setting for that.

    Args:
        kind: The class of the quantized layers.
    """

    def on_registration(module: nn.Module, name: str, child: nn.Module | None) -> None:
        if name == "base_layer" and isinstance(child, kind) and hasattr(module, "merge"):
            vars(module)["merge"] = _refuse  # of this module alone; a function, so that it can be pickled

    register_module_module_registration_hook(on_registration)


def _refuse(*args: Any, **kwargs: Any) -> None:
    rule = "an adapter must not be merged into a BitLinear, which would quantize the sum and lose most of it"
    raise BadInput(f"{rule}; keep the adapter apart, or train and merge it in full precision, then quantize")
