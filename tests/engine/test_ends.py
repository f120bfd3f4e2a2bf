"""How a study ends: its state, the command's last line and its exit code say what happened."""

import io
import logging
import time
from contextlib import suppress

import pytest
from rich.console import Console

from ablate import load_run
from ablate.cli.live_view import StudyView
from ablate.cli.status import outcome
from ablate.config.study_spec import StudySpec, load_study
from ablate.engine import drive
from ablate.engine.controller import Driver
from ablate.engine.drive import Session
from ablate.engine.energy_check import check_device
from ablate.engine.plan import plan
from ablate.errors import AblateError, BadInput
from ablate.execution import ray_cluster
from ablate.execution.metrics import Metrics
from ablate.execution.ray_cluster import Resources
from ablate.hardware import device_name
from ablate.runs import log
from ablate.runs.run import create_run


@pytest.fixture(scope="module")
def ray_of_one():
    with ray_cluster.connected(Resources(concurrency=1)) as (_, resources):
        yield resources


def driven(path, text, resources, view=None):
    """A study in a Ray that is there already."""
    path.mkdir()
    (path / "tiny.toml").write_text(text)
    planned = plan(load_study(str(path / "tiny.toml")))
    run = create_run(path / "run", planned.study, {})
    writer = ray_cluster.writer_of(run.path)
    return drive.drive(run, planned, [], Session(writer, None, resources, view=view))


def failing(stage, fault, resources, tiny_study, path, monkeypatch):
    """The study whose stage raises a fault, and what its caller is told."""

    def fail(*given):
        raise fault

    monkeypatch.setattr(Driver, stage, fail)
    text = tiny_study.replace("trials = 4", "trials = 4\nearly_stopping = {reduction = 2}").replace(
        "epochs = 1", "epochs = 2"
    )
    with pytest.raises(AblateError) as told:
        driven(path, text, resources)
    assert not isinstance(told.value, BadInput)  # exit 1
    return load_run(path / "run"), str(told.value)


@pytest.mark.long
def test_a_failure_of_the_study_is_no_interruption(ray_of_one, tiny_study, tmp_path, monkeypatch, capsys):
    run, told = failing("tell", BadInput("it broke"), ray_of_one, tiny_study, tmp_path / "work", monkeypatch)
    assert (
        told.startswith("the study stopped: it broke; what is recorded is kept") and "ablate resume" in told
    )
    assert run.state["status"] == "failed" and run.state["reason"] == "it broke"
    assert len(run.records) == 1  # it was written before it was told
    capsys.readouterr()
    outcome(run, False)
    assert "The study stopped: it broke; what is recorded is kept" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["ask", "tell", "should_prune", "watch"])
@pytest.mark.parametrize(
    "fault", [RuntimeError("it broke\nhere"), OSError(5, "it broke")], ids=["runtime", "os"]
)
def test_a_failure_at_any_stage(stage, fault, ray_of_one, tiny_study, tmp_path, monkeypatch):
    run, told = failing(stage, fault, ray_of_one, tiny_study, tmp_path / "work", monkeypatch)
    reason = f"{type(fault).__name__}: {fault}".partition("\n")[0]
    assert told.startswith(f"the study stopped: {reason}; ") and "\n" not in told
    assert run.state["status"] == "failed" and run.state["reason"] == reason


@pytest.mark.long
def test_a_view_that_fails_is_dropped_and_the_study_goes_on(ray_of_one, tiny_study, tmp_path, monkeypatch):
    calls = []

    def view(state, records):
        calls.append(len(records))
        raise UnicodeEncodeError("ascii", "größe", 2, 3, "ordinal not in range(128)")

    def broken(metrics, values):
        raise SystemExit(1)  # as Rich on a broken pipe

    monkeypatch.setattr(Metrics, "show", broken)
    run = driven(tmp_path / "work", tiny_study, ray_of_one, view)
    assert run.state["status"] in ("finished", "exhausted") and len(run.records) == run.state["trials"]
    log = (run.path / "study.log").read_text()
    assert calls == [0] and "The view failed and will not be updated: UnicodeEncodeError" in log
    assert log.count("\n") == 2 and "The metrics failed and will not be updated: SystemExit: 1" in log


