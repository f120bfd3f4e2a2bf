"""A record as a line of text: JSON with a checksum, which shows when a disk or an editor changed the line."""

import json
import math
import re
import zlib
from collections.abc import Mapping
from typing import Any, NoReturn

KEY = "crc32"  # the last field: the checksum of the line before it, in eight hexadecimal digits
LAST = re.compile(rb'[^"]*":"([0-9a-f]{8})"}')
# A whole line that something follows. A power cut leaves zeros, where blocks were not written.
ENDED = re.compile(rb'(,"crc32":"[0-9a-f]{8}"}|\r)[^\0]', re.DOTALL)


def encode(fields: Mapping[str, Any]) -> bytes:
    """Return fields as a line with its checksum and newline. Raises ValueError for NaN and infinity."""
    plain = {key: value for key, value in fields.items() if key != KEY}
    body = json.dumps(plain, allow_nan=False, separators=(",", ":")).encode()[:-1]
    return b'%b,"%b":"%b"}\n' % (body, KEY.encode(), _checksum(body))


def decode(line: bytes) -> dict[str, Any]:
    """Return the fields of a line.

    Args:
        line: Without its newline. Older versions wrote no checksum.

    Raises:
        ValueError: It is not such a line, or its checksum is not that of its content.
    """
    try:
        text = line.decode()
        fields = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite)
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(fields, dict):
        raise ValueError("it is not an object")
    has_one = LAST.fullmatch(line.rpartition(b',"')[2]) is not None
    sealed = is_sealed(line)
    if sealed != (KEY in fields) or (has_one and not sealed):  # the damage may be in the name of the field
        raise ValueError("it was changed after it was written: its checksum is another")
    fields.pop(KEY, None)
    return fields


def is_sealed(line: bytes) -> bool:
    """Return whether a line has a checksum, and that of its content: it is as it was written."""
    body, _, last = line.rpartition(b',"')
    match = LAST.fullmatch(last)
    return match is not None and match[1] == _checksum(body)


def is_torn(rest: bytes) -> bool:
    """Return whether the text after the last newline can be a line cut short."""
    return not ENDED.search(rest)


def _checksum(body: bytes) -> bytes:
    return b"%08x" % zlib.crc32(body)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("it has a field twice")
    return fields


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"it has {constant}, which is no number")


def _finite(text: str) -> float:
    if math.isinf(value := float(text)):
        raise ValueError(f"{text[:40]} is more than a number holds")
    return value
