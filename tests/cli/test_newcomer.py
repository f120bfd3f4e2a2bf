"""The five commands of docs/guide.md on local stand-ins: a timm folder and a saved dataset."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from commands import run_ablate
from PIL import Image

from ablate.data import load

GUIDE = Path(__file__).parents[2] / "docs" / "guide.md"
MODEL, DATA = "timm/vit_tiny_patch16_224", "hf:AI-Lab-Makerere/beans"
TINY = {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 48}


@pytest.fixture
def home(tmp_path):
    """A folder with my-timm, my-images and leaf.jpg; the dataset has 250 images and the columns of beans."""
    timm, datasets = pytest.importorskip("timm"), pytest.importorskip("datasets")
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=10, **TINY)
    timm.models.save_for_hf(model, tmp_path / "my-timm", model_args=TINY, safe_serialization=True)
    mini = load("cifar10-mini")
    kinds = {
        "image_file_path": datasets.Value("string"),
        "image": datasets.Image(),
        "labels": datasets.ClassLabel(names=list(mini.classes)),
    }
    images, labels = mini.train.images[::16][:250], mini.train.labels[::16][:250]
    rows = {
        "image_file_path": [str(i) for i in range(250)],
        "image": [Image.fromarray(image) for image in images],
        "labels": labels.tolist(),
    }
    table = datasets.Dataset.from_dict(rows, features=datasets.Features(kinds))
    table.save_to_disk(tmp_path / "my-images")
    Image.fromarray(mini.test.images[0]).save(tmp_path / "leaf.jpg")
    return tmp_path


@pytest.mark.slow
def test_a_packed_model_in_five_commands(home):
    section = (
        GUIDE.read_text().partition("## A model of timm, a dataset of the hub\n")[2].partition("\n## ")[0]
    )
    block = re.search(r"```sh\n(.*?)```", section, re.DOTALL)[1]
    install, *commands = [line.partition("  #")[0].split() for line in block.splitlines()]
    assert install[:2] == ["pip", "install"] and len(commands) == 4 and ".toml" not in block
    for command in commands:
        local = {MODEL: "./my-timm", DATA: "hf:my-images"}
        words = [local.get(word, word) for word in command[1:]]
        assert command[0] == "ablate" and not {MODEL, DATA} & {*words}
        done = run_ablate(home, *words, *(["--trials", "4"] if "--out" in words else []))
        assert done.returncode == 0, done.stderr
    name, confidence = done.stdout.split()[-2:]  # of leaf.jpg
    assert name in load("cifar10-mini").classes and 0.1 <= float(confidence) <= 1
    assert (home / "small" / "model.safetensors").stat().st_size < 200_000


SILENT = """

from ablate.errors import BadInput
from ablate.models import loading
try:
    loading.preprocess("timm/vit_tiny_patch16_224")
except BadInput as error:
    print(error)
"""


@pytest.mark.long
def test_a_hub_that_is_silent_is_refused_at_once(tmp_path, monkeypatch):
    """transformers asks six times for each of several files, and then says that one of them is missing."""
    pytest.importorskip("timm")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens on the port of discard
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    done = subprocess.run([sys.executable, "-c", SILENT], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("cannot load model 'timm/vit_tiny_patch16_224")
    assert "try again with a network, or give a folder that timm wrote" in done.stdout
    assert "Retry" not in done.stderr
