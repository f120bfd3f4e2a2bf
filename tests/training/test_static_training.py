"""Static activation scales in a training: calibrated before it, learned, averaged, interrupted and packed."""

import pytest
import torch
from tiny_training import PLAIN, net, splits, trained

from ablate import BitLinear, LayerSpec, load_packed, pack, quantize_, run_trial
from ablate.config.trial_spec import Recipe, TrialSpec
from ablate.training.trainer import evaluate, train

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
    again = evaluate(model, splits(), PLAIN)
    assert again.loss == epochs[-1].loss
    with pytest.warns(UserWarning, match="skeleton"):
        pack(model, tmp_path)
    packed = load_packed(tmp_path, net("full"))
    pixels = PLAIN(torch.from_numpy(splits().images.transpose(0, 3, 1, 2).copy()))
    assert torch.equal(packed(pixels), torch.from_numpy(again.logits))


def test_an_interrupted_training_goes_on_with_it():
    recipe = Recipe(epochs=3, batch_size=16, bf16=False, augment=False, ema=0.5)
    whole = [*train(one := static_net(), splits(), splits(), recipe, PLAIN, 0)]
    first = next(train(static_net(), splits(), splits(), recipe, PLAIN, 0))
    rest = [*train(other := static_net(), splits(), splits(), recipe, PLAIN, 0, state=first.state)]
    assert [epoch.loss for epoch in rest] == [epoch.loss for epoch in whole[1:]]
    assert all(map(torch.equal, scales(one), scales(other)))


@pytest.mark.long
@pytest.mark.parametrize("length", [{"epochs": 0}, {"image_views": 128}], ids=["untrained", "trained"])
def test_a_trial_is_calibrated_trained_or_not(length):
    recipe = Recipe(validate_every=99, **length)
    layers = {f"block{i}.fc1": STATIC for i in range(6)}
    record = run_trial(TrialSpec(layers=layers, fraction=0.05, recipe=recipe, data="cifar10-1k"))
    assert record["status"] == "complete", record["error"]
    assert record["loss"] < 5
