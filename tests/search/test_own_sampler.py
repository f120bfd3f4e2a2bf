"""A user's own sampler, `module:name`: used as the built-in ones are, and imported by searches alone."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ablate.cli import main
from ablate.config.canonical import key_of
from ablate.config.samplers import TABLE
from ablate.config.study_spec import StudySpec, load_study
from ablate.config.trial_spec import checked
from ablate.errors import BadInput
from ablate.runs.record import blank_record
from ablate.search.optuna_samplers import FACTORIES
from ablate.search.searcher import Search

NUMBERS = itertools.count()
GROUPS = [f"block{i}.{role}" for i in range(2) for role in ("attention", "fc1", "fc2")] + ["head"]
MODULE = """
import numpy as np
import optuna

not_callable = 5


def tpe(seed):
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=6)


def no_seed():
    return optuna.samplers.RandomSampler()


def no_sampler(seed):
    return f"sampler {seed}"


class MutateBest(optuna.samplers.BaseSampler):
    '''Each value of the most accurate trial so far, and one in five drawn anew.'''

    def __init__(self, seed):
        self.random, self.rng = optuna.samplers.RandomSampler(seed=seed), np.random.default_rng(seed)

    def infer_relative_search_space(self, study, trial):
        return {}

    def sample_relative(self, study, trial, search_space):
        return {}

    def sample_independent(self, study, trial, name, distribution):
        complete = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
        if not complete or self.rng.random() < 0.2:
            return self.random.sample_independent(study, trial, name, distribution)
        return max(complete, key=lambda trial: trial.values[0]).params[name]
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The name of a module of samplers, which can be imported."""
    name = f"own_samplers_{next(NUMBERS)}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    sys.modules.pop(name, None)


def study(sampler, **fields):
    space = {"description": "d", "layer": {"weights": {"each": ["full", "binary", "int8"]}}}
    return checked(StudySpec, {"question": "?", "space": space, "sampler": sampler} | fields, "study")


def answer(spec):
    accuracy = 0.9 - 0.05 * len(spec.layers) - 0.3 * ("head" in spec.layers)
    sizes = {"size_bytes": 700 - 90 * len(spec.layers)}
    return blank_record(spec, key_of(spec)) | {"status": "complete", "accuracy": accuracy} | sizes


def run(search, n):
    specs = []
    for _ in range(n):
        specs.append(search.ask())
        search.tell(answer(specs[-1]))
    return specs


@pytest.mark.parametrize("name", ["tpe", "MutateBest"])
def test_it_proposes_as_a_function_of_the_seed_and_the_records(own, name):
    spec = study(f"{own}:{name}")
    proposed = run(Search(spec, GROUPS), 20)
    assert len({key_of(trial) for trial in proposed}) == 20
    assert proposed[:4] == run(Search(study("random"), GROUPS), 4)[:4]  # the anchors come first
    continued = Search(spec, GROUPS, [answer(trial) for trial in proposed[:12]])
    assert run(continued, 8) == proposed[12:]
    assert run(Search(spec.model_copy(update={"seed": 1}), GROUPS), 20) != proposed


def test_it_learns_from_the_records(own):
    """Near the best anchor, all full, few groups are quantized; a random draw quantizes two in three."""
    near, random = (run(Search(study(name), GROUPS), 30)[4:] for name in (f"{own}:MutateBest", "random"))
    assert sum(len(spec.layers) for spec in near) < 0.8 * sum(len(spec.layers) for spec in random)


def test_bounds_are_kept(own):
    spec = study(f"{own}:tpe", max_size_bytes=400)
    search = Search(spec, GROUPS, count=lambda trial: {"size_bytes": answer(trial)["size_bytes"]})
    assert max(answer(trial)["size_bytes"] for trial in run(search, 15)) <= 400


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "must be importable, but '.*' has no 'nowhere'; it has "),
        ("not_callable", r"must be callable as not_callable\(seed=...\), but got TypeError"),
        ("no_seed", r"must be callable as no_seed\(seed=...\), but got TypeError"),
        (
            "no_sampler",
            r".* and return an optuna.samplers.BaseSampler, but it returned str; derive",
        ),
    ],
)
def test_what_is_no_sampler_is_refused(own, name, message):
    with pytest.raises(BadInput, match=f"sampler '{own}:{name}' {message}"):
        Search(study(f"{own}:{name}"), GROUPS)


def test_a_missing_module_is_refused():
    with pytest.raises(BadInput, match=r"sampler 'no_such_module:Mine' must be importable, .* PYTHONPATH"):
        Search(study("no_such_module:Mine"), GROUPS)


@pytest.mark.parametrize("name", ["cmaes", "module:", ":name", "a:b:c", "a b:c", "a.:c", "a:b.c", ""])
def test_a_name_is_one_of_the_table_or_a_module_and_a_name(name):
    with pytest.raises(BadInput, match="or 'random', or your own as 'module:name', but got"):
        study(name)


def test_a_design_has_no_sampler():
    with pytest.raises(BadInput, match=r"sampler is for a search; .*'module:name'"):
        study("module:name", design="factorial")


def test_each_sampler_of_the_table_can_be_built():
    assert FACTORIES.keys() == TABLE.keys()


@pytest.fixture
def exit_code(tmp_path, monkeypatch):
    """Runs the command line in an empty folder, in this process."""
    monkeypatch.chdir(tmp_path)

    def run_command(*arguments):
        monkeypatch.setattr(sys, "argv", ["ablate", *arguments])
        with pytest.raises(SystemExit) as end:
            main.main()
        return end.value.code

    return run_command


def test_the_sampler_of_the_guide_is_one(tmp_path, monkeypatch):
    guide = (Path(__file__).parents[2] / "docs" / "guide.md").read_text()
    code = guide.partition("### Your own sampler")[2].partition("```python\n")[2].partition("```")[0]
    (tmp_path / "samplers_of_the_guide.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    search = Search(study("samplers_of_the_guide:patient_tpe"), GROUPS)
    assert len({key_of(spec) for spec in run(search, 25)}) == 25


@pytest.mark.long
def test_a_study_of_a_missing_sampler_ends_before_it_begins(tiny_study, tmp_path, exit_code, capsys):
    (tmp_path / "tiny.toml").write_text(f"sampler = 'no_such_module:Mine'\n{tiny_study}")
    assert exit_code("study", "tiny.toml", "--out", "run") == 2
    assert "sampler 'no_such_module:Mine' must be importable" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_only_a_search_imports_it(tiny_study, tmp_path, own, exit_code, capsys):
    """A study is run by a process that can import the sampler, and read and resumed by one that cannot."""
    (tmp_path / "tiny.toml").write_text(tiny_study.replace("trials = 4", "trials = 5"))
    options = ("tiny.toml", "--sampler", f"{own}:tpe", "--concurrency", "1", "--out", "run")
    done = subprocess.run(
        [sys.executable, "-m", "ablate", "study", *options],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "run" / "ledger.jsonl").read_text().splitlines()) == 5
    (tmp_path / f"{own}.py").write_text("raise RuntimeError('this module is imported')")
    assert load_study("run/study.toml").sampler == f"{own}:tpe"
    for verb in ("status", "figures", "report"):
        assert exit_code(verb, "run") == 0
    capsys.readouterr()
    assert exit_code("resume", "run", "--trials", "6") == 2
    assert f"sampler '{own}:tpe' must be importable, but got RuntimeError" in capsys.readouterr().err
