"""`compile` in a recipe, and studies that need a model with blocks."""

import shutil

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from ablate import LayerSpec
from ablate.config.study_spec import StudySpec
from ablate.config.trial_spec import Recipe, TrialSpec, checked
from ablate.data import datasets
from ablate.data.datasets import Split
from ablate.engine.plan import plan
from ablate.errors import BadInput
from ablate.models import loading
from ablate.training.compilation import compiled
from ablate.training.trainer import train
from ablate.training.trial import build, teacher_spec, trial_id

BINARY = LayerSpec(weights="binary")


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch.compile's own
@pytest.mark.slow
def test_blocks_are_compiled_once_a_kind_and_for_training_alone(tiny_vit):
    layers = {f"block0.{part}": BINARY for part in ("attention", "fc1", "fc2")}
    recipe = {
        "epochs": 4,
        "batch_size": 20,
        "bf16": False,
        "progressive": "linear",
        "ema": 0.9,
        "distill_blocks": 0.5,
    }
    images, curves = datasets.load("cifar10-mini").validation, []
    images = Split(images.images[:40], images.labels[:40])  # 8 steps, the first 4 with another lambda each
    torch.compiler.reset()
    before = counters["stats"]["unique_graphs"]
    for compile in (False, True):
        spec = TrialSpec(model=str(tiny_vit), layers=layers, recipe=Recipe(**recipe, compile=compile))
        model, full = (build(each, datasets.CIFAR10) for each in (spec, teacher_spec(spec)))
        epochs = train(model, images, images, spec.recipe, loading.preprocess(str(tiny_vit)), 0, full.eval())
        curves.append([(epoch.train_loss, epoch.loss) for epoch in epochs])
        assert "forward" not in vars(model.vit.layers[0])
    assert np.allclose(*curves, rtol=0.01)
    assert counters["stats"]["unique_graphs"] - before == 3  # binary with and without lambda, full


def test_compiled_or_not_is_another_trial():
    assert trial_id(TrialSpec()) != trial_id(TrialSpec(recipe=Recipe(compile=True)))


def test_compile_needs_blocks():
    blockless, reason = (
        nn.Sequential(nn.Flatten(), nn.Linear(192, 2)),
        r"compile needs a model with blocks.*set compile = false",
    )
    with pytest.raises(BadInput, match=reason), compiled(blockless, on=True):
        pass


@pytest.mark.parametrize("field", ["compile", "distill_blocks"])
@pytest.mark.parametrize("where", ["recipe", "space", "step"])
def test_a_study_that_needs_blocks_is_refused_before_it_begins(field, where):
    value = True if field == "compile" else 0.5
    space = {"description": "d", "layer": {"weights": "full"}}
    study = {
        "question": "?",
        "model": "resnet18-32",
        "design": "arms",
        "steps": [{"name": "a"}, {"name": "b"}],
        "space": space,
    }
    if where == "step":
        study["steps"][1]["recipe"] = {field: value}
    elif where == "recipe":
        study["recipe"] = {field: value}
    else:
        study = {
            "question": "?",
            "model": "resnet18-32",
            "space": space | {"recipe": {field: [type(value)(0), value]}},
        }
    with pytest.raises(
        BadInput, match=f"{field} needs a model with blocks, and 'resnet18-32' has none; set {field}"
    ):
        plan(checked(StudySpec, study, "study"))
