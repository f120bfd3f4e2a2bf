"""Ray Tune's actors, kept: a new one costs the imports of torch and transformers, and a dead one must not end the study."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.air.execution._internal import actor_manager
from ray.tune import tune
from ray.tune.execution import tune_controller

# A worker that is killed for lack of memory is a death too; Tune knows RayActorError alone, and would end the study.
DEATHS = (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError, ray.exceptions.NodeDiedError)
actor_manager.RayActorError = tune_controller.RayActorError = DEATHS


@contextmanager
def keep_actors(slots: int, may_come: Callable[[], bool], may_swap: Callable[[str], bool]) -> Iterator[None]:
    """Within: Tune ends no actor while trials may come, starts none in vain, and forgets the trials that have ended.

    By itself it keeps one of several that fall idle together. And it gives an idle actor to a trial whose own is
    starting, and ends that one: with many slots and short trials, most are started for nothing. Here it does so only
    where there are more actors than slots, and where `may_swap` says so of a trial, by Tune's id.
    """

    class Keeper(tune_controller.TuneController):
        kept = 0

        def add_trial(self, trial: Any) -> None:
            super().add_trial(trial)  # decides what it needs
            if not self.kept and may_come():
                self.kept, self.needs = slots, trial.placement_group_factory
                self._actor_cache.increase_max(self.needs, by=slots)

        def _maybe_reuse_cached_actor(self, trial: Any) -> bool:
            superfluous = len(self._actor_to_trial) + self._actor_cache.num_cached_objects > slots
            if trial in self._trial_to_actor and not superfluous and not may_swap(trial.trial_id):
                return False
            return bool(super()._maybe_reuse_cached_actor(trial))

        def on_step_end(self) -> None:
            for trial in [trial for trial in self._trials if trial.is_finished()][
                :-1
            ]:  # the run's ledger has it
                self._trials.remove(trial)
                for kept in (self._stopped_trials, self._failed_trials, self._trials_to_cache):
                    kept.discard(trial)
                self._trial_metadata.pop(trial.trial_id, None)
            if self.kept and not may_come():  # idle ones give their processors and GPUs back
                self._actor_cache.decrease_max(self.needs, by=self.kept)
                self.kept = 0
            super().on_step_end()

    plain, tune.TuneController = tune.TuneController, Keeper
    try:
        yield
    finally:
        tune.TuneController = plain
