"""Tiny studies, whole, through real Ray and Optuna."""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import optuna
import pandas as pd
import psutil
import pytest
import ray
from commands import run_ablate
from conftest import wait, workers

from ablate import load_run, run_study
from ablate.cli import study_commands
from ablate.cli.live_view import time_left
from ablate.cli.options import RayOptions
from ablate.cli.status import dry_run
from ablate.config.study_spec import StudySpec, load_study
from ablate.config.trial_spec import Recipe
from ablate.data import datasets
from ablate.engine.drive import say_if_slow
from ablate.engine.estimate import _views, estimate
from ablate.engine.plan import plan
from ablate.engine.resume import resume_study
from ablate.errors import AblateError, BadInput, Interrupted
from ablate.execution import ray_cluster
from ablate.execution.ray_cluster import Resources
from ablate.formatting import format_duration

WALL = ("train_seconds", "started_at")


def bare(records):
    return [
        {key: value for key, value in record.items() if key not in WALL}
        for record in records.to_dict("records")
    ]


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
        ".lock",
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
    assert (
        provenance["versions"]["ray"] == ray.__version__
        and provenance["dataset_sha256"] == datasets.load("cifar10-mini").digest
    )


@pytest.mark.long
def test_status_and_rerun(finished):
    path, _ = finished
    first = load_run(path).records.iloc[0]
    for arguments in (
        ["status", str(path)],
        ["status", str(path), "--json"],
        ["rerun", str(path), "--trial", first["trial_id"]],
    ):
        done = run_ablate(".", *arguments)
        assert done.returncode == 0, done.stderr
        if "--json" in arguments:
            assert json.loads(done.stdout)["trials"] == {"complete": 4, "failed": 0, "pruned": 0}
        if "rerun" in arguments:
            assert done.stdout.count("True") == 13 and "False" not in done.stdout


def test_a_run_as_an_optuna_study(finished, tmp_path):
    run, storage = load_run(finished[0]), f"sqlite:///{tmp_path}/studies.db"
    run.to_optuna(storage)
    study = optuna.load_study(study_name="run", storage=storage)
    records = run.records.to_dict("records")
    assert study.metric_names == ["accuracy", "size_bytes", "bitops"] and len(study.trials) == len(records)
    assert [trial.values for trial in study.trials] == [
        [r["accuracy"], r["size_bytes"], r["bitops"]] for r in records
    ]
    assert {trial.user_attrs["trial_id"] for trial in study.best_trials} <= set(run.records["trial_id"])
    assert len({str(trial.params) for trial in study.trials}) == len(records)
    with pytest.raises(BadInput, match="without a study 'run'"):
        run.to_optuna(storage)


@pytest.mark.slow
def test_the_same_study_again_leaves_the_same_ledger(finished, tmp_path):
    path, _ = finished
    study = load_study(str(path / "study.toml"))  # as resolved: it asks the same question
    again = run_study(study, tmp_path / "again", resources=Resources(concurrency=1))
    assert bare(again.records) == bare(load_run(path).records)
    with pytest.raises(BadInput, match="holds another run"):
        run_study(study, tmp_path / "again")


@pytest.mark.slow
def test_an_exhausted_space_ends_and_says_so(tiny_study, tmp_path):
    study = with_options(tiny_study, tmp_path)
    space = study.space.model_copy(update={"layer": {"weights": ("full", "binary")}, "fraction": 0.02})
    run = run_study(study.model_copy(update={"space": space, "trials": 50}), tmp_path / "run")
    assert len(run.records) == 2 and run.state["status"] == "exhausted"


@pytest.mark.long
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
    assert list(records["status"]) == ["failed"] * 2 and all(
        "NonFinite" in error for error in records["error"]
    )


