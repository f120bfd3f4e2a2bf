"""Users' own objectives, samplers and datasets: `module:name`, imported from the environment."""

import importlib
import keyword
from difflib import get_close_matches
from types import ModuleType
from typing import Any

from ablate.errors import BadInput, short_repr


def is_plugin(name: str) -> bool:
    """Return whether a name has the form of a user's own object: `module:name`, two Python names."""
    module, colon, attribute = name.partition(":")
    parts = [*module.split("."), attribute]
    return bool(colon) and all(part.isidentifier() and not keyword.iskeyword(part) for part in parts)


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
    rule = f"{kind} {short_repr(name)} must be importable"
    try:
        imported = importlib.import_module(module)
    except (Exception, SystemExit) as error:  # a module may raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        mend = f"install the package that has {module!r}, or add its folder to PYTHONPATH"
        raise BadInput(f"{rule}, but got {reason}; {mend}") from None
    try:
        return getattr(imported, attribute)
    except AttributeError:
        raise BadInput(f"{rule}, but {module!r} has no {attribute!r}; {_near(attribute, imported)}") from None


def _near(attribute: str, module: ModuleType) -> str:
    names = [name for name in dir(module) if not name.startswith("_")]
    near = get_close_matches(attribute, names, n=3) or names[:12]
    return f"it has {', '.join(near)}" if near else "it is empty"
