"""Where a run's numbers come from: command, versions, commit and hardware of each driver that it had."""

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
from ablate.labels import without_secrets
from ablate.models import digests
from ablate.runs.provenance_file import FILE, read_provenance, versions_then_and_now

ROOT = Path(__file__).resolve().parent.parent.parent
# The package's folders in a checkout.
CODE = ("ablate", "analysis", "paper_figures", "search_spaces", "studies")
PACKAGES = ("ablate-vit", "torch", "transformers", "ray", "optuna", "numpy", "scipy", "safetensors", "thop")


def provenance() -> dict[str, Any]:
    """Return the command, versions, commit and hardware of this process, and the time."""
    capabilities = torch.cpu.get_capabilities()
    program = Path(sys.argv[0]).name.replace("__main__.py", "ablate")  # python -m ablate
    return {
        "command": [program, *map(without_secrets, sys.argv[1:])],
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        **checkout(),
        "hardware": {
            "device": device_name(),
            "cpus": cpus(),
            "instructions": " ".join(sorted(name for name, has in capabilities.items() if has is True)),
            "system": platform.platform(),
        },
        "started_at": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def check_contents(path: Path, contents: dict[str, str]) -> None:
    """Check that a run's dataset and model are those that it began with. Otherwise its trials do not compare.

    Args:
        path: The run's folder.
        contents: Digests of now: `dataset_sha256`, `model_sha256`.

    Raises:
        BadInput: A digest has changed.
    """
    for name, before in read_provenance(path).items():
        if isinstance(before, str) and contents.get(name, before) != before:
            kind = name.removesuffix("_sha256")
            change = f"sha256 {before[:12]} then, {contents[name][:12]} now"
            rule = f"RUN must go on with the {kind} that it began with, but that has changed ({change})"
            mend = "put back what was there, or begin a new run"
            # Digests of the first versions of ablate were of what transformers made of the files.
            if kind == "model" and (versions := versions_then_and_now(path, "transformers")):
                then, now = versions
                mend += f"; if nothing was changed, resume with transformers {then}, since this is {now}"
            raise BadInput(f"{rule}; {mend}")


def keep_model(path: Path, model: str) -> None:
    """Let trials of a run's model keep the ids that they had in an older version of ablate.

    Args:
        path: The run's folder.
        model: Its model.

    Raises:
        BadInput: The model is unknown or broken.
    """
    known = read_provenance(path)
    recorded, classes = known.get("model_sha256"), known.get("classes")
    if isinstance(recorded, str) and isinstance(classes, list):
        digests.keep_start(model, classes, recorded)


def add_resume(path: Path, contents: dict[str, Any]) -> None:
    """Add this process to "resumed" in a run's provenance.json.

    A file that cannot be read, as of a half-copied folder, is kept beside the new one.

    Args:
        path: The run's folder.
        contents: The digests and the study, which are added where the file has none.
    """
    known, file = read_provenance(path), path / FILE
    if not known and file.exists():
        file.replace(path / f"unreadable-{FILE}")
    resumed = known.get("resumed")
    earlier = resumed if isinstance(resumed, list) else []
    known = {**contents, **known, "resumed": [*earlier, provenance()]}
    write_atomic(file, json.dumps(known, indent=1).encode())


def checkout(root: Path = ROOT) -> dict[str, Any]:
    """Return the commit of this package's checkout, and whether its code has changed since.

    Args:
        root: The checkout.

    Returns:
        `git_commit` and `git_dirty`; None for an installed package, and without git.
    """
    commit = changes = None
    if (root / ".git").exists():
        commit = _git(root, "rev-parse", "HEAD")
        changes = _git(root, "status", "--porcelain", "--", *CODE)
    return {"git_commit": commit or None, "git_dirty": None if changes is None else bool(changes)}


def _git(root: Path, *arguments: str) -> str | None:
    """Return what git prints, None where it fails. It trusts a checkout of another user."""
    options = ("--no-optional-locks", "-c", f"safe.directory={root}", "-c", "core.fsmonitor=false")
    # GIT_DIR and others would name another checkout.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        git = subprocess.run(
            ["git", "-C", str(root), *options, *arguments],
            capture_output=True,
            text=True,
            env=environment,
            timeout=20,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return git.stdout.strip() if git.returncode == 0 else None
