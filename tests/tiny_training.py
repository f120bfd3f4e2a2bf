"""What trainings in tests share: two classes of tiny images, and a model of three layers that learns them."""

import numpy as np
import pytest
import torch
from torch import nn

from ablate import LayerSpec, load_packed, pack, quantize_
from ablate.config.trial_spec import Recipe
from ablate.data.datasets import Split
from ablate.models.preprocessing import Preprocess
from ablate.training.evaluation import evaluate
from ablate.training.trainer import train

PLAIN = Preprocess((8, 8), None, "bilinear", 1 / 255, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def splits(n=60):
    """Two classes that brightness tells apart."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 2
    images = (
        (rng.integers(0, 100, (n, 8, 8, 3)) + 150 * labels[:, None, None, None]).clip(0, 255).astype(np.uint8)
    )
    return Split(images, labels)


def net(weights="binary"):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(192, 16), nn.GELU(), nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 2)
    )
    if weights != "full":
        quantize_(model, {"[13]": LayerSpec(weights=weights)})
    return model


def trained(model=None, teacher=None, **recipe):
    """(epochs, the model after them)."""
    model = model or net()
    recipe = Recipe(**{"epochs": 2, "batch_size": 16, "bf16": False, "augment": False, **recipe})
    return list(train(model, splits(), splits(), recipe, PLAIN, 0, teacher)), model


def check_packed(model, loss, folder):
    """Asserts that a trained model evaluates to its loss, and packed to the same logits."""
    again = evaluate(model, splits(), PLAIN)
    assert again.loss == loss
    with pytest.warns(UserWarning, match="skeleton"):
        pack(model, folder)
    pixels = PLAIN(torch.from_numpy(splits().images.transpose(0, 3, 1, 2).copy()))
    assert torch.equal(load_packed(folder, net("full"))(pixels), torch.from_numpy(again.logits))


def check_goes_on(build, learned):
    """Asserts that a training that stopped after an epoch ends as one that did not.

    Args:
        build: Makes the model.
        learned: What is compared at the end, of a model.
    """
    recipe = Recipe(epochs=3, batch_size=16, bf16=False, augment=False, ema=0.5)
    whole = [*train(one := build(), splits(), splits(), recipe, PLAIN, 0)]
    first = next(train(build(), splits(), splits(), recipe, PLAIN, 0))
    rest = [*train(other := build(), splits(), splits(), recipe, PLAIN, 0, state=first.state)]
    assert [epoch.loss for epoch in rest] == [epoch.loss for epoch in whole[1:]]
    assert all(map(torch.equal, learned(one), learned(other)))
