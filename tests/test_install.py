"""The built wheel, installed by itself, from another working directory."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ablate.config import builtin

BUNDLED = "cifar10-mini", "cifar10-1k"
ROOT = Path(__file__).parent.parent
COMPILED = shutil.ignore_patterns("__pycache__")


@pytest.mark.long
def test_the_wheel(tmp_path):
    source = tmp_path / "source"  # setuptools would build beside what an earlier build has left
    source.mkdir()
    for name in ("ablate", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copytree(ROOT / name, source / name, ignore=COMPILED) if (
            ROOT / name
        ).is_dir() else shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(source)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("ablate_vit-*.whl")
    top = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == {"ablate"}
    assert wheel.stat().st_size < 25e6
    assert (
        "ablate/py.typed" in zipfile.ZipFile(wheel).namelist()
    )  # type checkers read our annotations (PEP 561)

    target = tmp_path / "site"
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(target),
        str(wheel),
    ]
    subprocess.run(install, check=True, capture_output=True)

    def python(code):
        code = f"import sys; sys.path.insert(0, {str(target)!r}); {code}"
        return subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout

    installed = {str(path.relative_to(target)) for path in (target / "ablate").rglob("*.py")}
    assert installed == {str(path.relative_to(source)) for path in (source / "ablate").rglob("*.py")}
    assert {path.name for path in (target / "ablate" / "reporting").glob("report.*")} == {
        "report.html",
        "report.css",
        "report.js",
    }
    listed = python("sys.argv = ['ablate', 'ls', '--json']; import ablate.cli.main; ablate.cli.main.main()")
    rows = {(row["kind"], row["name"]) for row in json.loads(listed)}
    spaces = {("space", path.stem) for path in (ROOT / "search_spaces").glob("*.toml")}
    models = {("model", name) for name in ("vit-micro", "vit-micro-200ep", *builtin.KNOWN)}
    datasets = {("dataset", name) for name in (*BUNDLED, "cifar10", "imagefolder:PATH", "MODULE:NAME")}
    studies = {("study", path.stem) for path in (ROOT / "studies").glob("*.toml")}
    assert spaces | studies | models | datasets == rows
    loaded = python("import ablate.data.datasets as d; print(d.__file__, len(d.load('cifar10-mini').train))")
    assert str(target) in loaded and loaded.strip().endswith(" 4000")
