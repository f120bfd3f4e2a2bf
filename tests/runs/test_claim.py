"""A run's folder belongs to one process: it is claimed once, and locked while it is driven."""

import fcntl
import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from threading import Thread, Timer
from types import SimpleNamespace

import pytest

from ablate.cli.status import outcome
from ablate.config.study_spec import StudySpec
from ablate.errors import BadInput
from ablate.runs import claim, locks
from ablate.runs.claim import claimed, reclaimed
from ablate.runs.locks import hold, owner
from ablate.runs.run import create_run
from ablate.runs.writer import Writer

STUDY = StudySpec(question="?", space="layers_bits")
TWO = Path(__file__).parents[2] / "benchmarks" / "two_at_once.py"


class Noon(datetime):
    @classmethod
    def now(cls, zone=None):
        return cls(2026, 11, 28, 12)


def test_studies_of_one_second_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(claim, "datetime", Noon)
    (tmp_path / "runs" / "20261128-120000-bits-2").mkdir(parents=True)  # of whomever
    with claimed(None, "bits") as first, claimed(None, "bits") as second:
        assert [path.name for path in (first, second)] == ["20261128-120000-bits", "20261128-120000-bits-3"]
        assert first.parent == tmp_path / "runs"


def test_a_long_name_is_cut_in_that_of_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(claim, "datetime", Noon)
    with claimed(None, "ü" * 200) as path:  # 400 bytes
        assert path.name == "20261128-120000-" + "ü" * 50


@pytest.mark.parametrize("exists", [False, True])
def test_a_folder_is_claimed_once(exists, tmp_path):
    path = tmp_path / "some" / "run"
    if exists:
        path.mkdir(parents=True)
    begun = f"--out must be a new or an empty folder, but another study, process {os.getpid()}, has begun in "
    with claimed(path, ""), pytest.raises(BadInput, match=begun), claimed(path, ""):
        pass
    with claimed(path, ""):  # as after a kill: an empty ledger, and no lock
        create_run(path, STUDY, {})
    with pytest.raises(BadInput, match="holds another run; give another"), claimed(path, ""):
        pass


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("error", [BadInput("no"), KeyboardInterrupt()])
def test_a_study_that_does_not_begin_leaves_what_there_was(exists, error, tmp_path):
    path = tmp_path / "some" / "run"
    if exists:
        path.mkdir(parents=True)
    with pytest.raises(type(error)), claimed(path, ""):
        (path / "predictions").mkdir()
        create_run(path, STUDY, {})
        raise error
    assert list(tmp_path.rglob("*")) == ([path.parent, path] if exists else [])
    with pytest.raises(type(error)), claimed(path, ""):
        (path / "log.txt").touch()  # somebody else's
        raise error
    assert [file.name for file in path.iterdir()] == ["log.txt"]


def test_who_makes_a_folder_has_it(tmp_path, monkeypatch):
    """Another study makes it meanwhile, and leaves later: nothing is left over."""
    path, other, real = tmp_path / "some" / "run", ExitStack(), claim._hold

    def late(folder):
        monkeypatch.setattr(claim, "_hold", real)
        other.enter_context(claimed(path, ""))
        return real(folder)

    monkeypatch.setattr(claim, "_hold", late)
    with pytest.raises(BadInput, match="no"), other:
        with pytest.raises(BadInput, match="another study, process"), claimed(path, ""):
            pass
        assert [*tmp_path.rglob("*")] == [path.parent, path, path / ".lock"]
        raise BadInput("no")
    assert not [*tmp_path.iterdir()]


def test_a_study_that_began_stays(tmp_path):
    with pytest.raises(RuntimeError), claimed(tmp_path / "run", "") as path:
        create_run(path, STUDY, {}).write_state({"counts": {}})
        raise RuntimeError
    assert {file.name for file in path.iterdir()} == {
        ".lock",
        "ledger.jsonl",
        "provenance.json",
        "state.json",
        "study.toml",
    }


@pytest.mark.parametrize("kind", ["file", "dangling link", "below a file", "below a dangling link"])
def test_what_can_be_no_folder(kind, tmp_path):
    if "link" in kind:
        (tmp_path / "it").symlink_to("nowhere")
    else:
        (tmp_path / "it").touch()
    path = tmp_path / "it" / "run" if "below" in kind else tmp_path / "it"
    with pytest.raises(BadInput, match="--out must be"), claimed(path, ""):
        pass
    assert [file.name for file in tmp_path.iterdir()] == ["it"]


def test_a_path_that_leads_out_of_what_is_made_is_refused(tmp_path):
    """missing/.. is no folder to the system either, and what it would lead to may be another run's."""
    run = create_run(tmp_path / "old", STUDY, {})
    (run.path / "weights").mkdir()
    kept = sorted(tmp_path.rglob("*"))
    for out in (
        tmp_path / "missing" / ".." / "old",
        tmp_path / "missing" / "..",
        tmp_path / "missing" / ".." / "new",
    ):
        with pytest.raises(BadInput, match=r"--out must be .*; give another"), claimed(out, ""):
            raise BadInput("nothing begins")
    assert sorted(tmp_path.rglob("*")) == kept


