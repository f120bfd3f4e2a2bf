"""What must not be lost: studies that are killed, moved, starved of memory and disk."""

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import psutil
import pytest
from conftest import wait, workers
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from ablate import load_run
from ablate.runs.locks import hold

FAULTS = Path(__file__).parents[2] / "benchmarks" / "faults.py"


def ablate(*arguments, cwd, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "ablate", *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.mark.slow
def test_faults_lose_nothing(tmp_path):
    """The fault injection in short; its full result is benchmarks/results/faults-*.json."""
    short = [
        "--drivers",
        "1",
        "--workers",
        "2",
        "--raylets",
        "2",
        "--trials",
        "6",
        "--out",
        str(tmp_path / "result.json"),
    ]
    done = subprocess.run([sys.executable, FAULTS, *short], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    for part, kills in (("drivers", 1), ("workers", 2), ("raylets", 2)):
        found = result[part]
        assert found["kills"] == kills and found["trials_recorded"] == 6 * found["studies"]
        assert found["lost"] == found["duplicated"] == found["ghosts"] == found["processes_left"] == 0
        assert set(found["statuses"]) == {"finished"}
    assert all(result["drivers"]["same_trials_as_undisturbed"])


@pytest.mark.slow
def test_a_long_trial_goes_on_from_its_last_epoch_in_a_moved_folder(tiny_study, tmp_path):
    study = (
        tiny_study.replace("trials = 4", "trials = 1")
        .replace("epochs = 1", "epochs = 30")
        .replace("[0.02, 0.04]", "0.05")
    )
    (tmp_path / "tiny.toml").write_text(study)
    kept = ("--storage", str(tmp_path / "kept"))
    driver = ablate("study", "tiny.toml", "--out", "run", *kept, cwd=tmp_path)
    wait(lambda: any(row["epoch"] >= 3 for row in load_state(tmp_path / "run").get("running", [])))
    driver.kill()
    killed = time.time()
    driver.communicate()
    wait(lambda: not load_run(tmp_path / "run").alive)
    assert len(list((tmp_path / "kept").iterdir())) == 1
    shutil.move(tmp_path / "run", tmp_path / "elsewhere")
    resumed = ablate("resume", "elsewhere", *kept, cwd=tmp_path)
    _, error = resumed.communicate()
    assert resumed.returncode == 0, error
    whole = ablate("study", "tiny.toml", "--out", "whole", cwd=tmp_path)
    whole.communicate()
    [record], [undisturbed] = (
        load_run(tmp_path / name).records.to_dict("records") for name in ("elsewhere", "whole")
    )
    assert record["curve"] == undisturbed["curve"] and record["trial_id"] == undisturbed["trial_id"]
    assert (
        datetime.fromisoformat(record["started_at"]).timestamp() < killed
    )  # it is the trial that was killed
    assert not list((tmp_path / "kept").iterdir())


def load_state(path):
    return load_run(path).state if (path / "study.toml").exists() else {}


@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system is mounted by root only")
@pytest.mark.slow
def test_a_full_disk_stops_the_study_and_a_cleared_one_goes_on(tiny_study, tmp_path):
    (tmp_path / "tiny.toml").write_text(tiny_study.replace("trials = 4", "trials = 5"))
    (tmp_path / "small").mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "none", tmp_path / "small"], capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"nothing can be mounted here: {mounted.stderr.decode()}")
    try:
        full = ablate("study", "tiny.toml", "--out", "small/run", "--concurrency", "1", cwd=tmp_path)
        _, error = full.communicate()
        assert full.returncode == 1 and "No space left on device" in error and "ablate resume" in error, error
        assert "Traceback" not in error
        before = list(load_run(tmp_path / "small" / "run").records["trial_id"])
        assert 1 <= len(before) < 5
        subprocess.run(["mount", "-o", "remount,size=50m", tmp_path / "small"], check=True)
        again = ablate("resume", "small/run", "--concurrency", "1", cwd=tmp_path)
        _, error = again.communicate()
        assert again.returncode == 0, error
        records = load_run(tmp_path / "small" / "run").records
        assert list(records["status"]) == ["complete"] * 5 and records["trial_id"].is_unique
        assert list(records["trial_id"])[: len(before)] == before
    finally:
        subprocess.run(["umount", tmp_path / "small"], check=True)


def overcommits():
    return Path("/proc/sys/vm/overcommit_memory").read_text().strip() == "1"


