"""Static activation scales in a training: calibrated before it, learned, averaged, interrupted and packed."""

import pytest
import torch
from tiny_training import check_goes_on, check_packed, net, trained

from ablate import BitLinear, LayerSpec, quantize_, run_trial
from ablate.config.trial_spec import Recipe, TrialSpec

STATIC = LayerSpec(weights="binary", activation_scale="static")


def static_net(**fields):
    model = net("full")
    quantize_(model, {"[13]": STATIC.model_copy(update=fields)})
    return model


def scales(model):
    layers = (module for module in model.modules() if isinstance(module, BitLinear))
    return [torch.cat(layer.static()).detach() for layer in layers]


@pytest.mark.parametrize(
    "recipe",
    [{}, {"ema": 0.9}, {"progressive": "linear"}, {"optimizer": "sgd", "learning_rate": 0.03}],
    ids=lambda recipe: [*recipe, ""][0],
)
@pytest.mark.parametrize("signed", [True, False])
def test_it_is_learned_and_is_what_is_evaluated_and_packed(recipe, signed, tmp_path):
    epochs, model = trained(static_net(signed=signed), **recipe)
    layers = [module for module in model.modules() if isinstance(module, BitLinear)]
    assert all(layer.static.gain != 1 for layer in layers)
    check_packed(model, epochs[-1].loss, tmp_path)


def test_an_interrupted_training_goes_on_with_it():
    check_goes_on(static_net, scales)


@pytest.mark.long
@pytest.mark.parametrize("length", [{"epochs": 0}, {"image_views": 128}], ids=["untrained", "trained"])
def test_a_trial_is_calibrated_trained_or_not(length):
    recipe = Recipe(validate_every=99, **length)
    layers = {f"block{i}.fc1": STATIC for i in range(6)}
    record = run_trial(TrialSpec(layers=layers, fraction=0.05, recipe=recipe, data="cifar10-1k"))
    assert record["status"] == "complete", record["error"]
    assert record["loss"] < 5
