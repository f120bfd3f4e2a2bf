"""Changes to private parts of Ray Tune. Without them a study runs on its public interface: slower, not wrong.

This is the only module that uses private names of Ray. It checks them before each study, because Ray may
rename them in any version.
"""

import inspect
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import ray

from ablate.execution.tune_callbacks import ProgressCallback

log = logging.getLogger(__name__)

TUNE, CONTROLLER = "ray.tune.tune", "ray.tune.execution.tune_controller"
ACTORS, PROGRESS = "ray.air.execution._internal.actor_manager", "ray.tune.progress_reporter"
TRIAL, CACHE = "ray.tune.experiment.trial:Trial", "ray.tune.utils.object_cache:_ObjectCache"
# A worker that is killed for lack of memory has died too. Tune knows RayActorError alone, and would end the
# study.
DEATHS = (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError, ray.exceptions.NodeDiedError)


@dataclass(frozen=True)
class Patch:
    """A change to Tune.

    Attributes:
        names: What it relies on: "module:name" or "module:Class.member" -> the parameters that a function
            must have; None where the name alone matters.
        otherwise: What a study is like without the change.
    """

    names: Mapping[str, tuple[str, ...] | None]
    otherwise: str


KEEP_ACTORS = Patch(
    {
        f"{TUNE}:TuneController": None,
        f"{CONTROLLER}:TuneController.add_trial": ("self", "trial"),
        f"{CONTROLLER}:TuneController.on_step_end": ("self",),
        f"{CONTROLLER}:TuneController._maybe_reuse_cached_actor": ("self", "trial"),
        f"{CONTROLLER}:TuneController._actor_cache": None,
        f"{CONTROLLER}:TuneController._actor_to_trial": None,
        f"{CONTROLLER}:TuneController._trial_to_actor": None,
        f"{CONTROLLER}:TuneController._trials": None,
        f"{CONTROLLER}:TuneController._stopped_trials": None,
        f"{CONTROLLER}:TuneController._failed_trials": None,
        f"{CONTROLLER}:TuneController._trials_to_cache": None,
        f"{CONTROLLER}:TuneController._trial_metadata": None,
        f"{CACHE}.increase_max": ("self", "key", "by"),
        f"{CACHE}.decrease_max": ("self", "key", "by"),
        f"{CACHE}.num_cached_objects": None,
        f"{TRIAL}.is_finished": ("self",),
        f"{TRIAL}.placement_group_factory": None,
    },
    "workers are started again more often, and ended trials stay in memory",
)
COUNT_DEATHS = Patch(
    {f"{ACTORS}:RayActorError": None, f"{CONTROLLER}:RayActorError": None},
    "a worker that is killed for lack of memory stops the study, and `ablate resume` continues it",
)
NO_PROGRESS_REPORTS = Patch(
    {f"{PROGRESS}:TrialProgressCallback": None}, "Tune keeps the last result of every trial in memory"
)
READ_ERRORS = Patch(  # by ProgressCallback, which does without them
    {f"{TRIAL}.error_file": None, f"{TRIAL}.pickled_error_file": None},
    "a trial whose worker raises is tried again, and why is not recorded",
)
PATCHES = (KEEP_ACTORS, COUNT_DEATHS, NO_PROGRESS_REPORTS, READ_ERRORS)


def missing_names(patch: Patch) -> list[str]:
    """The names that a patch relies on and that this Ray lacks, or has with other parameters."""
    return [_shown(name, expected) for name, expected in patch.names.items() if not _is_there(name, expected)]