def test_the_owner_of_a_run_is_who_has_its_lock(tmp_path):
    """And not who wrote the state: a process that is gone by now."""
    run = create_run(tmp_path, STUDY, {})
    gone = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    )
    state = {
        "counts": {},
        "pid": int(gone.stdout),
        "host": os.uname().nodename,
        "status": "running",
        "heartbeat": 0,
    }
    run.write_state(state)
    assert not run.alive and owner(tmp_path) is None
    with reclaimed(run):
        assert run.alive and owner(tmp_path) == ("driver", os.getpid())
        with pytest.raises(BadInput, match=f"is driven by process {os.getpid()}; wait"), reclaimed(run):
            pass
        run.write_state(state | {"pid": os.getpid()})
        with (
            pytest.raises(BadInput, match=f"is driven by process {os.getpid()} on {os.uname().nodename}"),
            reclaimed(run),
        ):
            pass
    assert not run.alive


def test_a_reader_is_never_in_the_way(tmp_path):
    run, over = create_run(tmp_path, STUDY, {}), False

    def look():
        while not over:
            assert run.alive in (True, False)

    readers = [Thread(target=look) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for _ in range(300):
            with reclaimed(run):
                pass
    finally:
        over = True
        for reader in readers:
            reader.join()


def test_a_killed_driver_lets_go_and_its_writer_is_waited_for(tmp_path, monkeypatch):
    run = create_run(tmp_path, STUDY, {})
    writer = hold(tmp_path, "writer")  # lives on for a moment
    assert run.alive
    monkeypatch.setattr(claim, "PATIENCE_SECONDS", 0)
    with (
        pytest.raises(BadInput, match=f"process {os.getpid()}, the writer of a driver that ended, goes on"),
        reclaimed(run),
    ):
        pass
    monkeypatch.setattr(claim, "PATIENCE_SECONDS", 60)
    Timer(0.1, writer.close).start()
    with reclaimed(run):
        assert owner(tmp_path, "writer") is None


@pytest.mark.long
def test_two_at_once(tmp_path):
    """Bare processes in short; its full result is benchmarks/results/two-at-once-*.json."""
    short = ["--rounds", "36", "--repeats", "0", "--out", str(tmp_path / "result.json")]
    done = subprocess.run([sys.executable, TWO, *short], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "result.json").read_text())["bare"]
    assert sum(counts["rounds"] for counts in result.values() if isinstance(counts, dict)) == 36
    assert not any(counts["faults"] for counts in result.values() if isinstance(counts, dict)), done.stderr


def test_the_status_of_a_run_that_has_just_begun(tmp_path, capsys):
    with claimed(path := tmp_path / "run", ""):
        run = create_run(path, STUDY, {})
        assert run.alive and not run.state  # its driver has written no heartbeat yet
        outcome(run, as_json=False)
    assert "This run has just begun" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_commands_at_once(tmp_path):
    once = [
        sys.executable,
        TWO,
        "--repeats",
        "1",
        "--out",
        str(tmp_path / "result.json"),
    ]  # the benchmark does it three times
    done = subprocess.run(once, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    for part in ("bare", "commands"):
        assert not any(counts["faults"] for counts in result[part].values() if isinstance(counts, dict)), (
            done.stderr
        )


@pytest.mark.long
def test_locks_where_open_files_have_none(tmp_path, monkeypatch):
    """As on macOS: a reader tries the lock for a moment, which refuses no driver."""
    monkeypatch.setattr(locks, "OPEN_FILE_LOCKS", False)
    for role in ("driver", "writer"):
        with hold(tmp_path, role):
            (tmp_path / "state.json").write_text('{"pid": 7}')
            assert hold(tmp_path, role) is None
            assert owner(tmp_path, role) == (role, 7)
        assert owner(tmp_path, role) is None
        with (tmp_path / locks._file(tmp_path, role).name).open("rb") as reader:
            fcntl.flock(reader, fcntl.LOCK_SH)
            Timer(0.1, fcntl.flock, (reader, fcntl.LOCK_UN)).start()
            with hold(tmp_path, role) as held:
                assert held is not None


@pytest.mark.parametrize("skew", [-3600, -90, 120, 7200], ids="{} s".format)
@pytest.mark.parametrize("alive", [True, False])
def test_the_clock_of_another_host_may_be_another(tmp_path, monkeypatch, skew, alive):
    """Its heartbeat goes on, or does not, whatever time it says."""
    run = create_run(tmp_path, STUDY, {})
    first = time.time() + skew
    beats = iter([first, first + alive])
    state = {"counts": {}, "pid": 1, "host": "elsewhere", "status": "running"}

    def beat(seconds=0.0):
        run.write_state(state | {"heartbeat": next(beats)})

    beat()
    monkeypatch.setattr("ablate.runs.run.time", SimpleNamespace(time=time.time, sleep=beat))
    assert run.alive is alive


def test_a_folder_that_is_not_in_utf8_is_refused(tmp_path):
    with pytest.raises(BadInput, match="must be a path in UTF-8"), claimed(f"{tmp_path}/a\udcff", ""):
        pass
    assert not [*tmp_path.iterdir()]


def test_a_writer_gives_up_the_run_before_its_process_ends(tmp_path):
    run = create_run(tmp_path / "run", STUDY, {})
    first = Writer(run.path)
    assert owner(run.path, "writer").pid == os.getpid() and run.alive
    first.close()
    assert owner(run.path, "writer") is None and not run.alive
    first.write(
        {"trial_id": "0000"}, {}, {}
    )  # of a worker that was given up for dead: it has no lock any more
    second = Writer(run.path)
    assert not second.has("0000")
    second.close()
