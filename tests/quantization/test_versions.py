"""Packed models and digests outlive an upgrade of transformers, from the oldest one that is allowed."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import distributions, version
from pathlib import Path

import families
import pytest
import torch
from families import documented

ROOT = Path(__file__).parents[2]
# Where the newer version has two layers, the older one has one, and both have their own beta.
SPLIT = {"DINOv2, SwiGLU"}


def oldest(name):
    """The requirement of the oldest version of a package that is allowed."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    return next(each for each in listed if re.match(rf"{name}\b", each)).replace(">=", "==")


def install(folder, *requirements):
    """Skips the test where there is no package index, but not in CI."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--retries", "5", "--target", folder]
    done = subprocess.run([*pip, *requirements], capture_output=True, text=True)
    if done.returncode and not os.environ.get("CI"):
        said = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
        pytest.skip(f"{' '.join(requirements)} cannot be installed here: {said}")
    assert not done.returncode, done.stderr


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder for PYTHONPATH with the oldest transformers. The oldest torch needs other CUDA libraries."""
    folder = tmp_path_factory.mktemp("site")
    install(folder, "--no-deps", oldest("transformers"))
    needed = next(each for each in distributions(path=[str(folder)]) if each.name == "transformers").requires
    # In other versions than this transformers needs.
    install(folder, *(each for each in needed if re.match(r"(huggingface[-_]hub|tokenizers)\b[^;]*$", each)))
    yield folder
    shutil.rmtree(folder)


def python(*arguments, path):
    paths = {"PYTHONPATH": os.pathsep.join(map(str, path))}
    return subprocess.run(
        [sys.executable, *arguments], env=os.environ | paths, capture_output=True, text=True
    )


def run(what, folder, *site):
    """What across_versions.py prints, with this transformers or the one of a folder."""
    script = ROOT / "tests" / "across_versions.py"
    done = python(script, what, folder, path=[*site, ROOT, ROOT / "tests"])
    assert not done.returncode, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("upgrade", [True, False], ids=["upgrade", "downgrade"])
def test_a_packed_model_and_a_digest_outlive_another_transformers(upgrade, site, tmp_path):
    writer, reader = ([site], []) if upgrade else ([], [site])
    packed_with = run("write", tmp_path, *writer)["version"]
    before, after = run("read", tmp_path, *writer), run("read", tmp_path, *reader)
    assert sorted([packed_with, after.pop("version")]) == sorted(
        [oldest("transformers").partition("==")[2], version("transformers")]
    )
    packed = {family for family, cells in documented().items() if cells["packs and loads"] == families.YES}
    expected = packed - {*families.TIMM}  # the oldest transformers builds timm's models in another way
    assert expected <= {*after} and before.pop("version") == packed_with
    for family in expected:
        assert before[family]["digest"] == after[family]["digest"], family
        if family in SPLIT:
            assert f"packed with transformers {packed_with}, and this is" in after[family]["error"]
            continue
        first, here, there = map(torch.tensor, (*before[family]["logits"], after[family]["logits"][1]))
        assert here.equal(first), family
        assert (there - here).norm() < 0.05 * here.norm(), family  # rounding flips levels
