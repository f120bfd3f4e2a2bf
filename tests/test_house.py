"""The house: light imports, exported names, and what each package is for."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import ablate

ROOT = Path(ablate.__file__).parent


def imports(path):
    """Every module that a file imports, anywhere in it, by full name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_ray_is_imported_where_it_is_used():
    """The order of the packages is import-linter's, in pyproject.toml."""
    for path in ROOT.rglob("*.py"):
        if path.parent.name != "execution":
            assert "ray" not in {name.split(".")[0] for name in imports(path)}, path


def test_a_package_says_what_lives_there():
    packages = [path for path in ROOT.iterdir() if (path / "__init__.py").exists()]
    assert packages
    for package in packages:
        assert ast.get_docstring(ast.parse((package / "__init__.py").read_text())), package


def test_analysis_and_figures_import_neither_torch_nor_ray():
    for folder in ("analysis", "paper_figures"):
        for path in (ROOT / folder).glob("*.py"):
            assert not {name.split(".")[0] for name in imports(path)} & {"torch", "ray"}, path


@pytest.mark.long
def test_light_imports():
    code = "import sys, {}; print(*({{'torch', 'ray'}} & set(sys.modules)))"
    for module in ("ablate.analysis.pareto", "ablate.cli.main"):
        out = subprocess.run(
            [sys.executable, "-c", code.format(module)], capture_output=True, text=True, check=True
        )
        assert out.stdout.strip() == "", module


def test_exported_names():
    assert dir(ablate) == [
        "BadInput",
        "BitLinear",
        "LayerSpec",
        "Objective",
        "Recipe",
        "Resources",
        "SpaceSpec",
        "StudySpec",
        "calibrate_",
        "check_study",
        "load_packed",
        "load_run",
        "pack",
        "predict",
        "quantize_",
        "recorded_precisions",
        "run_study",
        "run_trial",
    ]
    assert all(getattr(ablate, name).__name__ == name for name in dir(ablate))


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("ablate.spec", ["LayerSpec"]),
        (
            "ablate.bitlinear",
            ["BitLinear", "binarize", "ternarize", "quantize_weights", "quantize_activations"],
        ),
        ("ablate.data", ["Dataset", "Split", "load"]),
        ("ablate.models", ["load", "load_with_report", "preprocess"]),
        ("ablate.analysis.pareto", ["front", "front_of", "hypervolume", "attainment", "knee", "fit"]),
        ("ablate.analysis.scaling", ["fit"]),
        ("ablate.analysis.hypothesis", ["data_volume"]),
    ],
)
def test_modules_that_users_import_keep_their_names(module, names):
    assert all(hasattr(importlib.import_module(module), name) for name in names)