def test_what_a_library_in_c_prints_stays_out_of_the_json():
    """As HiGHS does, whose lines wait in a buffer of C's until the end."""
    puts = "import ctypes; from ablate.cli.console import c_stdout_to_stderr; c = ctypes.CDLL(None)\n"
    puts += "c.puts(b'before')\n"
    puts += "with c_stdout_to_stderr(): c.puts(b'within')\nprint('{}', flush=True)"
    done = subprocess.run([sys.executable, "-c", puts], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["before", "{}"] and "within" in done.stderr


def test_bf16_that_this_cpu_has_no_instructions_for_is_told(monkeypatch, logged):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for capabilities, bf16, address, told in (
        ({"avx2": True}, True, None, True),
        ({"avx2": True}, False, None, False),
        ({"avx2": True, "avx512_bf16": True}, True, None, False),
        ({"avx2": True}, True, "10.0.0.1:6379", False),  # trained elsewhere
    ):
        monkeypatch.setattr("torch.cpu.get_capabilities", lambda found=capabilities: found)
        say_if_slow(
            StudySpec(question="?", space="layers_bits", recipe={"bf16": bf16}), Resources(address=address)
        )
        assert ("no bfloat16 instructions" in logged()) == told


@pytest.mark.slow
def test_a_relative_model_two_at_once_and_every_weight_of_the_front(
    tiny_study, tiny_vit, tmp_path, monkeypatch
):
    monkeypatch.chdir(tiny_vit.parent)
    study = tmp_path / "tiny.toml"
    study.write_text(tiny_study.replace(str(tiny_vit), "tiny-vit"))
    run = run_study(str(study), tmp_path / "run", resources=Resources(concurrency=2))
    assert list(run.records["status"]) == ["complete"] * 4
    front = set(pd.read_csv(run.path / "tables" / "front.csv")["trial_id"])
    assert {folder.name for folder in (run.path / "weights").iterdir()} == front


def start(tmp_path, tiny_study, *options, trials=6):
    """A study in a process of its own, once its first trial is recorded."""
    (tmp_path / "tiny.toml").write_text(tiny_study.replace("trials = 4", f"trials = {trials}"))
    command = [
        sys.executable,
        "-m",
        "ablate",
        "study",
        "tiny.toml",
        "--concurrency",
        "1",
        "--out",
        "run",
        *options,
    ]
    driver = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    ledger = tmp_path / "run" / "ledger.jsonl"
    wait(lambda: ledger.exists() and ledger.read_bytes().count(b"\n") >= 1)
    return driver


def killed(driver):
    """Whether a trial's process below a driver was found, and killed: between two trials there is none."""
    for process in workers(driver.pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
            return True
    return False


@pytest.mark.long
def test_a_killed_driver_loses_nothing_and_the_resumed_study_is_the_undisturbed_one(tiny_study, tmp_path):
    driver = start(tmp_path, tiny_study)
    with pytest.raises(BadInput, match=f"is driven by process {driver.pid} on "):
        resume_study(tmp_path / "run")
    driver.kill()
    driver.communicate()
    with (tmp_path / "run" / "ledger.jsonl").open("ab") as file:
        file.write(b'{"schema":1,"trial')  # what a power cut leaves
    wait(lambda: not load_run(tmp_path / "run").alive)
    resumed, torn = resume_study(tmp_path / "run", resources=Resources(concurrency=1))
    assert torn == 18 and list(resumed.records["status"]) == ["complete"] * 6
    assert resumed.records["trial_id"].is_unique
    undisturbed = run_study(
        str(tmp_path / "tiny.toml"), tmp_path / "undisturbed", resources=Resources(concurrency=1)
    )
    assert bare(resumed.records) == bare(undisturbed.records)
    before = resumed.state["spent"]
    extended, _ = resume_study(tmp_path / "run", trials=8, resources=Resources(concurrency=1))
    assert len(extended.records) == 8 and bare(extended.records)[:6] == bare(undisturbed.records)
    assert (spent := extended.state["spent"]) > before and time_left(
        extended.state
    ) == f"{format_duration(spent)} in all"  # by all drivers
    known = json.loads((tmp_path / "run" / "provenance.json").read_text())
    assert [each["versions"] for each in known["resumed"]] == [known["versions"]] * 2 and known[
        "dataset_sha256"
    ]
    with pytest.raises(BadInput, match="at least the 8 trials that are recorded, but got 3"):
        resume_study(tmp_path / "run", trials=3)


@pytest.mark.slow
def test_a_run_goes_on_with_the_data_and_the_model_that_it_began_with(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    known = json.loads((tmp_path / "run" / "provenance.json").read_text())
    ledger = (tmp_path / "run" / "ledger.jsonl").read_bytes()
    for what in ("dataset", "model"):
        (tmp_path / "run" / "provenance.json").write_text(json.dumps(known | {f"{what}_sha256": "0" * 64}))
        with pytest.raises(
            BadInput, match=f"must go on with the {what} that it began with, .* put back what was there"
        ):
            resume_study(tmp_path / "run", trials=5)
    assert (tmp_path / "run" / "ledger.jsonl").read_bytes() == ledger


@pytest.mark.long
def test_a_dry_run_says_when_a_trial_would_be_ended(tiny_study, tmp_path, capsys):
    (tmp_path / "tiny.toml").write_text(tiny_study)
    asked = load_study(str(tmp_path / "tiny.toml"))
    short = {"minutes_per_trial": 1e-9}
    for limits, told in ((short, True), ({}, False), (short | {"gpus_per_trial": 1}, False)):
        dry_run(asked, False, Resources(**limits))
        out = capsys.readouterr().out
        assert ("is ended after" in out) == told and "Images: 32 x 32 pixels\n" in out


@pytest.mark.slow
def test_the_longest_trial_has_its_own_checkpoint_alone(tiny_study, tmp_path):
    (tmp_path / "tiny.toml").write_text(tiny_study.replace("trials = 4\n", ""))
    recipe, views = Recipe(epochs=1, full_epochs=2, bf16=False), []
    for seeds in (1, 3):
        changes = {"design": ("sensitivity",), "recipe": recipe, "seeds": seeds}
        found = estimate(plan(load_study(str(tmp_path / "tiny.toml")).model_copy(update=changes)))
        views.append(found["minutes_of_longest_trial"] * 60 * found["images_per_second_of_a_cpu"])
    assert views[0] == pytest.approx(views[1], rel=0.05)  # the rate is told to two digits


@pytest.mark.long
def test_a_trial_whose_worker_died_runs_again(tiny_study, tmp_path):
    driver = start(tmp_path, tiny_study)
    wait(lambda: killed(driver))
    driver.communicate()
    assert driver.returncode == 0
    records = load_run(tmp_path / "run").records
    assert list(records["status"]) == ["complete"] * 6 and records["trial_id"].is_unique


@pytest.mark.long
def test_ctrl_c_ends_with_130_and_says_how_to_go_on(tiny_study, tmp_path):
    driver = start(tmp_path, tiny_study, trials=50)
    driver.send_signal(signal.SIGINT)
    _, error = driver.communicate()
    assert driver.returncode == 130
    assert "ablate resume" in error and str(tmp_path / "run") in error and "Traceback" not in error
    run = load_run(tmp_path / "run")
    assert run.state["status"] == "interrupted" and not run.alive
    assert 1 <= len(run.records) < 50 and set(run.records["status"]) == {"complete"}


def test_a_ctrl_c_while_the_last_tables_are_written_says_how_to_go_on(finished):
    def start(**how):
        try:
            raise Interrupted("go on with `ablate resume`", finished[0])
        finally:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted, match="ablate resume"):
        study_commands._run(start, RayOptions(), 0.5, None, True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signals", "long"), [([signal.SIGTERM], False), ([signal.SIGINT], True), ([signal.SIGINT] * 2, True)]
)
def test_sigterm_and_ctrl_c(signals, long, tiny_study, tmp_path):
    """In an epoch of minutes, the first is answered at once and waits 10 s, and the second not even that."""
    text = tiny_study.replace("trials = 4", "trials = 500")
    if long:
        text = text.replace("epochs = 1", "epochs = 1\nbatch_size = 1").replace("[0.02, 0.04]", "1.0")
    (tmp_path / "tiny.toml").write_text(text)
    options = ["--concurrency", "1", "--out", "run"]
    command = [sys.executable, "-m", "ablate", "study", "tiny.toml", *options]
    driver = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    wait(
        lambda: (tmp_path / "run" / "study.toml").exists() and load_run(tmp_path / "run").state.get("running")
    )
    if long:
        wait(lambda: any(trial.get("now") for trial in load_run(tmp_path / "run").state["running"]))
        [trial] = load_run(tmp_path / "run").state["running"]
        assert 0 < trial["now"]["images"] < trial["now"]["images_in_all"] == 4000
        assert trial["now"]["images_per_second"] > 0 and trial["now"]["seconds_left"] > 0
    driver.send_signal(signals[0])
    said, began = (
        next(line for line in iter(driver.stderr.readline, "") if "waiting" in line),
        time.monotonic(),
    )
    assert said.startswith("ablate: waiting at most 10 s for the current epochs of ") or not long
    assert ("images/s" in said and "each will go on from the start" in said) or not long
    if len(signals) == 2:
        assert driver.poll() is None
        driver.send_signal(signals[1])
    _, error = driver.communicate(timeout=120)
    assert long != (time.monotonic() - began < 10) or signals != [signal.SIGINT]
    assert driver.returncode == 130 and "ablate resume" in error and "Traceback" not in error
    assert load_run(tmp_path / "run").state["status"] == "interrupted"


@pytest.mark.slow
def test_a_run_that_ended_by_the_clock_gets_more_hours(tiny_study, tmp_path, monkeypatch):
    """Whatever letters its folder has, and however deep the folder of temporary files is."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / ("deep" * 10)))
    (tmp_path / ("deep" * 10)).mkdir()
    study, folder = (
        with_options(tiny_study, tmp_path).model_copy(update={"hours": 1e-9}),
        tmp_path / "größe [b] 猫",
    )
    ended = run_study(study, folder, resources=Resources(concurrency=1))
    assert len(ended.records) == 0 and ended.state["status"] == "finished"
    with pytest.raises(BadInput, match="hours: Input should be greater than 0, but got -1"):
        resume_study(folder, hours=-1)
    with pytest.raises(
        BadInput, match=r"--hours must be above the .* that the run has spent, but got 1e-09; give more"
    ):
        resume_study(folder)
    resumed, _ = resume_study(folder, hours=1, resources=Resources(concurrency=1))
    assert len(resumed.records) == study.trials and resumed.study.hours == 1


def test_image_views_are_steps_of_batches_that_an_epoch_may_cut_short(tiny_study, tmp_path):
    """Of 80 images, in batches of 64 and 16, 100 views are two steps."""
    text = tiny_study.replace("epochs = 1", "image_views = 100").replace(
        "fraction = [0.02, 0.04]", "fraction = 0.02"
    )
    [one, checkpoint] = _views(plan(with_options(text, tmp_path, trials=1)))
    assert one == 80 + 1000 / 3 and checkpoint == 0  # an evaluated image counts as a third


@pytest.mark.slow
def test_a_hung_trial_is_ended_and_recorded(tiny_study, tmp_path):
    run = run_study(
        with_options(tiny_study, tmp_path, trials=1),
        tmp_path / "run",
        resources=Resources(minutes_per_trial=1e-3),
    )
    assert list(run.records["status"]) == ["failed"]
    assert run.records["error"][0] == "the trial took more than 0.001 minutes and was ended"


def with_options(tiny_study, tmp_path, **fields):
    (tmp_path / "tiny.toml").write_text(tiny_study)
    return load_study(str(tmp_path / "tiny.toml")).model_copy(update=fields)


def test_a_ray_that_does_not_start_is_told_in_a_line_and_leaves_no_folder(tiny_study, tmp_path, monkeypatch):
    def late(**options):
        raise Exception("The current node timed out during startup.\nIts log: ...")  # as Ray does

    monkeypatch.setattr(ray, "init", late)
    with (
        pytest.raises(AblateError, match="Ray did not start on this machine") as told,
        ray_cluster.connected(Resources()),
    ):
        pass
    assert str(told.value).endswith(": The current node timed out during startup.")
    study = with_options(tiny_study, tmp_path)
    with pytest.raises(AblateError, match="Ray did not start on this machine"):
        run_study(study, tmp_path / "runs" / "run")
    assert [file.name for file in tmp_path.iterdir()] == ["tiny.toml"]
    assert not isinstance(told.value, BadInput)  # exit 1: the user gave nothing wrong
    with (
        pytest.raises(BadInput, match="--address must be that of a Ray cluster"),
        ray_cluster.connected(Resources(address="h:1")),
    ):
        pass
