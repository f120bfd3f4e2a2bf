"""Reads a run's provenance.json, which may be of another version, half copied or gone; imports no torch."""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

FILE = "provenance.json"
KINDS: dict[str, type] = {
    **dict.fromkeys(("dataset_sha256", "model_sha256", "teacher_sha256", "started_at", "git_commit"), str),
    **dict.fromkeys(("versions", "hardware", "study"), dict),
    **dict.fromkeys(("command", "classes", "layer_groups", "resumed", "checks"), list),
}


def read_provenance(path: Path) -> dict[str, Any]:
    """Read what is known of where a run's numbers come from.

    Args:
        path: The run's folder.

    Returns:
        The content of its provenance.json; empty where there is none, or none that is a JSON object.
        Fields that hold something of another kind are left out.
    """
    try:
        known = json.loads((path / FILE).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(known, dict):
        return {}
    return {name: value for name, value in known.items() if isinstance(value, KINDS.get(name, object))}


def identity(path: Path) -> str:
    """Return what tells a run from others, also after its folder was moved or copied: 12 hexadecimal digits.

    Args:
        path: The run's folder. Where nothing is known of when and how the run began, its name decides.
    """
    known = read_provenance(path)
    began = {name: known.get(name) for name in ("command", "started_at", "hardware")}
    text = json.dumps(began if known.get("started_at") else path.name, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def versions_then_and_now(path: Path, package: str) -> tuple[str, str] | None:
    """Compare the version of a package that a run went on with last, or began with, with this one.

    Args:
        path: The run's folder.
        package: Its name, such as "ablate-vit".

    Returns:
        Both versions; None where they are the same, or where the first one is not known.
    """
    known = read_provenance(path)
    resumed = known.get("resumed")
    drivers = [known, *(resumed if isinstance(resumed, list) else [])]
    versions = [each.get("versions") for each in drivers if isinstance(each, dict)]
    found = [each[package] for each in versions if isinstance(each, dict) and package in each]
    then, now = str(found[-1]) if found else "", version(package)
    return None if then in ("", now) else (then, now)