@contextmanager
def patched_tune(
    slots: int, expects_trials: Callable[[], bool], may_take_idle_actor: Callable[[str], bool]
) -> Iterator[None]:
    """Change Tune within a `with` block where this Ray has the private names; log one line of those it lacks.

    Args:
        slots: Trials that run at once.
        expects_trials: Whether more trials may be proposed.
        may_take_idle_actor: Whether a trial, by Tune's id, takes an idle actor although its own is starting.

    Yields:
        None.
    """
    missing = {patch.otherwise: names for patch in PATCHES if (names := missing_names(patch))}
    if missing:
        reasons = "; ".join(f"without {', '.join(names)}, {loss}" for loss, names in missing.items())
        rule = f"Ray {ray.__version__} has other private names than expected"
        log.warning(f"{rule}. The results are the same, but {reasons}.")
    with ExitStack() as changes:
        if KEEP_ACTORS.otherwise not in missing:
            keeper = _keeper(slots, expects_trials, may_take_idle_actor)
            changes.enter_context(_replaced(TUNE, "TuneController", keeper))
        if COUNT_DEATHS.otherwise not in missing:
            changes.enter_context(_replaced(ACTORS, "RayActorError", DEATHS))
            changes.enter_context(_replaced(CONTROLLER, "RayActorError", DEATHS))
        if NO_PROGRESS_REPORTS.otherwise not in missing:  # Tune adds none where one of this class is given
            changes.enter_context(_replaced(PROGRESS, "TrialProgressCallback", ProgressCallback))
        yield


def _is_there(name: str, parameters: tuple[str, ...] | None) -> bool:
    module, _, path = name.partition(":")
    *owners, member = path.split(".")
    try:
        owner: Any = import_module(module)
        for part in owners:
            owner = getattr(owner, part)
        if parameters is None:
            return hasattr(owner, member) or member in _names_in_constructor(owner)
        return tuple(inspect.signature(getattr(owner, member)).parameters) == parameters
    except (ImportError, AttributeError, TypeError, ValueError):  # the last two: it has no signature
        return False


def _names_in_constructor(owner: Any) -> tuple[str, ...]:
    """The attributes that a class's constructor reads or sets, among other names."""
    constructor = inspect.unwrap(owner.__init__)
    return getattr(getattr(constructor, "__code__", None), "co_names", ())


def _shown(name: str, parameters: tuple[str, ...] | None) -> str:
    return name.replace(":", ".") + ("" if parameters is None else f"({', '.join(parameters)})")


@contextmanager
def _replaced(module: str, name: str, value: Any) -> Iterator[None]:
    owner = import_module(module)
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)


def _keeper(
    slots: int, expects_trials: Callable[[], bool], may_take_idle_actor: Callable[[str], bool]
) -> type:
    """A TuneController that keeps its actors while trials may come and forgets the trials that have ended.

    A new actor costs the imports of torch and transformers. By itself Tune keeps one of several actors that
    fall idle together. And it gives an idle actor to a trial whose own is starting, and ends that one: with
    many slots and short trials, most actors are started for nothing. This controller does so only where there
    are more actors than slots, or where `may_take_idle_actor` says so of a trial, by Tune's id.
    """
    controller: Any = import_module(CONTROLLER).TuneController

    class Keeper(controller):
        kept = 0

        def add_trial(self, trial: Any) -> None:
            super().add_trial(trial)  # sets the resources that the trial needs
            if not self.kept and expects_trials():
                self.kept, self.needs = slots, trial.placement_group_factory
                self._actor_cache.increase_max(self.needs, by=slots)

        def _maybe_reuse_cached_actor(self, trial: Any) -> bool:
            superfluous = len(self._actor_to_trial) + self._actor_cache.num_cached_objects > slots
            starting = trial in self._trial_to_actor
            if starting and not superfluous and not may_take_idle_actor(trial.trial_id):
                return False
            return bool(super()._maybe_reuse_cached_actor(trial))

        def on_step_end(self) -> None:
            self._forget_ended_trials()
            if self.kept and not expects_trials():  # idle actors free their processors and GPUs
                self._actor_cache.decrease_max(self.needs, by=self.kept)
                self.kept = 0
            super().on_step_end()

        def _forget_ended_trials(self) -> None:
            """All but the last; the run's ledger has them."""
            for trial in [trial for trial in self._trials if trial.is_finished()][:-1]:
                self._trials.remove(trial)
                for others in (self._stopped_trials, self._failed_trials, self._trials_to_cache):
                    others.discard(trial)
                self._trial_metadata.pop(trial.trial_id, None)

    return Keeper
