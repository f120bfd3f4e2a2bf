"""The exceptions.

AblateError            anything this package raises on purpose; a command exits 1
├── BadInput           the caller gave something wrong; a command exits 2 (also a ValueError)
├── Interrupted        Ctrl-C or SIGTERM ended a study; a command exits 130
├── Unwritten          a folder could not be written, as on a full disk; a study stops, and what was not written runs again
└── NonFinite          a loss became NaN or infinite during training; the trial is recorded as failed
"""

import errno
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from reprlib import Repr

DISK = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EIO,
    errno.EROFS,
}  # faults of a disk, whatever file was asked for


class AblateError(Exception):
    """Something went wrong that the message explains."""


class BadInput(AblateError, ValueError):
    """The input breaks a rule; the message names the rule, the value and the next step."""


class Interrupted(AblateError):
    """A study was ended from outside; the message says how to go on, `run` is the run's folder."""

    def __init__(self, message: str, run: Path) -> None:
        super().__init__(message)
        self.run = run


class Unwritten(AblateError):
    """A run's folder, or a file that was asked for, could not be written; the message says why."""


class NonFinite(AblateError):
    """A metric is NaN or infinite; the message names the metric and the step."""


def unwritten(error: OSError, message: str) -> AblateError:
    """The error for a path that was given to be written and cannot be: bad input, but where the disk is at fault."""
    return Unwritten(message) if error.errno in DISK else BadInput(message)


def unknown(kind: str, value: str, known: Iterable[str]) -> BadInput:
    """The error for a name that does not exist, with the nearest names that do."""
    names = sorted(known)
    near = [name for name in names if value and value in name][:3] or get_close_matches(
        value[:200], names, n=3, cutoff=0.5
    )
    others = f"known: {', '.join(names[:12])}" if names else "leave it out"
    hint = f"did you mean {' or '.join(repr(n) for n in near)}?" if near else others
    return BadInput(f"unknown {kind} {quoted(value)}; {hint}")


_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 200
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 12
MOST = 8  # faults in a message


def quoted(value: object) -> str:
    """A value as a message shows it: `repr`, shortened where that is long."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # Python writes no number of more than 4,300 digits
        return "a number of too many digits"


def together(faults: Iterable[str]) -> str:
    """Faults in one line, each once, and the first of them where there are many."""
    found = [*dict.fromkeys(faults)]
    return "; ".join(found[:MOST]) + (f"; and {len(found) - MOST:,} more" if len(found) > MOST else "")
