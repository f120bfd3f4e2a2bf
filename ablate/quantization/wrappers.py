"""Models inside wrappers.

DDP, DataParallel, AveragedModel and torch.compile are looked through; FSDP and PEFT are refused.
"""

from torch import nn
from torch.optim.swa_utils import AveragedModel

from ablate.errors import BadInput

INNER = {  # a wrapper -> the attribute that holds the model
    nn.DataParallel: "module",
    nn.parallel.DistributedDataParallel: "module",
    AveragedModel: "module",
}


def unwrapped(model: nn.Module) -> nn.Module:
    """Find the model inside DDP, DataParallel, AveragedModel and torch.compile, in any order.

    Args:
        model: A model, wrapped or not.

    Returns:
        The innermost model, or the model itself.

    Raises:
        BadInput: A part of it is sharded by FSDP1, or adapted by PEFT.
    """
    while inner := _inner(model):
        model = getattr(model, inner)
    for name, module in model.named_modules():
        if hasattr(module, "_fsdp_wrapped_module"):
            rule = (
                f"a model must not be flattened, but {name or 'the model'!r} is in FullyShardedDataParallel"
            )
            raise BadInput(f"{rule}; quantize the model before it is sharded, and pack a copy that is not")
        if type(module).__module__.partition(".")[0] == "peft":
            rule = f"adapters must not be quantized or packed, but {name or 'the model'!r} is PEFT's"
            raise BadInput(
                f"{rule}; quantize a model before its adapters are added, and unload() them to pack it"
            )
    return model


def plain_names(model: nn.Module, names: list[str]) -> dict[str, str]:
    """Names of tensors or modules without the parts that wrappers of inner modules add, such as `_orig_mod`.

    Args:
        model: As `unwrapped` returns it.
        names: Of its tensors or modules.

    Returns:
        Name -> name in a model without wrappers.
    """
    wrappers = [(name, inner) for name, module in model.named_modules() if (inner := _inner(module))]
    plain = {}
    for name in names:
        short = f"{name}."
        for wrapper, inner in reversed(wrappers):  # the innermost first
            if short.startswith(prefix := f"{wrapper}.{inner}."):
                short = f"{wrapper}.{short.removeprefix(prefix)}"
        plain[name] = short.removesuffix(".")
    return plain


def _inner(module: nn.Module) -> str | None:
    """The attribute of a wrapper that holds its model."""
    if "_orig_mod" in module._modules:  # torch.compile's, whose class takes seconds to import
        return "_orig_mod"
    return next((inner for kind, inner in INNER.items() if isinstance(module, kind)), None)
