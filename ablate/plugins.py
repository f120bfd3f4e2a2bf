"""Users' own objectives, samplers and datasets: `module:name`, imported from the environment."""

import importlib
from typing import Any

from ablate.errors import BadInput, short_repr


def is_plugin(name: str) -> bool:
    """Return whether a name has the form of a user's own object: `module:name`, two Python names."""
    module, colon, attribute = name.partition(":")
    return bool(colon) and attribute.isidentifier() and all(part.isidentifier() for part in module.split("."))


def load_plugin(kind: str, name: str) -> Any:
    """Import a user's own object.

    Args:
        kind: What it is, for the message: "objective", "sampler" or "dataset".
        name: `module:name`. The module must be installed or on PYTHONPATH.

    Returns:
        The object that the module has under that name.

    Raises:
        BadInput: The module cannot be imported, or has no such name.
    """
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise BadInput(
            f"{kind} {short_repr(name)} must be importable, but got {reason}; "
            f"install the package that has {module!r}, or add its folder to PYTHONPATH"
        ) from None
