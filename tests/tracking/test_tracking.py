"""Trackers have what the ledger has, each trial once, after a kill and a resume; they never stop a study."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest
from commands import run_ablate
from conftest import wait
from tracker_clients import in_mlflow, in_tensorboard, in_wandb, mlflow_server

from ablate import load_run
from ablate.errors import BadInput
from ablate.labels import without_secrets
from ablate.tracking.destination import destination

trackers = pytest.mark.skipif(
    not all(map(find_spec, ("mlflow", "tensorboard", "wandb"))), reason="the extra track is not installed"
)
RUN = Path(__file__).parents[2] / "results" / "layers_bits"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as uri:
        yield uri


def expected(run):
    """Each trial of a run's ledger: its id, its curve and its accuracy."""
    records = load_run(run).records.to_dict("records")
    rows = ((each, [(row["epoch"], row["accuracy"]) for row in each["curve"]]) for each in records)
    return sorted((each["trial_id"], curve, each["accuracy"]) for each, curve in rows)


def rounded(trials):
    """Trials with numbers as in float32, which TensorBoard has."""
    return [
        (
            name,
            [(step, pytest.approx(value, rel=1e-6)) for step, value in curve],
            pytest.approx(last, rel=1e-6),
        )
        for name, curve, last in trials
    ]


