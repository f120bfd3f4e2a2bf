"""The exceptions, and the helpers that build their messages.

AblateError            base class of all errors that this package raises; a command exits with 1
├── BadInput           the user's input breaks a rule; a command exits with 2 (also a ValueError)
├── Interrupted        Ctrl-C or SIGTERM ended a study; a command exits with 130
├── WriteFailed        a file could not be written, as on a full disk; the study stops
└── NonFinite          a loss became NaN or infinite during training; the trial is recorded as failed
"""

import errno
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from reprlib import Repr

# Errors of the disk itself, whatever path the user named.
DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}
MAX_FAULTS = 8  # in one message
MAX_NAMES = 12  # in one message

_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 200
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 12


class AblateError(Exception):
    """Base class of the errors that this package raises. The message explains what went wrong."""


class BadInput(AblateError, ValueError):
    """The input breaks a rule. The message names the rule, the value received and the next step."""


class Interrupted(AblateError):
    """A study was interrupted from outside. The message says how to resume it.

    Attributes:
        run: The run's folder.
    """

    def __init__(self, message: str, run: Path) -> None:
        super().__init__(message)
        self.run = run


class WriteFailed(AblateError):
    """A run's folder, or an output file, could not be written. The message says why."""


class NonFinite(AblateError):
    """A metric is NaN or infinite. The message names the metric and the step."""


def write_error(error: OSError, message: str) -> AblateError:
    """Classify a failed write.

    Args:
        error: What the operating system raised.
        message: The message of the returned error.

    Returns:
        WriteFailed where the disk is at fault, else BadInput: the user gave a path that cannot be written.
    """
    return WriteFailed(message) if error.errno in DISK else BadInput(message)


def unknown(kind: str, value: str, known: Iterable[str]) -> BadInput:
    """Build the error for a name that does not exist.

    Args:
        kind: What the name stands for, such as "study".
        value: The name received.
        known: The names that exist.

    Returns:
        An error that suggests the nearest names, or lists the known ones where none is near.
    """
    names = sorted(known)
    near = [name for name in names if value and value in name][:3]
    near = near or get_close_matches(value[:200], names, n=3, cutoff=0.5)
    if near:
        hint = f"did you mean {' or '.join(map(repr, near))}?"
    else:
        more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
        hint = f"known: {', '.join(names[:MAX_NAMES])}{more}" if names else "leave it out"
    return BadInput(f"unknown {kind} {short_repr(value)}; {hint}")


def short_repr(value: object) -> str:
    """The `repr` of a value, shortened where it is long."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # Python refuses to write an integer of more than 4,300 digits
        return "a number of too many digits"


def missing(error: ModuleNotFoundError) -> BadInput:
    """Build the error for a package that is not installed, as after `pip install --no-deps`.

    Args:
        error: What its import raised.

    Returns:
        An error that names the package and the command that installs it.
    """
    module = (error.name or str(error)).partition(".")[0]
    return BadInput(f"this needs {module!r}, which is not installed; `pip install ablate-vit` installs it")


def join_faults(faults: Iterable[str]) -> str:
    """Join faults into one line, without duplicates. Only the first MAX_FAULTS are written out."""
    unique = [*dict.fromkeys(faults)]
    shown = "; ".join(unique[:MAX_FAULTS])
    return shown + (f"; and {len(unique) - MAX_FAULTS:,} more" if len(unique) > MAX_FAULTS else "")
