"""A record as a line of text: JSON with a checksum, so that what a disk or an editor changed is not taken for a result."""

import json
import math
import re
import zlib
from typing import Any, NoReturn

KEY = "crc32"  # of the line before it, in eight hexadecimal digits; always the last field
LAST = re.compile(rb'[^"]*":"([0-9a-f]{8})"}')
ENDED = re.compile(
    rb'(,"crc32":"[0-9a-f]{8}"}|\r)[^\0]', re.DOTALL
)  # zeros are blocks that a power cut left unwritten


def encode(fields: dict[str, Any]) -> bytes:
    """A line, with its checksum and its newline."""
    plain = {key: value for key, value in fields.items() if key != KEY}
    body = json.dumps(plain, allow_nan=False, separators=(",", ":")).encode()[:-1]
    return b'%b,"%b":"%b"}\n' % (body, KEY.encode(), _checksum(body))


def decode(line: bytes) -> dict[str, Any]:
    """The fields of a line without its newline; a line without a checksum, of an older version, has any. Raises ValueError."""
    try:
        fields = json.loads(
            line.decode(), object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite
        )
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(fields, dict):
        raise ValueError("it is not an object")
    body, _, last = line.rpartition(b',"')
    found = LAST.fullmatch(last)
    good = found is not None and found[1] == _checksum(body)
    if good != (KEY in fields) or (found and not good):  # the damage may be in the name of the field
        raise ValueError("it was changed after it was written: its checksum is another")
    fields.pop(KEY, None)
    return fields


def is_torn(rest: bytes) -> bool:
    """Whether what follows the last newline may be a line cut short, and not one whose newline was changed."""
    return not ENDED.search(rest)


def _checksum(body: bytes) -> bytes:
    return b"%08x" % zlib.crc32(body)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("it has a field twice")
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"it has {constant}, which is no number")


def _finite(text: str) -> float:
    if math.isinf(value := float(text)):
        raise ValueError(f"{text[:40]} is more than a number holds")
    return value
