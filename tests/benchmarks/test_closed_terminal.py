"""A study whose terminal disappears goes on and ends: one of those of benchmarks/closed_terminal.py."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "closed_terminal.py"


@pytest.mark.slow
def test_a_study_outlives_its_terminal(tmp_path):
    subprocess.run([sys.executable, SCRIPT, "--studies", "1", "--out", tmp_path / "out.json"], check=True)
    assert json.loads((tmp_path / "out.json").read_text())["outlived"] == 1
