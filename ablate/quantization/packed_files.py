"""Reads the two files of a packed model. They hold no code, and are checked before they are used."""

import json
import math
from pathlib import Path
from typing import Any

from safetensors.torch import load
from torch import Tensor

from ablate.config.trial_spec import checked
from ablate.errors import BadInput
from ablate.models import hub
from ablate.paths import local_path
from ablate.quantization.packed_header import (
    FIELD,
    FORMAT,
    METHOD,
    Header,
    dumps,
    of_config,
    sha256,
    to_config,
)

JSON, TENSORS = "config.json", "model.safetensors"
OLD_JSON = "packed.json"  # the header of format 1, whose packed weights are called NAME.packed
ADVICE = "give a folder that `pack` or `ablate export` wrote"
LARGEST_JSON = 2**24  # bytes; a thousand labels take 2^16


def packed_folder(name: str | Path) -> Path:
    """Find the folder of a packed model.

    Args:
        name: A folder; or, as a str, USER/NAME or USER/NAME@REVISION on the Hugging Face hub, whose files are
            downloaded where no folder is called so.

    Returns:
        The folder; it may be missing where the name is a path.

    Raises:
        BadInput: The hub does not answer, or has no such packed model.
    """
    if not hub.is_hub_name(name) or (folder := local_path(name)).exists():
        return local_path(name)
    folder = hub.download(str(name), [JSON])
    if not holds_packed(folder):  # before its weights are downloaded, which may be large
        rule = f"a model on the hub must be a packed one, but {name!r} has no {FIELD} of ablate"
        raise BadInput(f"{rule}; give one that `ablate push` wrote")
    repository = str(name).partition("@")[0]
    return hub.download(f"{repository}@{folder.name}", [JSON, TENSORS])  # of the same commit


def files(directory: str | Path) -> list[Path]:
    """The two files of a packed model: its header and its tensors; they may be missing."""
    folder = packed_folder(directory)
    return [folder / (OLD_JSON if (folder / OLD_JSON).exists() else JSON), folder / TENSORS]


def holds_packed(directory: Path) -> bool:
    """Whether a folder has the header of a packed model."""
    try:
        return (directory / OLD_JSON).exists() or _is_packed(json.loads((directory / JSON).read_bytes()))
    except (OSError, ValueError, RecursionError):
        return False


def read(directory: str | Path) -> tuple[Header, dict[str, Tensor]]:
    """Read a packed model.

    Args:
        directory: As of `packed_folder`.

    Returns:
        Its header and its tensors: intact and in the layout of FORMAT, but not yet compared with a model.

    Raises:
        BadInput: A file is missing, truncated, edited or of another kind.
    """
    header, data = read_intact(directory)
    try:
        tensors = load(data)
    except Exception as error:  # safetensors raises several kinds
        why = " ".join(str(error).split())[:100]
        raise BadInput(f"{files(directory)[1]} is not a safetensors file: {why}") from None
    if header.format == 1:
        old = {f"{name}.packed": f"{name}.weight" for name in header.layers}
        tensors = {old.get(key, key): value for key, value in tensors.items()}
    return header, tensors


def read_intact(directory: str | Path) -> tuple[Header, bytes]:
    """Read a packed model's header, and the content of its other file, which the header has the digest of.

    Args:
        directory: As of `packed_folder`.

    Raises:
        BadInput: A file is missing, truncated, edited or of another kind.
    """
    path, tensors_path = files(directory)
    fields, data = _fields(path), _bytes(tensors_path)
    recorded = fields.get("sha256")
    intact = sha256({key: value for key, value in fields.items() if key != "sha256"}, data) == recorded
    try:
        header = checked(Header, fields, str(path))
    except BadInput as error:  # it quotes the content of the file
        newer = "; it is as it was packed, maybe by a newer version: upgrade ablate" if intact else ""
        raise BadInput(" ".join(str(error).split())[:400] + newer) from None
    if not intact:
        raise BadInput(f"{directory}: the files are damaged or edited: sha256 differs; pack the model again")
    return header, data


def _fields(path: Path) -> dict[str, Any]:
    """The fields of a header, spelled as `pack` spells them: no key twice, no NaN, no spaces."""
    text, expected = _bytes(path, LARGEST_JSON), 1 if path.name == OLD_JSON else FORMAT
    try:
        content = json.loads(text)
        is_canonical = isinstance(content, dict) and dumps(content) == text
    except (ValueError, RecursionError):
        content, is_canonical = None, False
    if isinstance(content, dict) and path.name == JSON and not _is_packed(content):
        raise BadInput(f"{path} is not of a packed model: it has no {FIELD} of ablate; {ADVICE}")
    own = content[FIELD] if isinstance(content, dict) and path.name == JSON else content
    got = own.get("format") if isinstance(own, dict) else None
    if type(got) is int and got > expected:
        what = (
            f"written by a newer version of ablate: format {str(got)[:40]}, and this version reads {expected}"
        )
        raise BadInput(f"{path}: {what}; upgrade ablate")
    fields = of_config(content) if is_canonical and path.name == JSON else content
    if not is_canonical or (path.name == JSON and to_config(fields) != content):
        raise BadInput(f"{path} must be JSON as `pack` writes it, and is not; pack the model again")
    if type(got) is not int or got != expected:  # true == 1
        raise BadInput(f"{path}: format must be {expected}, but got {got!r:.40}; pack the model again")
    return fields


def _is_packed(config: Any) -> bool:
    """Whether a configuration is of a packed model, and not of one that is quantized in training."""
    own = config.get(FIELD) if isinstance(config, dict) else None
    return isinstance(own, dict) and own.get("quant_method") == METHOD and "format" in own


def _bytes(path: Path, most: float = math.inf) -> bytes:
    try:
        if not path.is_file():
            raise ValueError(f"there is no such file; {ADVICE}")
        if (length := path.stat().st_size) > most:
            raise ValueError(f"it must be at most {most} bytes long, but is {length}; {ADVICE}")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise BadInput(f"cannot read {path}: {error}") from None
