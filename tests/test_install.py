"""The built wheel: installed by itself, and with the few packages that a packed model needs."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from ablate.config import builtin

BUNDLED = "cifar10-mini", "cifar10-1k"
ROOT = Path(__file__).parent.parent
COMPILED = shutil.ignore_patterns("__pycache__")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """(the wheel, the source that it was built from)."""
    folder = tmp_path_factory.mktemp("build")
    source = folder / "source"  # setuptools would build beside what an earlier build has left
    source.mkdir()
    for name in ("ablate", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copytree(ROOT / name, source / name, ignore=COMPILED) if (
            ROOT / name
        ).is_dir() else shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(source)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("ablate_vit-*.whl")
    return wheel, source


@pytest.mark.long
def test_the_wheel(built, tmp_path):
    wheel, source = built
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
    datasets = {
        ("dataset", name)
        for name in (*BUNDLED, "cifar10", "cifar100", "imagefolder:PATH", "hf:NAME", "MODULE:NAME")
    }
    studies = {("study", path.stem) for path in (ROOT / "studies").glob("*.toml")}
    assert spaces | studies | models | datasets == rows
    loaded = python("import ablate.data.datasets as d; print(d.__file__, len(d.load('cifar10-mini').train))")
    assert str(target) in loaded and loaded.strip().endswith(" 4000")


LIGHT = ("torch", "transformers", "safetensors", "pydantic", "pillow")  # what a packed model needs
USE = """
import importlib.util, torch
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification
from ablate import LayerSpec, load_packed, pack, predict, quantize_
from ablate.models.preprocessing import Preprocess

for missing in ("ray", "optuna", "pandas", "torchvision", "platformdirs", "scipy"):
    assert importlib.util.find_spec(missing) is None, missing
torch.manual_seed(0)
size = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
model = ViTForImageClassification(ViTConfig(**size, image_size=32, patch_size=8, num_labels=2)).eval()
quantize_(model, {"vit.layers.*": LayerSpec(weights="ternary")})
preprocess = Preprocess((32, 32), 40, "bicubic", 1 / 255, (0.5,) * 3, (0.5,) * 3)
pack(model, "packed", preprocess=preprocess)
pixels = torch.rand(2, 3, 32, 32)
with torch.inference_mode():
    assert torch.equal(load_packed("packed")(pixels).logits, load_packed("packed")(pixels).logits)
Image.effect_noise((50, 70), 90).convert("RGB").save("one.png")
[(name, share)] = predict("packed", ["one.png"])
assert name in ("LABEL_0", "LABEL_1") and 0.5 <= share <= 1
try:
    from ablate import run_study
except ImportError as error:
    print(error)
"""


def closure(names):
    """The distributions that some need, themselves included."""
    found, left = {}, list(names)
    while left:
        name = left.pop().lower().replace("_", "-")
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # of another platform
            continue
        if name not in found:
            found[name] = distribution
            needs = map(Requirement, distribution.requires or ())
            left += [each.name for each in needs if not each.marker or each.marker.evaluate({"extra": ""})]
    return found.values()


@pytest.fixture(scope="module")
def light(built, tmp_path_factory):
    """A function that runs a command of a fresh environment: the wheel without dependencies, and LIGHT."""
    folder = tmp_path_factory.mktemp("light")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    [site] = (folder / "venv" / "lib").glob("python3*/site-packages")
    for distribution in closure(LIGHT):
        tops = {Path(file).parts[0] for file in distribution.files or ()}
        for top in tops - {"..", "bin", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(distribution.locate_file(top))
    python = folder / "venv" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", str(built[0])]
    subprocess.run(pip, check=True, capture_output=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}

    def run(command, *words):
        words = [str(folder / "venv" / "bin" / command), *words]
        return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)

    return run


@pytest.mark.slow
def test_a_packed_model_needs_few_packages(light):
    """`pip install --no-deps ablate-vit` beside torch, transformers, safetensors, pydantic and Pillow."""
    used = light("python", "-c", USE)
    assert used.returncode == 0, used.stderr
    rule = "ablate.run_study needs 'pandas', which is not installed; `pip install ablate-vit` installs it"
    assert used.stdout.strip() == rule
    done = light("ablate", "predict", "packed", "one.png", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["class"].startswith("LABEL_")
    assert light("ablate", "ls").returncode == 0
    for words in (["study", "--dry-run"], ["bench", "packed"]):
        refused = light("ablate", *words)
        assert refused.returncode == 2 and refused.stderr.count("\n") == 1, refused
        assert refused.stderr.endswith("which is not installed; `pip install ablate-vit` installs it\n")
    doctor = light("ablate", "doctor", "--json")
    assert doctor.returncode == 1 and "Traceback" not in doctor.stderr
    found = {row["about"]: row for row in json.loads(doctor.stdout)}
    assert found["installation"]["status"] == "ok" and "pip install --upgrade" in found["versions"]["mend"]
