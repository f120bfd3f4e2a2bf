"""Option groups: a dataclass in a command's signature becomes an option for each of its fields."""

import inspect
import subprocess
import sys
from dataclasses import dataclass, fields
from typing import Annotated, get_args

import pytest
import typer
from commands import run_ablate

from ablate.cli import main
from ablate.cli.options import RayOptions, SubjectOptions, expand_options
from ablate.cli.study_options import SearchOptions
from ablate.config.study_spec import StudySpec
from ablate.execution.ray_cluster import Resources
from ablate.paths import local_path

COMMANDS = typer.main.get_command(main.app).commands
EARLY_STOPPING = {"early_stopping", "early_stopping_over"}


@dataclass(frozen=True)
class Size:
    width: Annotated[int, typer.Option(help="Pixels.")] = 3
    height: Annotated[int | None, typer.Option(help="Pixels.")] = None


def test_a_dataclass_becomes_an_option_for_each_field():
    app, received = typer.Typer(), []

    @app.command()
    @expand_options
    def crop(size: Size, name: str, keep: bool = False) -> None:
        received.append((size, name, keep))

    command = typer.main.get_command(app)
    command(["me", "--height", "5"], standalone_mode=False)
    command(["me", "--width", "7", "--keep"], standalone_mode=False)
    assert received == [(Size(3, 5), "me", False), (Size(7, None), "me", True)]


def test_ray_options_are_the_fields_of_resources():
    assert RayOptions().resources() == Resources()
    assert [field.name for field in fields(RayOptions)] == list(Resources.model_fields)
    for name in ("study", "sensitivity", "resume"):
        options = {parameter.name for parameter in COMMANDS[name].params}
        assert options >= set(Resources.model_fields)


def test_options_of_a_search_are_fields_of_a_study():
    names = {field.name for group in (SubjectOptions, SearchOptions) for field in fields(group)}
    assert names - EARLY_STOPPING - {"epochs"} <= set(StudySpec.model_fields)


@pytest.mark.parametrize(
    ("options", "overrides"),
    [
        ({}, {}),
        ({"epochs": 2, "seed": 0}, {"seed": 0}),
        ({"objectives": "accuracy, loss"}, {"objectives": ("accuracy", "loss")}),
        ({"early_stopping": 0}, {"early_stopping": "none"}),
        ({"early_stopping": 3}, {"early_stopping": {"reduction": 3}}),
        ({"early_stopping_over": "fraction"}, {"early_stopping": {"over": "fraction"}}),
        (
            {"early_stopping": 0, "early_stopping_over": "fraction"},
            {"early_stopping": {"reduction": 0, "over": "fraction"}},
        ),
    ],
)
def test_only_given_options_replace_fields(options, overrides):
    assert SearchOptions(**options).overrides() == overrides


def options(app, group=""):
    """(command, parameter, type, Typer's declaration) of each parameter."""
    for each in app.registered_groups:
        yield from options(each.typer_instance, f"{group}{each.name} " if each.name else group)
    for each in app.registered_commands:
        name = group + (each.name or each.callback.__name__)
        declared = {
            key: get_args(parameter.annotation)
            for key, parameter in inspect.signature(each.callback).parameters.items()
        }
        yield from ((name, key, kind, info) for key, (kind, info) in declared.items())


OPTIONS = [*options(main.app)]
ZERO = {
    "epochs",
    "full_epochs",
    "seed",
    "confirm",
    "early_stopping",
    "gpus_per_trial",
    "max_failed",
    "seconds",
}
REQUIRED = {
    "resume": ["run"],
    "export": ["run", "--to=there"],
    "bench": ["nowhere"],
}
TEXTS = {  # what is no path, and what may be one
    *("objectives", "sampler", "early_stopping_over", "trial", "form", "name", "kind", "address"),
    *("dashboard_host", "study", "space", "model", "data", "storage", "track", "to", "set_field"),
    *("licence", "directory"),
}


def test_every_path_of_a_command_is_expanded():
    paths = [(name, key, info.parser) for name, key, kind, info in OPTIONS if "Path" in str(kind)]
    assert len(paths) >= 15 and {parser for _, _, parser in paths} == {local_path}
    assert {key for _, key, kind, _ in OPTIONS if "str" in str(kind)} == TEXTS


@pytest.mark.long
@pytest.mark.parametrize(
    ("command", "option", "kind"),
    [(name, key, kind) for name, key, kind, _ in OPTIONS if {int, float} & {kind, *get_args(kind)}],
)
def test_every_number_has_its_range(command, option, kind, tmp_path, monkeypatch):
    monkeypatch.setattr("ablate.engine.run_study.run_study", lambda *args, **options: pytest.fail("it began"))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "study.toml").write_text("question = '?'\nspace = 'bits'\n")
    values = ["-1", "nan", "inf", "-inf", "1e400", "9" * 40, "many", *(["0"] if option not in ZERO else [])]
    if float not in {kind, *get_args(kind)}:
        values += ["2.5", "1e3", "9" * 5000]
    elif option in ("hours", "max_bitops", "max_latency_ms"):  # any finite number above 0 is one
        values.remove("9" * 40)
    for value in values:
        words = [*command.split(), *REQUIRED.get(command, []), f"--{option.replace('_', '-')}={value}"]
        done = run_ablate(tmp_path, *words)
        error = done.stderr.removeprefix("Loading the model and starting Ray ...\n")
        assert done.returncode == 2 and error.count("\n") == 1, (value, done)
        assert option in error.replace("-", "_"), (value, error)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("command", COMMANDS.values(), ids=lambda command: command.name)
def test_the_list_of_commands_shows_whole_sentences(command):
    assert not command.get_short_help_str(limit=65).endswith("...")


@pytest.mark.long
@pytest.mark.parametrize(
    "arguments", [[], ["--help"], ["study", "--help"], ["--version"], ["ls"]], ids=" ".join
)
def test_help_imports_neither_torch_nor_ray(arguments):
    code = (
        "import atexit, sys; from ablate.cli.main import main\n"
        "atexit.register(lambda: print({'torch', 'ray'} & set(sys.modules), file=sys.stderr))\n"
        f"sys.argv = ['ablate', *{arguments}]; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip()) == (0, "set()") and done.stdout
