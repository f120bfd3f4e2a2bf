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

import torch

from ablate.errors import BadInput
from ablate.ledger import store
from ablate.trial import device_name

PACKAGES = ("ablate-vit", "torch", "transformers", "ray", "optuna", "numpy", "scipy", "safetensors", "thop")


def provenance() -> dict[str, Any]:
    """What this process runs, on what, as of now."""
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "git_commit": _git_commit(),
        "hardware": {
            "device": device_name(),
            "cpus": os.cpu_count(),
            "instructions": " ".join(sorted(name for name, has in torch.cpu.get_capabilities().items() if has is True)),
            "system": platform.platform(),
        },
        "started_at": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def check_contents(path: Path, contents: dict[str, str]) -> None:
    """Raises BadInput when a run's dataset or model holds something else than when it began: its trials would not compare."""
    for name, was in _known(path).items():
        if contents.get(name, was) != was:
            what = name.removesuffix("_sha256")
            raise BadInput(
                f"RUN must go on with the {what} that it began with, but that has changed (sha256 {was[:12]} then, "
                f"{contents[name][:12]} now); put back what was there, or begin a new run"
            )


def add_resume(path: Path, contents: dict[str, str]) -> None:
    """Note in the run's provenance.json, under "resumed", that this process goes on with it, and what it goes on with."""
    known = contents | _known(path)
    known["resumed"] = [*known.get("resumed", []), provenance()]
    store(path / "provenance.json", json.dumps(known, indent=1).encode())


def _known(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((path / "provenance.json").read_text(encoding="utf-8-sig")))
    except (FileNotFoundError, ValueError):  # a half-copied folder
        return {}


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
