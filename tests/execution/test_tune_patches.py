"""Ray's private names: they are checked before each study, which does without them where they are missing."""

import ast
import os
import time
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import ray

import ablate
from ablate import load_run, run_study
from ablate.config.study_spec import load_study
from ablate.config.trial_spec import TrialSpec
from ablate.execution import ray_cluster, tune_patches
from ablate.execution.ray_cluster import Resources
from ablate.execution.tune_callbacks import ProgressCallback
from ablate.execution.tune_patches import DEATHS, PATCHES, Patch, missing_names, patched_tune
from ablate.execution.tune_runner import distribute
from ablate.runs.ledger import read
from ablate.runs.record import blank_record

WALL = ("train_seconds", "started_at")
PUBLIC = {
    "ray",
    "ray.tune",
    "ray.tune.search",
    "ray.util.metrics",
    "ray.util.scheduling_strategies",
    "ray.exceptions",
}


@pytest.fixture
def without_private_names(monkeypatch):
    """Every private module of Ray is empty, as this package sees it. Ray itself still has them."""
    monkeypatch.setattr(tune_patches, "import_module", ModuleType)


def test_this_ray_has_every_name():
    assert [missing_names(patch) for patch in PATCHES] == [[]] * len(PATCHES)


def test_private_names_are_used_in_one_module_alone():
    for path in Path(ablate.__file__).parent.glob("execution/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [node.module] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            used = {module for module in modules if module.partition(".")[0] == "ray"}
            assert used <= PUBLIC, path


def test_names_and_parameters_are_compared(monkeypatch):
    class Controller:
        def __init__(self):
            self.cache = []

        def add(self, trial):
            pass

    module = ModuleType("there")
    module.Controller = Controller
    monkeypatch.setattr(
        tune_patches, "import_module", lambda name: module if name == "there" else import_module(name)
    )
    names = {
        "there:Controller": None,
        "there:Controller.cache": None,  # of its instances
        "there:Controller.add": ("self", "trial"),
        "there:Other": None,
        "there:Controller.queue": None,
        "there:Controller.pop": ("self",),
        "there:Controller.add ": None,
        "there.nowhere:Controller": None,
    }
    assert missing_names(Patch(names, "")) == [
        "there.Other",
        "there.Controller.queue",
        "there.Controller.pop(self)",
        "there.Controller.add ",
        "there.nowhere.Controller",
    ]
    assert missing_names(Patch({"there:Controller.add": ("self", "trial", "by")}, "")) == [
        "there.Controller.add(self, trial, by)"
    ]
    assert missing_names(Patch({"there:Controller.cache": ("self",)}, ""))  # not a function


def test_tune_is_as_before_afterwards(caplog):
    names = (
        (tune_patches.TUNE, "TuneController"),
        (tune_patches.ACTORS, "RayActorError"),
        (tune_patches.CONTROLLER, "RayActorError"),
        (tune_patches.PROGRESS, "TrialProgressCallback"),
    )

    def now():
        return [getattr(import_module(module), name) for module, name in names]

    before = now()
    with patched_tune(1, lambda: True, lambda trial_id: True):
        controller, *others = now()
        assert issubclass(controller, before[0]) and controller is not before[0]
        assert others == [DEATHS, DEATHS, ProgressCallback]
    assert now() == before and not caplog.records


def test_one_line_says_what_is_missing_and_what_is_slower(without_private_names, caplog):
    before = import_module(tune_patches.TUNE).TuneController
    with patched_tune(1, lambda: True, lambda trial_id: True):
        assert import_module(tune_patches.TUNE).TuneController is before
    [line] = [record.getMessage() for record in caplog.records]
    assert "\n" not in line and ray.__version__ in line
    assert "ray.tune.execution.tune_controller.TuneController.add_trial(self, trial)" in line
    assert all(patch.otherwise in line for patch in PATCHES)


@pytest.mark.long
def test_a_study_without_private_names_has_the_same_trials_and_records(
    finished, tmp_path, without_private_names, caplog
):
    path, _ = finished
    study = load_study(str(path / "study.toml"))
    run = run_study(study, tmp_path / "run", resources=Resources(concurrency=1))
    assert run.state["status"] == "finished"
    same, own = (bare(each.records) for each in (load_run(path), run))
    assert own == same
    assert [record.name for record in caplog.records].count(tune_patches.__name__) == 1


def bare(records):
    return [
        {key: value for key, value in record.items() if key not in WALL}
        for record in records.to_dict("records")
    ]


@pytest.mark.long
@pytest.mark.usefixtures("without_private_names")
def test_without_private_names_several_trials_run_at_once_and_a_death_is_recorded(tmp_path):
    """The seventh trial's worker ends its own process, at each attempt."""

    def sleepy(spec, name, state, *, threads):
        time.sleep(0.05)
        yield SimpleNamespace(epoch=1, accuracy=0.5, state={})
        if spec.seed == 6:
            os._exit(1)
        record = blank_record(spec, name) | {"status": "complete", "accuracy": 0.5, "loss": 1.0}
        return SimpleNamespace(record=record, predictions={}, weights={})

    queue = iter([(f"trial{i}", TrialSpec(seed=i)) for i in range(12)])
    told, deaths = [], set()
    (tmp_path / "ledger.jsonl").touch()
    ray.init("local", num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        distribute(
            lambda: next(queue, None),
            lambda record: told.append(record) or [],
            lambda running, waiting, died: deaths.add(died),
            stop=lambda: False,
            steps=sleepy,
            path=tmp_path,
            writer=ray_cluster.writer_of(tmp_path),
            resources=Resources(concurrency=3, gpus_per_trial=0.0),
        )
    finally:
        ray.shutdown()
    ledger = {record["seed"]: record for record in read(tmp_path / "ledger.jsonl")}
    assert sorted(ledger) == list(range(12)) and len(told) == 12 and max(deaths) == 3
    assert ledger[6]["error"].startswith("its worker died 3 times, at last: ")
    assert all(record["status"] == "complete" for seed, record in ledger.items() if seed != 6)
