"""torchvision's models: what they are, where they stay full, and how they are counted, packed and refused."""

import hashlib
import json
import socket
import threading
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.models import get_model_weights

from ablate import LayerSpec, load_packed, pack, quantize_
from ablate.config.search_space import load_space
from ablate.config.study_spec import StudySpec
from ablate.engine.plan import plan
from ablate.engine.predict import predict
from ablate.errors import BadInput
from ablate.models import checkpoints, digests, loading, locating, skeletons, torchvision_models
from ablate.models.layer_groups import groups
from ablate.models.unfusing import unfused
from ablate.profiling.macs import count

TEN = [f"class {i}" for i in range(11)]  # eleven: JSON sorts "10" before "2"


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "parameters", "gmacs"),
    [
        ("resnet18", 11_181_642, 1.82),
        ("vgg16", 134_301_514, 15.52),
        ("vit_b_16", 85_806_346, 17.59),
        ("swin_t", 27_527_044, None),
    ],
)
def test_counts_are_those_of_the_paper_and_of_torchvision(name, parameters, gmacs):
    cost = count(checkpoints.load(f"{name}:random", TEN[:10]), (224, 224))
    assert cost.parameters == parameters
    head = 990 * {"resnet18": 512, "vgg16": 4096}.get(name, 768)  # torchvision counts 1,000 classes
    assert cost.macs + head == pytest.approx(get_model_weights(name).DEFAULT.meta["_ops"] * 1e9, rel=0.006)
    assert gmacs is None or cost.macs == pytest.approx(gmacs * 1e9, rel=0.005)


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("resnet18-32", ["head"]),
        ("vgg16-32", ["head"]),
        ("vgg16:random", ["classifier.0", "classifier.3", "head"]),
        (
            "vit_b_16:random",
            [*(f"block{i}.{role}" for i in range(12) for role in ("attention", "fc1", "fc2")), "head"],
        ),
    ],
)
def test_groups(name, layers):
    with torch.device("meta"):
        assert list(groups(unfused(torchvision_models.build(name, TEN)))) == layers


def test_the_small_ones_take_small_images_and_start_from_the_seed():
    pixels = torch.zeros(2, 3, 32, 32)
    for name in ("resnet18-32", "vgg16-32"):
        one, again, other = (checkpoints.load(name, TEN, seed).eval() for seed in (0, 0, 1))
        assert loading.preprocess(name).size == (32, 32) and loading.logits(one, pixels).shape == (2, 11)
        values = [model.state_dict() for model in (one, again, other)]
        conv = next(key for key, value in values[0].items() if value.ndim == 4)
        assert values[0][conv].equal(values[1][conv]) and not values[0][conv].equal(values[2][conv])
    assert (
        checkpoints.load("resnet18-32", TEN).layer1(torch.zeros(1, 64, 32, 32)).shape[-1] == 32
    )  # no pooling before


def test_digests_tell_models_apart():
    names = ["resnet18:random", "resnet18-32", "vgg16:random", "vgg16-32"]
    assert len({digests.digest(name) for name in names}) == 4


def test_weights_that_cannot_be_had_are_never_random_ones(tmp_path, monkeypatch):
    """The host refuses: the error names the file, where it belongs, and the name of the random model."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    with pytest.raises(
        BadInput, match=rf"ImageNet weights, https://.*resnet18.*\.pth into {tmp_path}.*resnet18:random"
    ):
        checkpoints.load("resnet18", TEN)
    assert socket.getdefaulttimeout() is None


def test_a_download_of_weights_leaves_other_sockets_alone(tmp_path):
    """Its time limit leaves other sockets alone; the file's name has the digest of its content."""
    content, timeouts = b"weights", []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            timeouts.append(socket.getdefaulttimeout())
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        (thread := threading.Thread(target=server.serve_forever)).start()
        for name in (good := f"net-{hashlib.sha256(content).hexdigest()[:8]}.pth", "net-00000000.pth"):
            with (
                nullcontext()
                if name == good
                else pytest.raises(OSError, match="sha256 must begin with 00000000")
            ):
                torchvision_models._fetch(
                    f"http://127.0.0.1:{server.server_port}/{name}", tmp_path / "checkpoints" / name
                )
        server.shutdown()
        thread.join()
    assert timeouts == [None, None]
    assert [file.name for file in (tmp_path / "checkpoints").iterdir()] == [good]
    assert (tmp_path / "checkpoints" / good).read_bytes() == content


