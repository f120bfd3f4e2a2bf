"""The gain of a learned beta: how it is trained, averaged, interrupted and begun."""

import pytest
import torch
from tiny_training import check_goes_on, check_packed, net, trained

from ablate import BitLinear, LayerSpec, quantize_, run_trial
from ablate.config.trial_spec import Recipe, TrialSpec
from ablate.training.initialisation import initialise
from ablate.training.optim import optimizer_of
from ablate.training.trial import build, load_data, prepare, trial_id

LEARNED = LayerSpec(weights="binary", beta="learned")
SHORT = {"epochs": 1, "bf16": False}


def learned_net(**fields):
    model = net("full")
    quantize_(model, {"[13]": LayerSpec(weights="binary", beta="learned", **fields)})
    return model


def gains(model):
    return [layer.gain.detach().clone() for layer in model.modules() if isinstance(layer, BitLinear)]


def test_it_is_trained_without_weight_decay():
    groups = optimizer_of(learned_net(), Recipe(weight_decay=0.5, quantized_weight_decay=0.5)).param_groups
    (group,) = (g for g in groups if any(p.shape == (1,) for p in g["params"]))
    assert group["weight_decay"] == 0.0
    still = learned_net()
    for parameter in still.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer_of(still, Recipe(weight_decay=0.5)).step()
    assert gains(still) == [1.0, 1.0]


@pytest.mark.parametrize(
    "recipe", [{}, {"ema": 0.9}, {"progressive": "linear"}], ids=lambda recipe: [*recipe, ""][0]
)
def test_it_changes_in_training_and_is_what_is_evaluated_and_packed(recipe, tmp_path):
    epochs, model = trained(learned_net(beta_per="channel"), **recipe)
    assert all((gain != 1).any() for gain in gains(model))
    check_packed(model, epochs[-1].loss, tmp_path)


def test_an_interrupted_training_goes_on_with_it():
    check_goes_on(learned_net, gains)


def test_parts_that_begin_at_random_begin_at_one(tiny_vit):
    spec = TrialSpec(model=str(tiny_vit), layers={"block1.fc1": LEARNED})
    model = build(spec, ["a", "b"])
    (layer,) = (layer for layer in model.modules() if isinstance(layer, BitLinear))
    for kind in ("quantized layers at random", "encoder at random", "all at random"):
        torch.nn.init.constant_(layer.gain, 3.0)
        initialise(model, Recipe(initialise=kind), 0)
        assert layer.gain == 1, kind


@pytest.mark.long
def test_it_begins_at_one_after_full_precision(tiny_vit, tmp_path, monkeypatch):
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path))
    spec = TrialSpec(
        model=str(tiny_vit),
        layers={"block1.fc1": LEARNED},
        fraction=0.01,
        recipe=Recipe(**SHORT, full_epochs=1),
    )
    dataset = load_data(spec.data, spec.model)
    model, before = (build(spec, dataset.classes) for _ in range(2))
    prepare(spec, 1, dataset, model)
    assert gains(model) == [1.0]
    assert not model.classifier.weight.equal(before.classifier.weight)


@pytest.mark.long
def test_a_trial_of_it(tiny_vit):
    """It is another trial than that of mean|W|, its size is as large, and it ends elsewhere."""
    fields = {"model": str(tiny_vit), "fraction": 0.05, "recipe": Recipe(**SHORT, learning_rate=0.01)}
    learned, plain = (
        TrialSpec(layers={"block1.fc1": layer}, **fields) for layer in (LEARNED, LayerSpec(weights="binary"))
    )
    assert trial_id(learned) != trial_id(plain)
    one, other = run_trial(learned), run_trial(plain)
    assert one["status"] == other["status"] == "complete" and one["loss"] != other["loss"]
    assert one["size_bytes"] == other["size_bytes"]
