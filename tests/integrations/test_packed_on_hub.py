"""Packed models on the Hugging Face hub: a server on loopback that `huggingface_hub` itself talks to."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from forgery import intact
from hub_server import Hub
from PIL import Image

from ablate import load_packed, pack
from ablate.quantization.packed_loading import load_preprocess

ROOT = Path(__file__).parents[2]


@pytest.fixture
def hub():
    with Hub() as served:
        yield served


def python(environment, folder, *arguments):
    """A process of its own: huggingface_hub reads its variables when it is imported."""
    paths = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    return subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | environment | paths,
        capture_output=True,
        text=True,
        cwd=folder,
    )


def logits(environment, *names, folder):
    """By tests/hub_client.py."""
    done = python(environment, folder, ROOT / "tests" / "hub_client.py", *names)
    assert not done.returncode, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_names_revisions_and_what_is_refused(hub, tiny_vit, tmp_path):
    files = intact(tiny_vit, tmp_path / "first")
    model = load_packed(tmp_path / "first")
    with torch.no_grad():
        model.classifier.bias += 1
    pack(model, tmp_path / "second", preprocess=load_preprocess(tmp_path / "first"))
    first = hub.commit("me/small", files)
    hub.commit("me/small", {name: (tmp_path / "second" / name).read_bytes() for name in files})
    hub.commit("me/vit", {name: (tiny_vit / name).read_bytes() for name in files})
    hub.commit("me/empty", {"README.md": b"nothing"})
    (tmp_path / "here" / "me").mkdir(parents=True)
    shutil.copytree(tmp_path / "first", tmp_path / "here" / "me" / "local")
    with torch.no_grad():
        then, now = (
            load_packed(tmp_path / name)(torch.ones(1, 3, 32, 32)).logits.tolist()
            for name in ("first", "second")
        )
    environment = hub.environment(tmp_path / "home")
    names = [
        "me/small",
        f"me/small@{first}",
        "me/local",
        "me/small@gone",
        "me/none",
        "me/vit",
        "me/empty",
        "a/b--c",
    ]
    found = logits(environment, *names, folder=tmp_path / "here")
    assert found["me/small"] == now and found[f"me/small@{first}"] == then == found["me/local"]
    assert "has no revision 'gone'" in found["me/small@gone"]
    assert (
        "neither a folder nor a model on the hub" in found["me/none"] and "hf auth login" in found["me/none"]
    )
    assert "must be a packed one, but 'me/vit'" in found["me/vit"]
    assert "has no config.json" in found["me/empty"] and "neither a folder nor a name" in found["a/b--c"]
    assert not any("local" in path or "me/vit/resolve/main/model" in path for _, path in hub.requests)

    Image.new("RGB", (40, 40), "red").save(tmp_path / "red.png")
    done = python(environment, tmp_path, "-m", "ablate", "predict", "me/small", "red.png", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)[0]["image"] == "red.png"

    with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes connections, and never answers
        environment["HF_ENDPOINT"] = f"http://127.0.0.1:{silent.getsockname()[1]}"
        environment["HF_HUB_ETAG_TIMEOUT"] = "1"
        found = logits(environment, "me/small", "me/other", folder=tmp_path)
    assert found["me/small"] == now, "what is in the cache is used"
    assert "does not answer" in found["me/other"] and "\n" not in found["me/other"]