@trackers
@pytest.mark.long
def test_a_tracker_gets_what_it_lacks_and_nothing_twice(server, tmp_path, monkeypatch):
    from mlflow import MlflowClient

    monkeypatch.setenv("WANDB_MODE", "offline")
    lines = (RUN / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    run = tmp_path / "run"
    for name in ("study.toml", "provenance.json", "tables/front.csv", "figures/pareto.png"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(RUN / Path(name).name, run / name)

    def track(n, torn=b""):
        (run / "ledger.jsonl").write_bytes(b"".join(lines[:n]) + torn)
        for place in (f"mlflow:{server}", "tensorboard:events", "wandb"):
            done = run_ablate(tmp_path, "track", "run", "--to", place)
            assert done.returncode == 0, done.stderr
            yield int(done.stdout.split(" ")[0])

    assert [*track(3, torn=lines[3][:99])] == [3, 3, 3]
    # What a process leaves that is killed while it sends the next trial.
    client = MlflowClient(server)
    experiment = client.get_experiment_by_name("ablate").experiment_id
    [parent] = client.search_runs([experiment], "attributes.run_name = 'run'")
    tags = {
        "ablate.run": parent.data.tags["ablate.run"],
        "ablate.trial": json.loads(lines[3])["trial_id"],
        "mlflow.parentRunId": parent.info.run_id,
    }
    client.create_run(experiment, tags=tags)
    shutil.copytree(
        next((run / "wandb").glob("offline-run-*")), run / "wandb" / ".draft-x" / "wandb" / "offline-run-1-x"
    )
    moved = run.rename(tmp_path / "elsewhere")  # a run is known by more than the name of its folder
    run = moved.rename(run)
    assert [*track(5)] == [2, 2, 2]
    assert [*track(5)] == [0, 0, 0]

    trials = expected(run)
    assert len(trials) == 5 and any(curve for _, curve, _ in trials)
    found, parents, files = in_mlflow(server)
    assert found == [(*trial, "FINISHED") for trial in trials] and len(parents) == 1
    assert {"study.toml", "figures/pareto.png", "tables/front.csv"} <= {*files}
    [events] = (tmp_path / "events").iterdir()
    found, pictures, texts = in_tensorboard(events)
    assert (
        found == rounded(trials) and pictures == ["figures/pareto"] and "tables/front/text_summary" in texts
    )
    found, keys = in_wandb(run / "wandb")
    assert found == trials and {"figures/pareto", "tables/front"} <= {
        key.rpartition(".")[0] or key for key in keys
    }


@trackers
@pytest.mark.slow
def test_a_killed_study_goes_on_in_its_trackers(server, tiny_study, tmp_path):
    endless = tiny_study.replace("epochs = 1", "epochs = 2").replace("trials = 4", "trials = 400")
    (tmp_path / "tiny.toml").write_text(endless)
    environment = {**os.environ, "WANDB_MODE": "offline"}
    address = server.removeprefix("http://")
    places = [
        f"mlflow:http://bob:hunter2@{address}",
        "mlflow:http://bob:hunter2@127.0.0.1:9",
        "tensorboard",
        "wandb",
    ]
    words = [word for place in places for word in ("--track", place)]

    def ablate(*arguments):
        command = [sys.executable, "-m", "ablate", *arguments, "--concurrency", "1", *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=tmp_path, env=environment, **pipes)

    run = tmp_path / "run"
    killed = ablate("study", "tiny.toml", "--out", "run")
    folders = run / "tensorboard"
    wait(lambda: folders.exists() and any(folders.iterdir()), 600)
    killed.kill()
    killed.communicate()
    wait(lambda: not load_run(run).alive)
    n_before = len(load_run(run).records)
    assert 1 <= n_before < 398
    resumed = ablate("resume", "run", "--trials", str(n_before + 2))
    _, error = resumed.communicate()
    assert resumed.returncode == 0, error

    trials = expected(run)
    assert len(trials) == n_before + 2 and all(len(curve) == 2 for _, curve, _ in trials)
    found, parents, files = in_mlflow(server)
    parents = [parent for parent in parents if parent.data.params == {}]
    ours = [trial for trial in found if trial[0] in {name for name, _, _ in trials}]
    assert ours == [(*trial, "FINISHED") for trial in trials]
    assert "figures/pareto.png" in files
    assert in_tensorboard(folders)[0] == rounded(trials)
    assert in_wandb(run / "wandb")[0] == trials
    complaints = [line for line in error.splitlines() if "Tracking to" in line]
    assert len(complaints) == 1 and "127.0.0.1:9" in complaints[0], error
    assert "hunter2" not in error
    for file in run.rglob("*"):
        with suppress(OSError):
            assert b"hunter2" not in file.read_bytes(), file


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("mlfow", "did you mean 'mlflow'"),
        ("mlflow:", "leave the colon out"),
        ("mlflow:localhost:5000", "write mlflow:http://HOST:PORT"),
        ("mlflow:./mlruns", "of a server or of a database"),
        ("mlflow:ftp://host", "did you mean 'http'"),
        ("mlflow:http://host:99999", "a port from 1 to 65535"),
        ("mlflow:http://me:hunter2/x@host", "/ is %2F"),
        ("tensorboard:http://host", "must be a folder"),
        ("wandb:a/b/c", "ENTITY/PROJECT"),
    ],
)
def test_a_wrong_place_is_refused(text, rule):
    with pytest.raises(BadInput, match=rule) as error:
        destination(text)
    assert "hunter2" not in str(error.value)


def test_a_wrong_place_is_refused_before_anything_runs(tmp_path):
    done = run_ablate(tmp_path, "study", "--track", "mlfow")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and not [*tmp_path.iterdir()]


def test_a_missing_package_is_named_with_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setattr("ablate.tracking.destination.find_spec", lambda name: None)
    for words in (("study", "--out", "run", "--track"), ("track", str(RUN), "--to")):
        done = run_ablate(tmp_path, *words, "mlflow")
        assert done.returncode == 2 and "pip install mlflow-skinny" in done.stderr
    assert not [*tmp_path.iterdir()]


def test_secrets_of_a_uri_are_left_out():
    where = destination("mlflow:postgresql://me:p%40ss@host/db?sslkey=k3y")
    assert str(where) == "mlflow:postgresql://***@host/db?***" and "p%40ss" not in repr(where)
    assert where.redacted("no p@ss, me:p%40ss nor k3y") == "no ***, *** nor ***"
    command = "--track=mlflow:https://me:hunter2@host/x?token=abc --data imagefolder:pets?size=64"
    assert without_secrets(command) == "--track=mlflow:https://***@host/x?*** --data imagefolder:pets?size=64"
