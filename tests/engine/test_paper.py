"""studies/paper.toml, by the steps of the paper's section 2.4, with a small ViT at 224 px."""

import dataclasses
import logging

import pytest
import torch
from torch.nn.modules.module import register_module_forward_pre_hook
from torchvision.transforms.v2 import functional as tv
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from ablate import BitLinear, run_trial
from ablate.config.study_spec import load_study
from ablate.data import datasets
from ablate.models import checkpoints
from ablate.models.layer_groups import groups, linear_layers
from ablate.search.experiment_design import Design
from ablate.training.optim import optimizer_of
from ablate.training.trial import build


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The study with a local model: 2 blocks of width 32, 16 px patches, random weights."""
    folder = tmp_path_factory.mktemp("models") / "vit224"
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    ViTForImageClassification(ViTConfig(**sizes)).save_pretrained(folder)
    ViTImageProcessor().save_pretrained(folder)
    return load_study("paper").model_copy(update={"model": str(folder), "data": "cifar10-mini"})


@pytest.fixture(scope="module")
def cells(study):
    """The design's cells by name, as trials."""
    found = groups(checkpoints.load(study.model, datasets.CIFAR10))
    return {name: cell.spec for name, cell in Design(study, list(found)).cells.items()}


@pytest.fixture(scope="module")
def few():
    """70 training images and few others, at their native 32 px."""
    whole, sizes = datasets.load("cifar10-mini"), {"train": 70, "validation": 20, "test": 30}
    parts = {
        name: datasets.Split(getattr(whole, name).images[:n], getattr(whole, name).labels[:n])
        for name, n in sizes.items()
    }
    return dataclasses.replace(whole, **parts)


@pytest.mark.parametrize("part", ["classifier", "encoder"])
@pytest.mark.parametrize(("named", "beta"), [("8", 8.0), ("mean |W|", "absmean")])
def test_each_reading_replaces_what_it_says(cells, part, named, beta):
    model = build(cells[f"1-bit {part}, beta = {named}"], datasets.CIFAR10)
    linear = linear_layers(model)
    replaced = {name for name, module in linear.items() if isinstance(module, BitLinear)}
    assert len(linear) == 2 * 6 + 1
    assert replaced == ({"classifier"} if part == "classifier" else set(linear) - {"classifier"})
    for name in replaced:
        spec = linear[name].spec
        assert (spec.weights, spec.activation_bits, spec.beta, spec.beta_multiplier) == ("binary", 8, beta, 1)
        assert spec.activation_scale == "tensor" and spec.norm is True  # figures 4 and 7


@pytest.mark.long
def test_a_trial_does_every_step(cells, few, caplog):
    spec = cells["1-bit encoder, beta = mean |W|"]
    recipe = spec.recipe.model_copy(update={"batch_size": 1, "learning_rate": 0.01, "bf16": False})
    assert type(optimizer_of(build(spec, few.classes), recipe)) is torch.optim.SGD
    assert recipe.distill == recipe.label_smoothing == 0  # cross-entropy alone
    calls = []

    def look(module, inputs):
        if isinstance(module, ViTForImageClassification):
            calls.append((module, module.training, inputs[0]))

    caplog.set_level(logging.INFO, "ablate")
    handle = register_module_forward_pre_hook(look)
    try:
        record = run_trial(spec.model_copy(update={"recipe": recipe, "test": True}), few)
    finally:
        handle.remove()
    assert record["status"] == "complete" and record["error"] is None
    built = [module for module, *_ in calls]
    trained = max(built, key=built.count)  # the others are copies, on which a random image was tried
    seen = [(training, pixels) for module, training, pixels in calls if module is trained]
    assert {pixels.shape[1:] for _, pixels in seen} == {
        (3, 224, 224)
    }  # steps 3 and 5: resized, a tensor, normalised
    image = torch.from_numpy(few.validation.images[0]).permute(2, 0, 1)
    expected = (
        tv.resize(image, [224, 224], tv.InterpolationMode.BILINEAR, antialias=True) / 255 * 2 - 1
    )  # mean and SD 0.5
    validated = [pixels for training, pixels in seen if not training and len(pixels) == len(few.validation)]
    assert len(validated) == 3 and torch.allclose(
        validated[0][0], expected, atol=1e-5
    )  # step 6: after each epoch
    assert [row["epoch"] for row in record["curve"]] == [1, 2, 3]
    assert all(0 < row["loss"] < 10 and 0 <= row["accuracy"] <= 1 for row in record["curve"])
    logged = [entry.getMessage() for entry in caplog.records]
    assert [line.rpartition(" ")[0] for line in logged] == ["step 200 of 210: training loss"]
    assert 0 <= record["test_accuracy"] <= 1
    tested = [len(pixels) for training, pixels in seen if not training and len(pixels) == len(few.test)]
    assert len(tested) == 1  # once, at the end
