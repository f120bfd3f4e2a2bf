"""Where a run's numbers come from: command, versions, commit and hardware of the driver that began it, and of each resume."""

import json
import os
import platform
import subprocess
import sys
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ablate.ledger import store
from ablate.trial import device_name

PACKAGES = ("ablate-vit", "torch", "transformers", "ray", "optuna", "numpy", "safetensors", "thop")


def provenance() -> dict[str, Any]:
    """What this process runs, on what, as of now."""
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "git_commit": _git_commit(),
        "hardware": {"device": device_name(), "cpus": os.cpu_count(), "system": platform.platform()},
        "started_at": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def add_resume(path: Path) -> None:
    """Note in the run's provenance.json, under "resumed", that this process goes on with it."""
    file = path / "provenance.json"
    try:
        known = dict(json.loads(file.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):  # a half-copied folder
        known = {}
    known["resumed"] = [*known.get("resumed", []), provenance()]
    store(file, json.dumps(known, indent=1).encode())


def _git_commit() -> str | None:
    """The commit of this package's own checkout; None for an installed package, and without git."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        git = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True)
    except OSError:
        return None
    return git.stdout.strip() or None