@pytest.mark.long
def test_weights_in_torchs_cache_are_loaded_under_a_new_head(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    state = torchvision_models.build("resnet18:random", [str(i) for i in range(1000)]).state_dict()
    path = tmp_path / "hub" / "checkpoints" / get_model_weights("resnet18").DEFAULT.url.rpartition("/")[2]
    path.parent.mkdir(parents=True)
    torch.save(state, path)
    model = checkpoints.load("resnet18", TEN)
    assert model.conv1.weight.equal(state["conv1.weight"]) and model.fc.out_features == 11
    before = digests.digest("resnet18")
    torch.save(state | {"conv1.weight": state["conv1.weight"] + 1}, path)
    assert digests.digest("resnet18") != before  # of the values
    path.write_bytes(b"no weights")
    with pytest.raises(BadInput, match=r"cannot load model 'resnet18'.*give resnet18:random"):
        checkpoints.load("resnet18", TEN)


def test_pack_and_load_without_a_skeleton(tmp_path):
    model = checkpoints.load("resnet18-32", TEN).eval()
    quantize_(model, {"fc": LayerSpec(weights="ternary")})
    pack(model, tmp_path, preprocess=loading.preprocess("resnet18-32"))
    loaded, pixels = load_packed(tmp_path), torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert loaded(pixels).equal(model(pixels))
    Image.new("RGB", (32, 32)).save(tmp_path / "black.png")
    with torch.inference_mode():
        best = TEN[
            int(
                model(
                    loading.preprocess("resnet18-32")(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
                ).argmax()
            )
        ]
    assert predict(tmp_path, [tmp_path / "black.png"], exact=True)[0][0] == best


@pytest.mark.parametrize(
    "config", [{}, {"id2label": {"1": "a"}}, {"id2label": ["a"]}, {"id2label": {"0": "a"}, "name": "x"}]
)
def test_a_strangers_description_is_checked(config):
    with pytest.raises(BadInput, match="must be its labels"):
        skeletons.from_config("resnet18-32", "eager", config, 10**9)


def test_another_thread_may_build_a_model_meanwhile(tiny_vit, monkeypatch):
    """Its parameters are not counted as those of the described one, and it gets no error of that."""
    built = []

    def meanwhile(model):
        other = threading.Thread(target=lambda: built.extend(nn.Linear(2, 2) for _ in range(99)))
        other.start()
        other.join()

    monkeypatch.setattr(skeletons, "_compute_buffers", meanwhile)
    config = json.loads((tiny_vit / "config.json").read_text())
    config = {key: value for key, value in config.items() if key not in ("architectures", "dtype")}
    skeletons.from_config("ViTForImageClassification", "eager", config, 40)
    assert len(built) == 99


def test_a_folder_of_the_same_name_is_not_taken_for_the_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "resnet18").mkdir()
    assert locating.absolute("resnet18") == "resnet18" and locating.files("resnet18") == {}


def test_a_plan_says_what_stays_full():
    study = StudySpec(question="?", model="resnet18-32", space=load_space("head_only"))
    assert plan(study).left_out == ("Conv2d is not a linear layer, and only linear layers are quantized",)


def test_convolutions_are_refused_with_the_reason():
    model = checkpoints.load("resnet18-32", TEN)
    with pytest.raises(BadInput, match=r"'layer1\..*Conv2d is not a linear layer.*: fc"):
        quantize_(model, {"layer1*": LayerSpec(weights="binary")})
    assert quantize_(model, {"*": LayerSpec(weights="binary")}) == ["fc"]
