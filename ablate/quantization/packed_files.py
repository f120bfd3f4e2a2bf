"""Reads the two files of a packed model. They hold no code, and are checked before they are used."""

import json
import math
from pathlib import Path
from typing import Any

from safetensors.torch import load
from torch import Tensor

from ablate.config.trial_spec import checked
from ablate.errors import BadInput
from ablate.paths import local_path
from ablate.quantization.packed_header import FORMAT, Header, dumps, sha256

JSON, TENSORS = "packed.json", "model.safetensors"
LARGEST_JSON = 2**24  # bytes; a thousand labels take 2^16


def read(directory: str | Path) -> tuple[Header, dict[str, Tensor]]:
    """Read a packed model.

    Args:
        directory: The folder of its files.

    Returns:
        Its header and its tensors: intact and in the layout of FORMAT, but not yet compared with a model.

    Raises:
        BadInput: A file is missing, truncated, edited or of another kind.
    """
    folder = local_path(directory)
    path = folder / JSON
    fields, data = _fields(path), _bytes(folder / TENSORS)
    recorded = fields.get("sha256")
    intact = sha256({key: value for key, value in fields.items() if key != "sha256"}, data) == recorded
    try:
        header = checked(Header, fields, str(path))
    except BadInput as error:  # it quotes the content of the file
        newer = "; it is as it was packed, maybe by a newer version: upgrade ablate" if intact else ""
        raise BadInput(" ".join(str(error).split())[:400] + newer) from None
    if not intact:
        raise BadInput(f"{directory}: the files are damaged or edited: sha256 differs; pack the model again")
    try:
        return header, load(data)
    except Exception as error:  # safetensors raises several kinds
        why = " ".join(str(error).split())[:100]
        raise BadInput(f"{folder / TENSORS} is not a safetensors file: {why}") from None


def _fields(path: Path) -> dict[str, Any]:
    """The fields of packed.json, spelled as `pack` spells them: no key twice, no NaN, no spaces."""
    text = _bytes(path, LARGEST_JSON)
    try:
        fields = json.loads(text)
        is_canonical = isinstance(fields, dict) and dumps(fields) == text
    except (ValueError, RecursionError):
        fields, is_canonical = None, False
    got = fields.get("format") if isinstance(fields, dict) else None
    if type(got) is int and got > FORMAT:
        what = (
            f"written by a newer version of ablate: format {str(got)[:40]}, and this version reads {FORMAT}"
        )
        raise BadInput(f"{path}: {what}; upgrade ablate")
    if not is_canonical:
        raise BadInput(f"{path} must be JSON as `pack` writes it, and is not; pack the model again")
    if type(got) is not int or got != FORMAT:  # true == 1
        raise BadInput(f"{path}: format must be {FORMAT}, but got {got!r:.40}; pack the model again")
    return fields


def _bytes(path: Path, most: float = math.inf) -> bytes:
    advice = "give a folder that `pack` or `ablate export` wrote"
    try:
        if not path.is_file():
            raise ValueError(f"there is no such file; {advice}")
        if (length := path.stat().st_size) > most:
            raise ValueError(f"it must be at most {most} bytes long, but is {length}; {advice}")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise BadInput(f"cannot read {path}: {error}") from None
