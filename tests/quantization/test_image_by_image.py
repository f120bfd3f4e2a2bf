"""With the tensor's activation scale, too, an image's answer in evaluation is its own."""

import copy

import numpy as np
import onnxruntime
import pytest
import torch
import transformers

from ablate import BitLinear, LayerSpec, load_packed, pack, quantize_, run_trial
from ablate.config.trial_spec import Recipe, TrialSpec
from ablate.data import datasets
from ablate.models import checkpoints, loading
from ablate.models.layer_groups import linear_layers
from ablate.models.loading import logits
from ablate.quantization.onnx_export import to_onnx
from ablate.runs.ledger import append, read
from ablate.training import evaluation

TENSOR = LayerSpec(weights="int8", activation_bits=4, activation_scale="tensor", signed=False)


def tiny(family):
    torch.manual_seed(0)
    small = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "image_size": 32,
    }
    windows = {
        "image_size": 32,
        "patch_size": 2,
        "embed_dim": 16,
        "depths": [2, 2],
        "num_heads": [2, 2],
        "window_size": 4,
    }
    fields = {"ViT": {**small, "patch_size": 8}, "Swin": windows, "Swinv2": windows}[family]
    config = getattr(transformers, f"{family}Config")(**fields)
    return getattr(transformers, f"{family}ForImageClassification")(config).eval()


@pytest.mark.parametrize("family", ["ViT", "Swin", "Swinv2"])
def test_together_is_as_alone(family):
    """Also where a layer sees windows and not images, or a table that has no images at all."""
    model, pixels = tiny(family), torch.randn(6, 3, 32, 32) * torch.logspace(-1, 1, 6)[:, None, None, None]
    quantize_(model, dict.fromkeys(linear_layers(model), TENSOR))
    with torch.inference_mode():
        alone = torch.cat([logits(model, image[None]) for image in pixels])
        torch.testing.assert_close(logits(model, pixels), alone)
        torch.testing.assert_close(model(pixel_values=pixels[:3]).logits, alone[:3])
        torch.testing.assert_close(logits(copy.deepcopy(model), pixels), alone)
    assert {layer.images for layer in model.modules() if isinstance(layer, BitLinear)} == {None}


def test_after_an_exception_a_layer_knows_of_no_images():
    model, x = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.Linear(5, 3)), torch.randn(6, 8)
    quantize_(model, {"0": TENSOR})
    alone = model.eval()[0](x)
    with pytest.raises(RuntimeError):
        model(x)
    assert model[0].images is None and torch.equal(model[0](x), alone)


def test_in_training_the_scale_is_the_batchs():
    model = torch.nn.Sequential(torch.nn.Linear(8, 4))
    quantize_(model, {"0": TENSOR})
    x = torch.randn(5, 8) * torch.logspace(-1, 1, 5)[:, None]
    assert torch.equal(model.train()(x), model[0].train()(x)) and not torch.equal(
        model.eval()(x), model[0].eval()(x)
    )


def test_the_batch_may_share_its_scale_in_evaluation(tmp_path):
    """As figure 4 reads; and its packed layer does the same."""
    model, shared = tiny("ViT"), TENSOR.model_copy(update={"activation_scale": "batch"})
    quantize_(model, dict.fromkeys(linear_layers(model), shared))
    pixels = torch.randn(6, 3, 32, 32) * torch.logspace(-1, 1, 6)[:, None, None, None]
    pack(model, tmp_path)
    with torch.inference_mode():
        together = logits(model, pixels)
        assert not torch.allclose(together[:1], logits(model, pixels[:1]))
        assert torch.equal(together, logits(load_packed(tmp_path), pixels))


@pytest.mark.parametrize("shape", [(8,), (0, 8), (2, 0, 8)])
def test_one_token_or_none(shape):
    model, x = torch.nn.Sequential(torch.nn.Linear(8, 4)), torch.randn(shape)
    quantize_(model, {"0": TENSOR})
    model.eval()
    assert model(x).shape == (*shape[:-1], 4)
    torch.testing.assert_close(model(x), model(x[None])[0])


@pytest.mark.long
def test_packed_and_evaluated_at_any_size_and_recorded(tiny_vit, tmp_path, monkeypatch):
    spec = TrialSpec(
        model=str(tiny_vit),
        layers={"block0.fc1": TENSOR},
        fraction=0.01,
        recipe=Recipe(epochs=1, bf16=False, validate_every=9),
    )
    accuracies = []
    for n in (3, 50):
        monkeypatch.setitem(evaluation.AT_ONCE, "cpu", n)
        record = run_trial(spec)
        accuracies.append((record["accuracy"], record["loss"]))
    assert accuracies[0] == pytest.approx(accuracies[1]) and record["evaluation_batch"] == 1
    shared = {"block0.fc1": TENSOR.model_copy(update={"activation_scale": "batch"})}
    assert run_trial(spec.model_copy(update={"layers": shared}))["evaluation_batch"] == evaluation.SHARING
    model, preprocess = checkpoints.load(str(tiny_vit), datasets.CIFAR10), loading.preprocess(str(tiny_vit))
    quantize_(model, {"vit.layers.*": TENSOR})
    pack(model, tmp_path, preprocess=preprocess)
    pixels = torch.randn(4, 3, 32, 32)
    with torch.inference_mode():
        packed = logits(load_packed(tmp_path), pixels)
        assert packed.equal(logits(model, pixels))
        torch.testing.assert_close(packed[2:3], logits(load_packed(tmp_path), pixels[2:3]))


@pytest.mark.slow
def test_onnx_takes_each_image_by_itself(tiny_vit, tmp_path):
    model, preprocess = checkpoints.load(str(tiny_vit), datasets.CIFAR10), loading.preprocess(str(tiny_vit))
    quantize_(model, {"vit.layers.*": TENSOR})
    pack(model, tmp_path, preprocess=preprocess)
    to_onnx(tmp_path, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    pixels = (
        np.random.default_rng(0).normal(size=(4, 3, 32, 32)) * [[[[0.1]]], [[[1]]], [[[3]]], [[[9]]]]
    ).astype(np.float32)
    (together,) = session.run(None, {"pixels": pixels})
    alone = np.concatenate([session.run(None, {"pixels": image[None]})[0] for image in pixels])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_a_ledger_without_the_field_is_read(tmp_path):
    from ablate.runs.record import blank_record

    old = blank_record(TrialSpec(), "x")
    assert old.pop("evaluation_batch", 0) is None
    append(tmp_path / "ledger.jsonl", old)
    assert read(tmp_path / "ledger.jsonl") == [old | {"evaluation_batch": None}]