def failing_at(n):
    """A view that works until its n-th call."""
    calls = []

    def view(state, records):
        calls.append(state["done"])
        if len(calls) == n:
            raise BrokenPipeError(32, "Broken pipe")

    return view, calls


def test_a_view_may_fail_at_every_call(tiny_vit, tmp_path, logged):
    study = StudySpec(question="?", model=str(tiny_vit), space="layers_bits", trials=2)
    planned = plan(study)
    for n in range(1, 5):
        view, calls = failing_at(n)
        run = create_run(tmp_path / str(n), planned.study, {})
        driver = Driver(run, planned, [], Resources(concurrency=1), "", view)
        driver.show([])
        driver.stop()
        driver.shown -= 1
        driver.heartbeat()
        driver.show([])
        driver.end("finished")
        assert len(calls) == n and load_run(run.path).state["status"] == "finished"
        assert "The view failed and will not be updated: BrokenPipeError: [Errno 32]" in logged()


def test_time_is_spent_whatever_the_clock_says(tiny_vit, tmp_path, monkeypatch):
    """As when NTP sets it back by an hour: the view goes on, and so do the seconds that --hours counts."""
    study = StudySpec(question="?", model=str(tiny_vit), space="layers_bits", trials=2)
    planned, seen = plan(study), []
    run = create_run(tmp_path / "run", planned.study, {})
    view = lambda state, records: seen.append(state["spent"])  # noqa: E731
    driver = Driver(run, planned, [], Resources(concurrency=1), "", view)
    driver.show([])
    now = time.time()
    monkeypatch.setattr("ablate.engine.controller.time.time", lambda: now - 3600)
    driver.shown -= 1
    driver.began -= 5
    driver.heartbeat()
    assert len(seen) == 2 and 5 <= seen[1] < 3600 and load_run(run.path).state["elapsed"] == seen[1]
    assert driver.ask() is not None


class FullDisk(io.StringIO):
    """A terminal that takes so many writes."""

    writes = 0

    def isatty(self):
        return True

    def write(self, text):
        self.writes -= 1
        if self.writes < 0:
            raise OSError(5, "Input/output error")
        return len(text)


@pytest.mark.parametrize("writes", [0, 1, 2])
def test_a_live_view_may_fail_from_its_start_to_its_end(writes, logged):
    terminal = FullDisk()
    terminal.writes = writes
    counts = {"complete": 0, "failed": 0, "pruned": 0}
    state = {"status": "running", "run": "r", "before": 0, "done": 0, "trials": 1, "counts": counts}
    state |= {"within": {}, "running": [], "waiting": 0, "deaths": 0, "spent": 1.0, "dashboard": ""}
    with StudyView(Console(file=terminal, force_terminal=True)) as view, suppress(OSError):
        view(state, [])
    assert "The live view failed: OSError: [Errno 5] Input/output error" in logged()


def test_a_log_that_cannot_be_written_changes_no_ending(tmp_path):
    (tmp_path / "study.log").symlink_to("/dev/full")
    with pytest.raises(AblateError, match="how it ended"), log.logged(tmp_path):
        logging.getLogger("ablate.engine").warning("a line")
        raise AblateError("how it ended")


@pytest.mark.long
def test_a_study_whose_tables_cannot_be_written_is_over(ray_of_one, tiny_study, tmp_path, monkeypatch):
    def full(run):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(drive, "finish", full)
    with pytest.raises(
        AblateError, match=r"the study is over, but .*No space left .*`ablate figures .*` writes them"
    ):
        driven(tmp_path / "work", tiny_study.replace("trials = 4", "trials = 1"), ray_of_one)
    assert load_run(tmp_path / "work" / "run").state["status"] == "finished"


@pytest.mark.long
def test_energies_of_another_device_are_not_mixed_with_those_of_this(ray_of_one):
    space = {"description": "?", "layer": {"weights": ["full", "binary"]}}
    study = StudySpec(question="?", space=space, objectives=["accuracy", "energy_mj"])
    own = {"device": device_name(), "energy_mj": 1.0}
    other = {"device": "an abacus", "energy_mj": 1.0}
    check_device(study, [other | {"energy_mj": None}], ray_of_one)
    with pytest.raises(BadInput, match=r"one device alone .* ran on an abacus and the next would on"):
        check_device(study, [own, other], ray_of_one)
    check_device(study.model_copy(update={"objectives": ("accuracy",)}), [other], ray_of_one)
