"""A user's own objective, sampler and dataset, through a whole study, from a module that is not ours."""

import os
import subprocess
import sys

import pytest

from ablate import load_run, run_study
from ablate.engine.resume import resume_study
from ablate.errors import BadInput

MODULE = """
import numpy as np
import optuna

from ablate import Objective

energy = Objective("min", "energy", "energy (mJ)", compute=lambda record: record["bitops"] * 2e-9)


def sampler(seed):
    return optuna.samplers.RandomSampler(seed=seed)


def stripes():
    images = np.random.default_rng(0).integers(0, 100, (120, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(120) % 2
    images[labels == 0, 12:20] += 100
    images[labels == 1, :, 12:20] += 100
    return {"classes": ["across", "upright"], "train": (images, labels)}
"""
STUDY = """
question = "does it work?"
model = "{model}"
data = "their_code:stripes"
sampler = "their_code:sampler"
objectives = ["accuracy", "their_code:energy"]
trials = 4
[recipe]
epochs = 1
bf16 = false
[space]
description = "a few points"
[space.layer]
weights = {{ each = ["full", "binary"] }}
activation_bits = [2, 4, 8]
"""


@pytest.fixture(scope="module")
def searched(tiny_vit, tmp_path_factory):
    """A run of such a study, and the folder of the user's module."""
    folder = tmp_path_factory.mktemp("theirs")
    (folder / "their_code.py").write_text(MODULE)
    (folder / "study.toml").write_text(STUDY.format(model=tiny_vit))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        run = run_study(str(folder / "study.toml"), folder / "run")
        yield run, folder
        sys.modules.pop("their_code", None)


@pytest.mark.long
def test_a_study_uses_them_and_goes_on_with_them(searched):
    run, _ = searched
    records = load_run(run.path).records
    assert list(records["status"]) == ["complete"] * 4
    assert records["their_code:energy"].to_list() == [bitops * 2e-9 for bitops in records["bitops"]]
    assert run.study.directions == {"accuracy": "max", "their_code:energy": "min"}
    resumed, _ = resume_study(run.path, trials=5)
    assert list(load_run(resumed.path).records["status"]) == ["complete"] * 5


@pytest.mark.long
@pytest.mark.parametrize("command", ["status", "report", "figures"])
def test_what_shows_a_run_imports_nothing(searched, command):
    run, folder = searched
    others = [part for part in os.environ["PYTHONPATH"].split(os.pathsep) if part != str(folder)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(others)}
    words = [sys.executable, "-m", "ablate", command, str(run.path)]
    done = subprocess.run(words, cwd=folder.parent, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if command == "status":
        assert "energy" in done.stdout


@pytest.mark.long
@pytest.mark.parametrize("kind", ["dataset", "sampler", "objective"])
def test_one_that_is_missing_is_refused_by_name(kind, searched, tmp_path):
    _, folder = searched
    names = {"dataset": "stripes", "sampler": "sampler", "objective": "energy"}
    text = (folder / "study.toml").read_text().replace(f":{names[kind]}", ":nothing")
    (tmp_path / "study.toml").write_text(text)
    with pytest.raises(BadInput, match=f"{kind} 'their_code:nothing' must be importable"):
        run_study(str(tmp_path / "study.toml"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
