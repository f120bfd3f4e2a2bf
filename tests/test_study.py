"""Tiny studies, whole, through real Ray and Optuna."""

import json
import os
import subprocess
import sys

import numpy as np
import psutil
import pytest
import ray

from ablate import cluster, data, load_run, run_study
from ablate.cluster import Resources
from ablate.errors import BadInput
from ablate.spec import LayerSpec, Recipe, TrialSpec, load_study

WALL = ("train_seconds", "started_at")


def bare(records):
    return [{key: value for key, value in record.items() if key not in WALL} for record in records.to_dict("records")]


@pytest.fixture(scope="module")
def finished(tiny_study, tmp_path_factory):
    """One run of a tiny study by the command line, in an empty working directory."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "tiny.toml").write_text(tiny_study)
    command = [sys.executable, "-m", "ablate", "study", "tiny.toml", "--concurrency", "1", "--out", "run"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"})
    assert done.returncode == 0, done.stderr
    return folder / "run", done.stdout


def test_a_study_ends_with_a_front(finished):
    path, out = finished
    run = load_run(path)
    assert list(run.records["status"]) == ["complete"] * 4
    assert run.state["status"] == "finished" and run.state["running"] == []
    assert "Pareto front: " in out and "figures/pareto.png" in out
    assert out.count("accuracy") >= 4  # a line a trial on a pipe
    assert list(run.records["arm"][:3]) == ["full", "binary", "ternary"]
    sizes = run.records.set_index("arm")["size_bytes"]
    assert sizes["full"] > sizes["ternary"].max() > sizes["binary"].min()


def test_the_folder_is_as_designed(finished):
    path, _ = finished
    names = {file.name for file in path.iterdir()}
    assert names == {
        "study.toml",
        "ledger.jsonl",
        "state.json",
        "provenance.json",
        "predictions",
        "weights",
        "figures",
        "tables",
    }
    run = load_run(path)
    front = {row.split(",")[1] for row in (path / "tables" / "front.csv").read_text().splitlines()[1:]}
    assert {folder.name for folder in (path / "weights").iterdir()} == front
    for _, record in run.records.iterrows():
        stored = np.load(path / "predictions" / f"{record['trial_id']}.npz")
        accuracy = (stored["validation_logits"].argmax(1) == stored["validation_labels"]).mean()
        assert accuracy == pytest.approx(record["accuracy"])
    for name in front:
        written = sum(file.stat().st_size for file in (path / "weights" / name).iterdir())
        assert written == run.records.set_index("trial_id").loc[name, "size_bytes"]
    provenance = json.loads((path / "provenance.json").read_text())
    assert provenance["versions"]["ray"] == ray.__version__ and provenance["dataset_sha256"] == data.load("cifar10-mini").digest


def test_status_and_rerun(finished):
    path, _ = finished
    first = load_run(path).records.iloc[0]
    for arguments in (
        ["status", str(path)],
        ["status", str(path), "--json"],
        ["rerun", str(path), "--trial", first["trial_id"]],
    ):
        done = subprocess.run([sys.executable, "-m", "ablate", *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        if "--json" in arguments:
            assert json.loads(done.stdout)["trials"] == {"complete": 4}
        if "rerun" in arguments:
            assert done.stdout.count("True") == 12 and "False" not in done.stdout


def test_the_same_study_again_leaves_the_same_ledger(finished, tmp_path):
    path, _ = finished
    study = load_study(str(path / "study.toml"))  # as resolved: it asks the same question
    again = run_study(study, tmp_path / "again", resources=Resources(concurrency=1))
    assert bare(again.records) == bare(load_run(path).records)
    with pytest.raises(BadInput, match="holds another run"):
        run_study(study, tmp_path / "again")


def test_an_exhausted_space_ends_and_says_so(tiny_study, tmp_path):
    (tmp_path / "tiny.toml").write_text(tiny_study)
    study = load_study(str(tmp_path / "tiny.toml"))
    space = study.space.model_copy(update={"layer": {"weights": ("full", "binary")}, "fraction": 0.02})
    run = run_study(study.model_copy(update={"space": space, "trials": 50}), tmp_path / "run")
    assert len(run.records) == 2 and run.state["status"] == "exhausted"


def test_the_fifth_trial_of_an_actor_equals_the_first(tiny_vit, tmp_path):
    layers = {"block0.fc1": LayerSpec(weights="ternary")}
    recipe = Recipe(epochs=1, bf16=False)
    spec = TrialSpec(model=str(tiny_vit), layers=layers, fraction=0.05, recipe=recipe)
    other = TrialSpec(model=str(tiny_vit), fraction=0.02, recipe=recipe, seed=3)
    records, workers = [], set()

    def watch(running):
        found = psutil.Process().children(recursive=True)
        workers.update(p.pid for p in found if p.status() != "zombie" and "Trainable" in " ".join(p.cmdline()))

    queue = iter([spec, other, other, other, spec])
    cluster.connect(Resources(concurrency=1))
    try:
        cluster.distribute(
            lambda: next(queue, None),
            lambda record: records.append(record) or [],
            watch,
            dataset=data.load("cifar10-mini"),
            path=tmp_path,
            stop=lambda: False,
            concurrency=1,
            resources=Resources(),
        )
    finally:
        cluster.disconnect()
    assert len(records) == 5 and len(workers) == 1
    first, fifth = ({key: value for key, value in record.items() if key not in WALL} for record in (records[0], records[4]))
    assert first == fifth and first["status"] == "complete"


def test_failed_trials_are_recorded_and_too_many_fail_the_command(tiny_study, tmp_path):
    diverging = "bf16 = false\nlearning_rate = 1e30\nclip_norm = 'none'\nwarmup = 0.0\nbatch_size = 16"
    (tmp_path / "tiny.toml").write_text(tiny_study.replace("bf16 = false", diverging))
    command = [
        sys.executable,
        "-m",
        "ablate",
        "study",
        str(tmp_path / "tiny.toml"),
        "--out",
        str(tmp_path / "run"),
        "--trials",
        "2",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "2 of 2 trials failed" in done.stderr and "Traceback" not in done.stderr
    records = load_run(tmp_path / "run").records
    assert list(records["status"]) == ["failed"] * 2 and all("NonFinite" in error for error in records["error"])