@pytest.mark.slow
@pytest.mark.skipif(overcommits(), reason="this kernel grants any amount of memory and kills later")
def test_too_little_memory_is_the_trials_failure_and_the_study_goes_on(tmp_path):
    """Attention over 4,096 tokens for a batch of 2,000 images: 134 GB, on the CPU or on a GPU."""
    config = ViTConfig(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        image_size=128,
        patch_size=2,
    )
    ViTForImageClassification(config).save_pretrained(tmp_path / "wide")
    ViTImageProcessor(size={"height": 128, "width": 128}).save_pretrained(tmp_path / "wide")
    (tmp_path / "memory.toml").write_text("""
question = "does it fit?"
model = "wide"
trials = 2
[recipe]
epochs = 1
batch_size = 2000
bf16 = false
[space]
description = "both fail"
[space.layer]
weights = ["full", "binary"]
""")
    driver = ablate("study", "memory.toml", "--out", "run", "--concurrency", "1", cwd=tmp_path)
    out, error = driver.communicate()
    assert driver.returncode == 1 and "2 of 2 trials failed" in error, error
    records = load_run(tmp_path / "run").records
    assert list(records["status"]) == ["failed"] * 2
    assert all("memory" in reason for reason in records["error"])
    assert out.count("memory") >= 2  # the lines of the live view, and the end


@pytest.mark.slow
def test_a_trial_whose_worker_dies_three_times_has_failed(tiny_study, tmp_path):
    (tmp_path / "tiny.toml").write_text(
        tiny_study.replace("trials = 4", "trials = 1").replace("epochs = 1", "epochs = 1000")
    )
    driver = ablate("study", "tiny.toml", "--out", "run", cwd=tmp_path)
    for attempt in (1, 2, 3):
        wait(
            lambda n=attempt: any(
                row["attempt"] == n for row in load_state(tmp_path / "run").get("running", [])
            )
        )
        for process in workers(driver.pid):
            with suppress(psutil.Error):  # gone already
                process.kill()
    _, error = driver.communicate()
    assert driver.returncode == 1 and "1 of 1 trials failed" in error
    [reason] = load_run(tmp_path / "run").records["error"]
    assert (
        reason.startswith("its worker died 3 times, at last: The actor")
        and "worker process has died" in reason
    )
    shown = subprocess.run(
        [sys.executable, "-m", "ablate", "status", str(tmp_path / "run")], capture_output=True, text=True
    )
    assert "1 failed" in shown.stdout and "its worker died 3 times" in shown.stdout


def test_a_driver_elsewhere_counts_as_alive_by_its_heartbeat(finished, tmp_path):
    """Another host's lock cannot be seen on every file system; its state can."""
    path = shutil.copytree(finished[0], tmp_path / "run")
    state = json.loads((path / "state.json").read_text()) | {"host": "elsewhere", "status": "running"}
    for age, alive in ((5, True), (300, False)):
        (path / "state.json").write_text(json.dumps(state | {"heartbeat": time.time() - age}))
        assert load_run(path).alive is alive
    hold(path, "driver").close()
    (path / "state.json").write_text(json.dumps(state | {"heartbeat": time.time() - 5}))
    resumed = ablate("resume", str(path), cwd=tmp_path)
    _, error = resumed.communicate()
    assert resumed.returncode == 2 and "is driven by process" in error and "on elsewhere" in error


LIMIT = Path("/sys/fs/cgroup/memory.max")  # Ray's monitor goes by a container's, where there is one


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.skipif(psutil.virtual_memory().available < 10 * 2**30, reason="needs 10 GiB of free memory")
@pytest.mark.skipif(
    LIMIT.exists() and LIMIT.read_text().strip() != "max", reason="the memory is a container's"
)
def test_ray_ends_a_trial_that_takes_all_memory_and_it_has_failed(tmp_path):
    """A batch of all images takes some 6 GiB; Ray's memory monitor allows 4 more than what is taken now."""
    memory = psutil.virtual_memory()
    limit = (memory.total - memory.available + 4 * 2**30) / memory.total
    greedy = (
        'question = "?"\ntrials = 1\n[recipe]\nepochs = 1\nbatch_size = 4500\n[space]\ndescription = "one"\n'
    )
    (tmp_path / "greedy.toml").write_text(greedy + '[space.layer]\nweights = "binary"\n')
    environment = {"RAY_memory_usage_threshold": f"{limit:.3f}", "RAY_memory_monitor_refresh_ms": "250"}
    driver = ablate("study", "greedy.toml", "--out", "run", cwd=tmp_path, env={**os.environ, **environment})
    _, error = driver.communicate(timeout=600)
    assert driver.returncode == 1 and "1 of 1 trials failed" in error
    [reason] = load_run(tmp_path / "run").records["error"]
    assert reason.startswith(
        "its worker died 3 times, at last: 1 worker(s) were killed due to the node running low on memory"
    )
