import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

torch.set_num_threads(1)


def wait(done, seconds=180):
    """Until done() is true; fails when that takes longer."""
    limit = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < limit
        time.sleep(0.05)


def workers(pid=None):
    """Processes below one (this one by default) that run trials, or are about to."""
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):  # gone meanwhile
            if process.status() != psutil.STATUS_ZOMBIE and "Trainable" in " ".join(process.cmdline()):
                found.append(process)
    return found


@pytest.fixture(scope="session")
def tiny_vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A local `save_pretrained` folder: a ViT of 2 blocks and width 32, random weights, with its image processor."""
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=32, patch_size=8
    )
    folder = tmp_path_factory.mktemp("models") / "tiny-vit"
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


TINY_STUDY = """
question = "does it work?"
model = "{model}"
trials = 4
[recipe]
epochs = 1
bf16 = false
[space]
description = "a few points"
objectives = ["accuracy", "size_bytes", "bitops"]
fraction = [0.02, 0.04]
[space.layer]
weights = {{ each = ["full", "binary", "ternary"] }}
activation_bits = [2, 8]
"""


@pytest.fixture(scope="session")
def tiny_study(tiny_vit: Path) -> str:
    """The TOML of a study that takes a second a trial."""
    return TINY_STUDY.format(model=tiny_vit)


@pytest.fixture(scope="session")
def finished(tiny_study, tmp_path_factory):
    """One run of a tiny study by the command line, in an empty working directory."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "tiny.toml").write_text(tiny_study)
    command = [sys.executable, "-m", "ablate", "study", "tiny.toml", "--concurrency", "1", "--out", "run"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"})
    assert done.returncode == 0, done.stderr
    return folder / "run", done.stdout
