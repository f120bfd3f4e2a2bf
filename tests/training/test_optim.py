"""Learning rates, weight decay and averaged weights."""

import numpy as np
import pytest
from tiny_training import PLAIN, net, splits, trained
from torch import nn

from ablate.config.trial_spec import Recipe
from ablate.training.evaluation import evaluate
from ablate.training.optim import averaged, optimizer_of, rate, switch_weight_decay


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_quantized_weights_have_a_rate_and_a_decay_of_their_own(optimizer):
    model = net()
    recipe = Recipe(
        optimizer=optimizer, learning_rate=0.01, quantized_rate_multiplier=3, quantized_weight_decay=0.2
    )
    groups = {p: group for group in optimizer_of(model, recipe).param_groups for p in group["params"]}
    assert set(groups) == set(model.parameters())
    for name, p in model.named_parameters():
        lr, wd = {"1.weight": (0.03, 0.2), "3.weight": (0.03, 0.2), "5.weight": (0.01, 0.05)}.get(
            name, (0.01, 0)
        )
        assert (groups[p]["lr"], groups[p]["weight_decay"]) == (pytest.approx(lr), wd), name
    as_the_others = optimizer_of(model, Recipe()).param_groups
    assert [group["weight_decay"] for group in as_the_others] == [0.05, 0.05, 0.0]


def test_decay_is_off_after_its_share_of_the_steps():
    optimizer = optimizer_of(net(), Recipe(quantized_weight_decay=0.2))
    for on, expected in ((True, [0.2, 0.05, 0.0]), (False, [0, 0, 0]), (True, [0.2, 0.05, 0.0])):
        switch_weight_decay(optimizer, on)
        assert [group["weight_decay"] for group in optimizer.param_groups] == expected
    options = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 5.0}
    always, half, never = (
        trained(**options, weight_decay_until=share)[1][5].weight for share in (1.0, 0.5, 0.0)
    )
    assert always.norm() < half.norm() < never.norm()
    assert never.equal(trained(**options | {"weight_decay": 0.0})[1][5].weight)


def test_the_second_stage_is_a_low_cosine():
    rates = [
        rate(step, 100, Recipe(warmup=0.1, second_stage=0.2, second_stage_rate=0.05)) for step in range(100)
    ]
    assert rates[:80] == [rate(step, 80, Recipe(warmup=0.1)) for step in range(80)]
    assert rates[80] == 0.05 and rates[90] == pytest.approx(0.025) and 0 < rates[99] < 0.001
    # A scheduler also computes the rate after the last step; no step is in the second stage here.
    assert 0 <= rate(2, 2, Recipe(second_stage=0.2)) <= 1
    assert trained(second_stage=0.5)[0][-1].loss != trained()[0][-1].loss


def test_averaged_weights_follow_the_formula():
    model = nn.Linear(1, 1, bias=False)
    average, expected = averaged(model, 0.9), None
    for n, weight in enumerate([1.0, 3.0, -2.0, 5.0] * 30):
        nn.init.constant_(model.weight, weight)
        average.update_parameters(model)
        d = min(0.9, (1 + n) / (10 + n))
        expected = weight if n == 0 else d * expected + (1 - d) * weight
        assert average.module.weight.item() == pytest.approx(expected, rel=1e-5)
    restored = averaged(model, 0.9)
    restored.load_state_dict(average.state_dict())
    assert restored.module.weight.equal(average.module.weight) and averaged(model, 0.0) is None


def test_averaged_weights_are_evaluated_and_kept():
    plain, raw = trained()
    epochs, model = trained(ema=0.99)
    assert epochs[-1].train_loss == plain[-1].train_loss  # the training itself is the same
    assert epochs[-1].loss != plain[-1].loss
    assert not model[3].weight.equal(raw[3].weight) and not model[3].weight.equal(net()[3].weight)
    assert np.array_equal(evaluate(model, splits(), PLAIN).logits, epochs[-1].logits)
