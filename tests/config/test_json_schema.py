"""The JSON Schemas take what the specs take, and refuse what an editor can see."""

import json
import tomllib
from pathlib import Path

import pytest
import tomli_w
from commands import run_ablate
from jsonschema import Draft7Validator

from ablate.config import builtin
from ablate.config.json_schema import space_schema, study_schema
from ablate.config.search_space import load_space
from ablate.config.study_spec import load_study
from ablate.errors import BadInput

ROOT = Path(builtin.__file__).parent.parent
FOLDERS = {"studies": (study_schema(), load_study), "search_spaces": (space_schema(), load_space)}
FILES = [(folder, name) for folder in FOLDERS for name in builtin.names(folder)]


def faults(folder, text):
    """What the schema has against a file."""
    return [error.message for error in Draft7Validator(FOLDERS[folder][0]).iter_errors(tomllib.loads(text))]


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_schema_is_one_and_explains_every_field(folder):
    schema = FOLDERS[folder][0]
    Draft7Validator.check_schema(schema)
    for part in (schema, *schema["definitions"].values()):
        for name, field in part["properties"].items():
            assert field["description"], name
    assert "None" not in json.dumps(schema["properties"]["recipe"].get("default", ""))


@pytest.mark.parametrize(("folder", "name"), FILES, ids=[f"{folder}/{name}" for folder, name in FILES])
def test_every_built_in_file_is_valid(folder, name):
    assert faults(folder, (ROOT / folder / f"{name}.toml").read_text()) == []


@pytest.mark.parametrize("name", builtin.names("studies"))
def test_a_study_as_a_run_writes_it_is_valid(name):
    plain = json.loads(json.dumps(load_study(name).model_dump()).replace("null", '"none"'))
    assert faults("studies", tomli_w.dumps(plain)) == []


STUDY = 'question = "?"\nspace = "bits"\n'
SPACE = 'description = "d"\nlayer = { weights = "binary" }\n'


@pytest.mark.parametrize(
    ("folder", "text"),
    [
        ("studies", 'question = "?"'),
        ("studies", STUDY + "trialls = 3"),
        ("studies", STUDY + "trials = 0"),
        ("studies", STUDY + "trials = true"),
        ("studies", STUDY + 'design = "laddr"'),
        ("studies", STUDY + 'objectives = ["accuracy", "size"]'),
        ("studies", STUDY + 'sampler = "tpee"'),
        ("studies", STUDY + "recipe = { lerning_rate = 1 }"),
        ("studies", STUDY + "recipe = { learning_rate = 0 }"),
        ("studies", STUDY + 'recipe = { learning_rate = "none" }'),
        ("studies", STUDY + "tune = { learning_rate = 0.1 }"),
        ("studies", STUDY + "tune = { lerning_rate = [0.1] }"),
        ("studies", STUDY + "early_stopping = { reduction = 1 }"),
        (
            "studies",
            STUDY + 'design = "arms"\nsteps = [{ name = "a", layer = { weights = "full", bits = 1 } }]',
        ),
        ("studies", STUDY + 'design = "arms"\nsteps = [{ layer = { weights = "full" } }]'),
        ("search_spaces", 'description = "d"'),
        ("search_spaces", 'description = "d"\nlayer = { activation_bits = 8 }'),
        ("search_spaces", SPACE.replace("binary", "binray")),
        ("search_spaces", SPACE.replace('"binary"', "[]")),
        ("search_spaces", SPACE.replace('"binary"', '{ each = ["full", "binray"] }')),
        ("search_spaces", SPACE.replace('"binary"', "{ low = 1, high = 2 }")),
        ("search_spaces", SPACE + "fraction = [0.5, 2.0]"),
        ("search_spaces", SPACE + "fraction = { each = [0.5, 1.0] }"),
        ("search_spaces", SPACE + "recipe = { epochs = [1, 2.5] }"),
    ],
)
def test_what_a_schema_refuses_is_refused_when_it_is_read(folder, text, tmp_path):
    assert faults(folder, text)
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(BadInput):
        FOLDERS[folder][1](str(tmp_path / "mine.toml"))


@pytest.mark.parametrize(
    ("folder", "text"),
    [
        ("studies", STUDY + 'hours = "none"\nearly_stopping = "none"\ndesign = "search"'),
        ("studies", STUDY + 'objectives = ["accuracy", "my_package.mine:energy"]\nsampler = "mine:tpe"'),
        ("studies", 'question = "?"\n[space]\n' + SPACE),
        ("search_spaces", SPACE + 'recipe = { learning_rate = { low = 1e-4, high = 1e-2, log = true } }'),
        ("search_spaces", SPACE + 'recipe = { augment = [true, "shift", false], teacher = "none" }'),
        ("search_spaces", SPACE.replace("}", ', activation_bits = { each = [2, "none"] } }')),
    ],
)  # fmt: skip
def test_what_a_file_may_say_is_valid(folder, text):
    assert faults(folder, text) == []


def test_the_command_prints_it(tmp_path):
    for kind, folder in (("study", "studies"), ("space", "search_spaces")):
        done = run_ablate(tmp_path, "schema", kind)
        assert done.returncode == 0 and json.loads(done.stdout) == FOLDERS[folder][0]
    assert run_ablate(tmp_path, "schema").stdout == run_ablate(tmp_path, "schema", "study").stdout
    refused = run_ablate(tmp_path, "schema", "studdy")
    assert refused.returncode == 2 and "did you mean 'study'?" in refused.stderr
