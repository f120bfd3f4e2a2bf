"""A sample of benchmarks/fuzz.py: wrong files are refused in one line, or read as the oracle reads them."""

import json
import math
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from random import Random

import pytest

from ablate.config.builtin import load
from ablate.config.study_spec import StudySpec
from ablate.config.trial_spec import LayerSpec, Recipe, checked
from ablate.errors import BadInput, short_repr
from ablate.formatting import format_count
from ablate.search.experiment_design import Design
from ablate.search.parameter_space import Points
from ablate.search.searcher import Search

SPACE = {"description": "d", "layer": {"weights": "binary"}}
INPUTS = {"toml": 200, "ledger": 200, "packed": 100, "images": 80}


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # of Pillow, Optuna and transformers, about files that are wrong
@pytest.mark.parametrize("name", INPUTS)
def test_a_sample_of_every_target(name, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    fuzz, target = import_module("fuzz"), import_module(f"fuzz_{name}").Target(tmp_path / name)
    found, faults = fuzz.fuzz(name, target, seed=1, count=INPUTS[name])
    assert faults == {}
    assert found["accepted"] and found["refused"] and found["kinds"]["field"] >= INPUTS[name] / 4


def test_the_same_seed_makes_the_same_inputs(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    make = import_module("fuzz_toml").Target(tmp_path / "toml").make
    assert all(make(i, Random(f"0 toml {i}")) == make(i, Random(f"0 toml {i}")) for i in range(30))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("epochs", "3"), ("epochs", True), ("learning_rate", "1e-3"), ("augment", 1), ("augment", "yes")),
        *(
            ("weight_decay", False),
            ("clip_norm", math.inf),
            ("momentum", math.nan),
            ("temperature", 2**53 + 1),
        ),
    ],
)
def test_a_value_is_held_as_it_was_given(key, value):
    with pytest.raises(BadInput, match=key):
        checked(Recipe, {key: value}, "recipe")


def test_a_whole_number_may_be_written_with_a_point():
    assert checked(Recipe, {"epochs": 2.0, "weight_decay": 0}, "recipe").epochs == 2
    assert LayerSpec(beta=8).beta == 8.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer": {"weights": "binary", "activation_bits": [8, 8.0]}}, "choices must differ"),
        (
            {"layer": {"weights": "binary", "beta": [1, True]}},
            "beta: Input should be a valid number, but got True",
        ),
        (
            {"fraction": {"low": 0.1, "high": 0.5, "log": "true"}},
            "log: Input should be a valid boolean, but got 'true'",
        ),
        ({"layer": {"weights": "binary", "activation_bits": [i + 0.5 for i in range(1000)]}}, "992 more"),
    ],
)
def test_faulty_axes(change, message):
    with pytest.raises(BadInput, match=message) as caught:
        checked(StudySpec, {"question": "?", "space": SPACE | change}, "mine.toml")
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("value", [False, 0, ""])
def test_no_objectives_is_an_empty_list(value):
    with pytest.raises(BadInput, match="objectives"):
        checked(StudySpec, {"question": "?", "space": SPACE, "objectives": value}, "mine.toml")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"trials = {'9' * 5000}", "4300 digits"),
        (f"trials = 0x{'f' * 5000}", "a number of too many digits"),
        (f"model = '{'x' * 300}'", "File name too long"),
        ("data = 'imagefolder:~nobody-here/x'", "home folder"),
        (f"question{'.a' * 5000} = 1", "question"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_in_one_line(line, message, tmp_path):
    (tmp_path / "mine.toml").write_text(f"{line}\nspace = 'bits'\n")
    with pytest.raises(BadInput, match=message) as caught:
        load(StudySpec, "studies", "study", str(tmp_path / "mine.toml"))
    assert len(str(caught.value)) < 2000 and "\n" not in str(caught.value)


def test_more_points_than_a_float_holds_are_counted():
    each = {"each": [i + 0.5 for i in range(1000)]}
    groups = [f"block{i}.fc1" for i in range(120)]
    layer = {"weights": "binary", "beta_multiplier": each}
    finite = StudySpec(question="?", space=SPACE | {"layer": layer})
    assert Points(finite, groups).size == 1000**120 and format_count(1000**120) == "about 10^360"
    learning_rate = {"learning_rate": {"low": 1e-4, "high": 1e-2}}
    endless = StudySpec(question="?", space=SPACE | {"layer": layer, "recipe": learning_rate})
    assert (
        Points(endless, groups).size == math.inf
        and format_count(None) == "infinitely many"
        and format_count(1234.0) == "1,234"
    )


@pytest.mark.parametrize(
    "parts",
    [
        {
            "design": "factorial",
            "seeds": 10_000,
            "space": SPACE | {"recipe": {"epochs": list(range(1, 102))}},
        },
        {
            "design": "factorial",
            "tune": {key: list(range(1, 200)) for key in ("epochs", "batch_size", "temperature")},
        },
    ],
)
def test_a_design_of_too_many_trials(parts):
    with pytest.raises(BadInput, match="1,000,000 trials at most"):
        Design(StudySpec(**{"question": "?", "space": SPACE, **parts}), ["head"])


def test_a_space_of_many_axes_of_one_choice_ends():
    layer = {"weights": {"each": ["binary"]}, "activation_bits": [4, 8]}
    search = Search(
        StudySpec(question="?", space=SPACE | {"layer": layer}), [f"block{i}.fc1" for i in range(80)]
    )
    found = [spec.layers["block79.fc1"].activation_bits for spec in iter(search.ask, None)]
    assert sorted(found) == [4, 8]


def test_what_a_message_quotes_is_short():
    assert (
        len(short_repr("x" * 10_000)) < 250
        and len(short_repr([0] * 10_000)) < 250
        and short_repr("mine.toml") == "'mine.toml'"
    )


def test_faults_are_told_once_and_on_one_line():
    with pytest.raises(BadInput) as refused:
        checked(
            StudySpec,
            {"question": "?", "space": SPACE | {"layer": {"weights": "full", "a\nb": [1, "x"]}}},
            "mine.toml",
        )
    assert "a\\nb" in str(refused.value) and "\n" not in str(refused.value)
    step = {"name": "s", "tune": {"x" * 200: [1, 2, 3, 4, 5]}}
    with pytest.raises(BadInput) as refused:
        checked(StudySpec, {"question": "?", "space": SPACE, "steps": [step]}, "mine.toml")
    assert str(refused.value).count("unknown key") == 1


@pytest.mark.long
def test_a_target_runs_alone_under_its_memory_limit(tmp_path):
    """Nothing may be imported for the first time after the limit: torch maps more memory than it leaves."""
    pytest.importorskip("coverage")
    script = Path(__file__).parents[2] / "benchmarks" / "fuzz.py"
    options = [
        "--target",
        "ledger",
        "--inputs",
        "10",
        "--faults",
        tmp_path / "faults",
        "--out",
        tmp_path / "out.json",
    ]
    done = subprocess.run([sys.executable, script, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out.json").read_text())["faults"] == 0
