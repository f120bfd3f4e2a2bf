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
from ablate.files import write_atomic
from ablate.hardware import cpus, device_name

ROOT = Path(__file__).resolve().parent.parent.parent
CODE = (
    "ablate",
    "analysis",
    "paper_figures",
    "search_spaces",
    "studies",
)  # the package's folders in a checkout
PACKAGES = ("ablate-vit", "torch", "transformers", "ray", "optuna", "numpy", "scipy", "safetensors", "thop")


def provenance() -> dict[str, Any]:
    """What this process runs, on what, as of now."""
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        **checkout(),
        "hardware": {
            "device": device_name(),
            "cpus": cpus(),
            "instructions": " ".join(
                sorted(name for name, has in torch.cpu.get_capabilities().items() if has is True)
            ),
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
    write_atomic(path / "provenance.json", json.dumps(known, indent=1).encode())


def _known(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((path / "provenance.json").read_text(encoding="utf-8-sig")))
    except (FileNotFoundError, ValueError):  # a half-copied folder
        return {}


def checkout(root: Path = ROOT) -> dict[str, Any]:
    """The commit of this package's own checkout, and whether its code was changed since; null for what is not known.

    So for an installed package, and without git.
    """
    commit = changes = None
    if (root / ".git").exists():
        commit = _git(root, "rev-parse", "HEAD")
        changes = _git(root, "status", "--porcelain", "--", *CODE)
    return {"git_commit": commit or None, "git_dirty": None if changes is None else bool(changes)}


def _git(root: Path, *arguments: str) -> str | None:
    """What git says; None where it can't. It takes no lock, and trusts a checkout of another user, whose code runs anyway."""
    options = ("--no-optional-locks", "-c", f"safe.directory={root}", "-c", "core.fsmonitor=false")
    ours = {
        key: value for key, value in os.environ.items() if not key.startswith("GIT_")
    }  # GIT_DIR names another checkout
    try:
        git = subprocess.run(
            ["git", "-C", str(root), *options, *arguments],
            capture_output=True,
            text=True,
            env=ours,
            timeout=20,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return git.stdout.strip() if git.returncode == 0 else None
