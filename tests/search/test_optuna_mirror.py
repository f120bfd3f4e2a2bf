"""A run as a live study of Optuna: it follows the ledger, and optuna-dashboard shows its front."""

import contextlib
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import chromium
import optuna
import pytest
from commands import run_ablate

from ablate import load_run
from ablate.analysis.pareto import front_of
from ablate.runs.follow import alone
from ablate.runs.provenance_file import identity
from ablate.search.optuna_mirror import mirror

RESULTS = Path(__file__).parents[2] / "results"


def copied(name, folder, lines=None):
    """A copy of a committed run, with the first lines of its ledger."""
    run = folder / name
    run.mkdir()
    for file in ("study.toml", "provenance.json"):
        shutil.copy(RESULTS / name / file, run)
    grow(run, lines)
    return run


def grow(run, lines=None):
    whole = (RESULTS / run.name / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    (run / "ledger.jsonl").write_bytes(b"".join(whole[:lines]))


def study_of(run):
    backend = optuna.storages.journal.JournalFileBackend(str(run / "optuna.journal"))
    return optuna.load_study(study_name=run.name, storage=optuna.storages.JournalStorage(backend))


def values(rows, names):
    return [[row[name] for name in names] for row in rows.to_dict("records")]


def test_a_storage_follows_a_growing_ledger(tmp_path):
    run, storage = copied("layers_bits", tmp_path, 5), str(tmp_path / "layers_bits" / "optuna.journal")
    looks = []

    def wait(seconds):  # between looks more is recorded: half of the last line, then all
        looks.append(len(study_of(run).trials))
        grow(run, 9 if len(looks) == 1 else None)

    mirror(load_run(run), storage, is_over=lambda: len(looks) > 1, wait=wait)
    loaded, study = load_run(run), study_of(run)
    names = list(loaded.study.objectives)
    assert looks[0] < looks[1] < len(study.trials)
    assert [trial.values for trial in study.trials] == values(loaded.candidates, names)
    assert {trial.user_attrs["trial_id"] for trial in study.best_trials} == set(
        front_of(loaded.candidates, loaded.study.directions)["trial_id"]
    )
    weights = [name for name in study.trials[0].params if name.endswith(".weights")]
    kinds = {group: layer["weights"] for group, layer in loaded.candidates.iloc[-1]["spec"]["layers"].items()}
    last = study.trials[-1].params
    assert weights and {name: kinds.get(name.removesuffix(".weights"), "full") for name in weights} == {
        name: last[name] for name in weights
    }
    again = run_ablate(tmp_path, "optuna", "layers_bits")
    assert again.returncode == 0 and f"0 trials were added, of {len(study.trials)}" in again.stdout


@pytest.mark.long
@pytest.mark.parametrize("name", ["ladder", "sensitivity", "recipe_binary"])
def test_a_design_has_the_same_choices_from_its_first_trial_on(name, tmp_path):
    run = copied(name, tmp_path, 3)
    for lines in (3, None):
        grow(run, lines)
        assert run_ablate(tmp_path, "optuna", name).returncode == 0
    study, loaded = study_of(run), load_run(run)
    assert len(study.trials) == len(loaded.candidates)
    choices = {}
    for trial in study.trials:
        for parameter, axis in trial.distributions.items():
            if isinstance(axis, optuna.distributions.CategoricalDistribution):
                assert choices.setdefault(parameter, axis.choices) == axis.choices
    assert any(trial.params for trial in study.trials)


def test_wrong_storages_are_refused(tmp_path):
    run = copied("layers_bits", tmp_path)
    (tmp_path / "other").mkdir()
    other = copied("layers_bits", tmp_path / "other")
    (other / "provenance.json").write_text('{"started_at": "2020"}')
    ledger = (run / "ledger.jsonl").read_bytes()
    assert run_ablate(tmp_path, "optuna", "layers_bits").returncode == 0
    for words, rule in [
        (("layers_bits", "--to", "layers_bits/ledger.jsonl"), "that Optuna can open"),
        (("layers_bits", "--to", "."), "that Optuna can open"),
        (("layers_bits", "--to", "postgres://me:hunter2@127.0.0.1:9/x"), "that Optuna can open"),
        (("other/layers_bits", "--to", "layers_bits/optuna.journal"), "of another run"),
    ]:
        done = run_ablate(tmp_path, "optuna", *words)
        assert done.returncode == 2 and rule in done.stderr and "hunter2" not in done.stdout + done.stderr
    assert (run / "ledger.jsonl").read_bytes() == ledger
    with alone(f"{identity(run)} layers_bits/optuna.journal", "it"):
        done = run_ablate(tmp_path, "optuna", "layers_bits")
    assert done.returncode == 2 and "wait until it ends" in done.stderr


@pytest.mark.long
@pytest.mark.skipif(chromium.NAME is None, reason="Chromium is not installed (Debian: chromium)")
@pytest.mark.skipif(find_spec("optuna_dashboard") is None, reason="optuna-dashboard is not installed")
def test_the_dashboard_shows_the_front(tmp_path):
    run = copied("layers_bits", tmp_path)
    assert run_ablate(tmp_path, "optuna", "layers_bits").returncode == 0
    loaded = load_run(run)
    front = front_of(loaded.candidates, loaded.study.directions)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = "from optuna_dashboard._cli import main; main()"
    words = [run / "optuna.journal", "--server", "wsgiref", "--port", str(port)]
    server = subprocess.Popen(
        [sys.executable, "-c", command, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        limit = time.monotonic() + 120
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/api/studies"):
                break
            assert server.poll() is None and time.monotonic() < limit
            time.sleep(0.1)
        with (
            chromium.browser(tmp_path / "browser") as address,
            chromium.Page(address, f"http://127.0.0.1:{port}/dashboard/studies/0") as page,
        ):
            graph = "document.getElementById('graph-pareto-front')"
            while not page(f"{graph}?.data?.some(trace => trace.x.length) ?? false"):
                assert time.monotonic() < limit
                time.sleep(0.2)
            sets = page(f"{graph}.data.map(trace => Array.from(trace.x, (x, i) => [x, trace.y[i]]))")
    finally:
        server.kill()
        server.wait()
    expected = sorted(values(front, list(loaded.study.objectives)[:2]))
    assert expected in [sorted(points) for points in sets]
    assert sum(map(len, sets)) == len(loaded.candidates)
