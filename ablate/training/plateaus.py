"""Keeps the state at the end of a training's plateau, for longer trainings that begin in the same way."""

import hashlib
import logging
import os
from contextlib import suppress
from typing import Any

import torch
from pyarrow import ArrowInvalid

from ablate.config.trial_spec import TrialSpec
from ablate.data.cache import cache
from ablate.data.datasets import Dataset
from ablate.hardware import device_name
from ablate.training.checkpoint_store import Storage
from ablate.training.loss import distills
from ablate.training.teacher_cache import code_digest, source_files
from ablate.training.trial import external_teacher, trial_id

log = logging.getLogger(__name__)
MOST_BYTES = 10 * 2**30  # of all kept states


class Plateaus:
    """The states of plateaus, one for all trials that differ in their length alone: that of the longest.

    Beyond 10 GiB those that were not used for the longest time are deleted.

    Args:
        spec: A trial, resolved.
        dataset: Its data.
    """

    def __init__(self, spec: TrialSpec, dataset: Dataset) -> None:
        self._folder = cache() / "plateaus"
        self._storage = Storage(str(self._folder))
        # A teacher of the trial's own is trained as long as the trial.
        taught = distills(spec.recipe) and external_teacher(spec, dataset) is None
        self._key = None if spec.recipe.schedule != "wsd" or taught else _key(spec, dataset)

    def load(self, steps: int) -> dict[str, Any] | None:
        """The kept state, if it is one of so many steps at most."""
        state = self._storage.load(self._key) if self._key else None
        if not state or _steps(state) > steps:
            return None
        with suppress(OSError):  # deleted by another trial, or a folder that is only read
            os.utime(self._folder / f"{self._key}.pt")
        return state

    def keep(self, state: dict[str, Any]) -> None:
        """Keep a state, unless a later one is kept."""
        if self._key is None:
            return
        try:
            before = self._storage.load(self._key)
            if before is None or _steps(before) < _steps(state):
                self._storage.files.create_dir(self._storage.path, recursive=True)
                self._storage.save(self._key, state)
                self._delete_old()
        except (OSError, ArrowInvalid) as error:  # the trial goes on without it
            log.warning("the state of a plateau could not be kept: %s", error)

    def _delete_old(self) -> None:
        """Delete what was not used for the longest time, but not what was just kept."""
        found = [(file.stat().st_mtime_ns, file.stat().st_size, file) for file in self._folder.glob("*.pt*")]
        total = sum(size for _, size, _ in found)
        for _, size, file in sorted(found)[:-1]:
            if total <= MOST_BYTES:
                break
            file.unlink(missing_ok=True)
            total -= size


def _key(spec: TrialSpec, dataset: Dataset) -> str:
    """Of all that decides a state: the trial without its length, device, threads, code and libraries."""
    recipe = spec.recipe.model_copy(update={"epochs": 0, "image_views": None})
    name = trial_id(spec.model_copy(update={"recipe": recipe, "test": False}), dataset)
    where = f"{device_name()}, {torch.get_num_threads()} threads"
    return hashlib.sha256(f"{name} on {where} {code_digest(source_files())}".encode()).hexdigest()[:16]


def _steps(state: dict[str, Any]) -> int:
    steps: int = state["schedule"]["last_epoch"]
    return steps
