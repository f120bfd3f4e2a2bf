"""Keeps which way to compute a kind of block is the fastest, for later processes on the same machine."""

import hashlib
import json
import logging
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ablate.data.cache import cache
from ablate.files import write_atomic
from ablate.hardware import cpu_name

log = logging.getLogger(__name__)
SOURCES = ("fused_blocks.py", "fused_linear.py", "fused_passes.py", "fused_products.py", "integer_linear.py")


def choices_file() -> Path:
    """Where the choices are kept. It may be deleted at any time: what is missing is measured again."""
    return cache() / "fused.json"


def kept_choice(key: str) -> str | None:
    """The choice that was kept for a key; None where there is none."""
    choice = _read().get(key)
    return choice if isinstance(choice, str) else None


def keep_choice(key: str, choice: str) -> None:
    """Keep a choice, where the cache folder can be written."""
    try:
        write_atomic(choices_file(), json.dumps(_read() | {key: choice}, indent=1).encode())
    except (OSError, ValueError, ImportError) as error:  # a packed model may be used without platformdirs
        log.info("the fastest way could not be kept: %s", error)


def choice_key(*parts: object) -> str:
    """A key of what decides which way is the fastest: the parts, CPU, threads, torch and the code."""
    sha = hashlib.sha256(repr((*parts, *_machine())).encode())
    for name in SOURCES:
        sha.update((Path(__file__).parent / name).read_bytes())
    return sha.hexdigest()[:16]


def _machine() -> tuple[Any, ...]:
    capabilities = sorted(torch.cpu.get_capabilities().items())
    return cpu_name(), capabilities, torch.get_num_threads(), version("torch")


def _read() -> dict[str, Any]:
    try:
        choices = json.loads(choices_file().read_text())
    except (OSError, ValueError, RecursionError, ImportError):  # absent, or damaged
        return {}
    return choices if isinstance(choices, dict) else {}
