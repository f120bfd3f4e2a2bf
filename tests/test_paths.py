"""A leading ~ is expanded wherever a path is, and in one place; no folder called ~ is made."""

import ast
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

import ablate
from ablate import load_packed, load_run, pack
from ablate.config.builtin import absolute_data
from ablate.config.study_spec import StudySpec, load_study
from ablate.data import cache, datasets
from ablate.engine.predict import predict
from ablate.engine.run_study import run_study
from ablate.errors import BadInput
from ablate.execution.monitoring import monitor
from ablate.models import locating
from ablate.paths import local_path
from ablate.profiling.bench import bench
from ablate.quantization.packed_loading import load_preprocess
from ablate.reporting.html_report import report
from ablate.runs.claim import claimed
from ablate.training.checkpoint_store import Storage

SPACE = "description = 'd'\n[layer]\nweights = 'binary'\n"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder; the working directory is an empty one beside it, and is empty at the end."""
    for folder in ("home", "here"):
        (tmp_path / folder).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    yield tmp_path / "home"
    assert list((tmp_path / "here").iterdir()) == []


def test_a_home_folder_is_expanded(home, monkeypatch):
    assert local_path("~") == local_path(Path("~")) == home
    assert local_path("~/x") == local_path(Path("~/x")) == home / "x"
    assert local_path("a/~/b") == Path("a/~/b") and local_path("/~") == Path("/~")
    assert local_path("~root/x") == Path("/root/x")
    monkeypatch.delenv("HOME")
    assert local_path("~/x").is_absolute()  # the user's, from the table of users


def test_a_home_folder_that_nobody_knows_is_refused(home, monkeypatch):
    with pytest.raises(BadInput, match=r"home folder .* got '~nobody99/x'; write \./~nobody99/x, or"):
        local_path("~nobody99/x")
    monkeypatch.setenv("HOME", "~")  # as where the user has none
    with pytest.raises(BadInput, match="home folder"):
        local_path("~/x")
    for path in ("", "a\0b"):
        with pytest.raises(BadInput, match="must not be empty, nor have a zero byte"):
            local_path(path)


def test_a_folder_may_be_called_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert local_path("./~/x") == local_path(local_path("./~/x")) == tmp_path / "~" / "x"
    Path("./~draft.png").touch()
    assert local_path("~draft.png") == tmp_path / "~draft.png"


def test_one_place_expands():
    """Nothing else calls expanduser, and what takes `str | Path` makes it a Path by `local_path` alone."""
    for file in Path(ablate.__file__).parent.rglob("*.py"):
        if "Path" not in (text := file.read_text()):
            continue
        tree = ast.parse(text)
        names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert "expanduser" not in names or file.name == "paths.py", file
        for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
            arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
            taken = {a.arg for a in arguments if a.annotation and "str | Path" in ast.unparse(a.annotation)}
            for call in (node for node in ast.walk(function) if isinstance(node, ast.Call)):
                if ast.unparse(call.func) == "Path":
                    assert not taken & {ast.unparse(argument) for argument in call.args}, (file, call.lineno)


def test_files_and_folders_of_studies(home, monkeypatch):
    (home / "space.toml").write_text(SPACE)
    (home / "study.toml").write_text("question = '?'\nspace = '~/space.toml'\nmodel = '~/model'\n")
    (home / "model").mkdir()
    study = load_study("~/study.toml")
    assert study.space.name == "space" and study.model == str(home / "model")
    assert StudySpec(question="?", space="~/space.toml").space == study.space
    assert locating.source("~/model") == locating.absolute("~/model") == str(home / "model")
    assert absolute_data("imagefolder:~/x", Path("/elsewhere")) == f"imagefolder:{home}/x"
    monkeypatch.setenv("ABLATE_CACHE", "~/cache")
    assert cache.cache() == home / "cache"
    for load in (datasets.load, locating.source, load_study, load_run, load_packed):
        with pytest.raises(BadInput, match=r"must name a home folder|must be the folder of a run"):
            load("imagefolder:~nobody99/x" if load is datasets.load else "~nobody99/x")


def test_folders_that_are_written(home):
    with claimed("~/run", "name") as path:
        assert path == home / "run"
    assert Storage.tried("~/kept").path == str(home / "kept")
    assert monitor("~/monitor")[0].parent == home / "monitor"
    with pytest.raises(BadInput, match="cannot read study"):
        run_study(home / "none.toml")
    for out in ("", "~nobody99/x"):
        with pytest.raises(BadInput, match="a path"):
            run_study("default", out)


def test_packed_models(home):
    with pytest.warns(UserWarning, match="will need a skeleton"):
        pack(nn.Sequential(nn.Linear(2, 2)), "~/packed")
    load_packed("~/packed", skeleton=nn.Sequential(nn.Linear(2, 2)))
    for read in (load_preprocess, bench, lambda folder: predict(folder, ["~/image.png"])):
        with pytest.raises(BadInput, match=r"packed without image processing|no class for"):
            read("~/packed")


@pytest.mark.long
def test_a_run_and_its_model(home, finished):
    (home / "run").symlink_to(finished[0])
    run = load_run("~/run")
    assert run.path == home / "run" and report(run, "~/page.html") == home / "page.html"
    run.to_optuna("sqlite:///~/studies.db")
    assert (home / "studies.db").exists()
    run.export("~/model", max_size_bytes=10**9)
    Image.new("RGB", (32, 32)).save(home / "image.png")
    assert len(predict("~/model", ["~/image.png"])) == 1
    with torch.no_grad():
        assert bench("~/model", batches=(1,), seconds=0)[0]["model"] == "packed"


@pytest.mark.parametrize(
    "how", [{"seconds": float("nan")}, {"seconds": -1}, {"seconds": float("inf")}, {"batches": (0,)}]
)
def test_bench_has_the_ranges_of_the_command_line(how):
    with pytest.raises(BadInput, match=r"(seconds|batch) must be from"):
        bench("nowhere", **how)
