"""`ablate push`: the folder of a repository, its card, and its upload to a hub on loopback."""

import pytest
import yaml
from commands import run_ablate
from forgery import header_of, intact
from hub_server import TOKEN, Hub
from huggingface_hub import constants

from ablate import LayerSpec, load_packed
from ablate.config.study_spec import StudySpec
from ablate.config.trial_spec import TrialSpec
from ablate.quantization.packed_files import read
from ablate.runs.ledger import append
from ablate.runs.record import blank_record
from ablate.runs.run import create_run

LAYERS = {"block0.fc1": LayerSpec(weights="binary"), "block1.fc2": LayerSpec(weights="ternary")}
SECRET = "a-folder-of-mine"


@pytest.fixture
def run(tiny_vit, tmp_path):
    """A run of two trials, the front confirmed with three seeds, and the small one's weights."""
    question = "which | layers,\nand why?"
    space = {
        "name": "s",
        "description": "d",
        "layer": {"weights": "full"},
        "objectives": ["accuracy", "size_bytes"],
    }
    study = StudySpec(question=question, space=space, confirm=3, model=str(tmp_path / SECRET / "my-vit"))
    made = create_run(tmp_path / "run", study, {"git_commit": "c0ffee", "versions": {"torch": "2.14"}})
    for layers, accuracy, size in (({}, 0.61, 1000), (LAYERS, 0.52, 300)):
        for seed in range(4):
            spec = TrialSpec(model=study.model, layers=layers, seed=seed, test=study.test if seed else False)
            record = blank_record(spec, f"{len(layers)}{seed}" + "0" * 10) | {
                "status": "complete",
                "loss": 1.0,
            }
            record |= {"accuracy": accuracy + seed / 100, "size_bytes": size, "images": 100, "steps": 8}
            if seed:
                record |= {"test_accuracy": accuracy - seed / 100, "test_loss": 1.0}
            append(made.path / "ledger.jsonl", record)
    weights = made.path / "weights" / ("20" + "0" * 10)
    weights.mkdir(parents=True)
    for name, content in intact(tiny_vit, tmp_path / "packed").items():
        (weights / name).write_bytes(content)
    return made.path


def push(folder, *words):
    return run_ablate(folder, "push", *map(str, words))


@pytest.mark.long
def test_the_repository_of_a_run(run, tmp_path):
    done = push(tmp_path, "run", "--trial", "20", "--to", "./small", "--license", "apache-2.0")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "small"
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert {*files} == {"config.json", "model.safetensors", "README.md", "front.png", "layers.png"}
    card = files["README.md"].decode()
    _, metadata, text = card.split("---\n", 2)
    about = yaml.safe_load(metadata)
    assert about["license"] == "apache-2.0" and about["pipeline_tag"] == "image-classification"
    assert "base_model" not in about and {"binary", "ternary", "int4", "int8"} <= {*about["tags"]}
    for said in (
        'model = load_packed("small")',
        "which \\| layers, and why?",
        "| accuracy | the validation images | 52.0% |",
        "![The trials of the study and their front](front.png)\n\n![Precision of each layer group in",
        "1 binary, 1 ternary",
        "2 of 2 complete trials are on the front",
        "| trial | layers | accuracy | size |",
        "| 3 | 54.0% (50.4% to 57.6%) | 50.0% (46.4% to 53.6%) |",
        "| `vit.layers.N.mlp.fc1` | 0, 1 | ternary | 8 bit |",
        header_of(files)["sha256"],
        "c0ffee",
        "`apache-2.0`",
    ):
        assert said in text, said
    assert SECRET not in card and str(tmp_path) not in card, "a card says nothing of the machine"
    assert load_packed(folder)
    again = push(tmp_path, "small", "--to", "./copy")  # of a packed folder
    copied = (tmp_path / "copy" / "README.md").read_text()
    assert again.returncode == 0 and "## Front" not in copied and "Not stated" in copied
    assert (tmp_path / "copy" / "config.json").read_bytes() == files["config.json"]


@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "--trial", "20", "--to", "small"], "--to must be USER/NAME, or a folder such as ./NAME"),
        (["run", "--trial", "20", "--to", "me/small@main"], "--to must be USER/NAME"),
        (["run", "--to", "./small"], "say which trial"),
        (["run", "--trial", "0", "--to", "./small"], "no trial whose id starts with '0'"),
        (["packed", "--trial", "20", "--to", "./small"], "are for a run"),
        (["packed", "--to", "./run"], "--to must be a new folder"),
        (["nowhere", "--to", "./small"], "nowhere"),
        (["packed", "--to", "./small", "--license", "Apache 2"], "--license must be an identifier"),
        (["packed", "--to", "me/small"], "needs a token, and there is none; run `hf auth login`"),
    ],
)
def test_refusals(words, said, run, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    before = {*tmp_path.iterdir()}
    done = push(tmp_path, *words)
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert {*tmp_path.iterdir()} == before


@pytest.mark.long
def test_an_upload(run, tmp_path, monkeypatch):
    """huggingface_hub's own client talks to a server that keeps commits and checks hashes and the token."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    words = ["run", "--max-size-bytes", "400", "--to", "me/small"]
    done = push(tmp_path, *words)
    assert done.returncode == 1 and "does not answer" in done.stderr and done.stderr.count("\n") == 1
    with Hub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        assert push(tmp_path, *words, "--dry-run").returncode == 0 and not hub.requests
        done = push(tmp_path, *words, "--private")
        assert done.returncode == 0, done.stderr
        files = hub.files("me/small")
        assert done.stdout.strip() == f"{hub.url}/me/small/commit/{hub.repositories['me/small']['main']}"
        asked = hub.repositories["me/small"]["asked"]  # by the version of huggingface_hub
        assert asked.get("private") is True or asked.get("visibility") == "private"
        dry = {file.name: file.read_bytes() for file in (tmp_path / "small").iterdir()}
        assert {*files} == {*dry} and all(
            files[name] == dry[name] for name in files if not name.endswith("png")
        )
        assert 'load_packed("me/small")' in files["README.md"].decode()
        first = hub.repositories["me/small"]["main"]
        assert push(tmp_path, "packed", "--to", "me/small").returncode == 0  # another commit
        assert hub.repositories["me/small"]["main"] != first
        for to, token in (("you/small", TOKEN), ("me/small", "hf_other")):
            monkeypatch.setenv("HF_TOKEN", token)
            done = push(tmp_path, "packed", "--to", to)
            assert done.returncode == 2 and "does not let this token write" in done.stderr
            assert done.stderr.count("\n") == 1 and token not in done.stderr
    (tmp_path / "back").mkdir()
    for name, content in files.items():
        (tmp_path / "back" / name).write_bytes(content)
    assert read(tmp_path / "back")[0] == read(tmp_path / "packed")[0]
