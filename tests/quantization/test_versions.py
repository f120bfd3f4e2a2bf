"""Packed models and digests outlive an upgrade of transformers, from the oldest one that is allowed."""

import json
import os
import re
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


def oldest():
    """The requirement of the oldest transformers that is allowed."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    return next(each for each in listed if each.startswith("transformers")).replace(">=", "==")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder for PYTHONPATH with the oldest transformers, and what it needs in other versions than ours."""
    folder = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--retries", "1", "--target", folder]

    def install(*requirements):
        done = subprocess.run([*pip, *requirements], capture_output=True, text=True)
        if done.returncode and not os.environ.get("CI"):
            pytest.skip(f"{oldest()} cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
        assert not done.returncode, done.stderr

    install("--no-deps", oldest())
    needed = next(each for each in distributions(path=[str(folder)]) if each.name == "transformers").requires
    install(*(each for each in needed if re.match(r"(huggingface[-_]hub|tokenizers)\b[^;]*$", each)))
    return folder


def run(what, folder, site=None):
    """What across_versions.py prints, with this transformers or the one of a folder."""
    paths = [*([site] if site else []), ROOT, ROOT / "tests"]
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "across_versions.py", what, folder],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))},
        capture_output=True,
        text=True,
    )
    assert not done.returncode, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("upgrade", [True, False], ids=["upgrade", "downgrade"])
def test_a_packed_model_and_a_digest_outlive_another_transformers(upgrade, site, tmp_path):
    writer, reader = (site, None) if upgrade else (None, site)
    packed_with = run("write", tmp_path, writer)["version"]
    before, after = run("read", tmp_path, writer), run("read", tmp_path, reader)
    assert sorted([packed_with, after.pop("version")]) == sorted(
        [oldest().partition("==")[2], version("transformers")]
    )
    expected = {family for family, cells in documented().items() if cells["packs and loads"] == families.YES}
    assert expected <= {*after} and before.pop("version") == packed_with
    for family in expected:
        assert before[family]["digest"] == after[family]["digest"], family
        if family in SPLIT:
            assert f"packed with transformers {packed_with}, and this is" in after[family]["error"]
            continue
        first, here, there = map(torch.tensor, (*before[family]["logits"], after[family]["logits"][1]))
        assert here.equal(first), family
        assert (there - here).norm() < 0.05 * here.norm(), family  # rounding flips levels
