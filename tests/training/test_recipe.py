"""Parts of a recipe against what their comments in ablate/config/trial_spec.py say."""

import math

import pytest
import torch

from ablate import BitLinear, LayerSpec, quantize_
from ablate.config.search_space import SpaceSpec
from ablate.config.study_spec import StudySpec, load_study
from ablate.config.trial_spec import Recipe, TrialSpec, checked
from ablate.engine import estimate
from ablate.engine.estimate import _anchor
from ablate.engine.plan import plan
from ablate.errors import BadInput
from ablate.models import checkpoints
from ablate.training.trial import build, resolved, trial_id

BINARY, SHORT = LayerSpec(weights="binary"), {"epochs": 1, "bf16": False}


def test_the_head_and_the_first_block_stay_full(tiny_vit):
    groups = [
        "block0.attention",
        "block0.fc1",
        "block0.fc2",
        "block1.attention",
        "block1.fc1",
        "block1.fc2",
        "head",
    ]
    whole = TrialSpec(
        model=str(tiny_vit), layers=dict.fromkeys(groups, BINARY), fraction=0.01, recipe=Recipe(**SHORT)
    )
    inner = whole.model_copy(update={"layers": {g: BINARY for g in groups if g.startswith("block1")}})
    kept = whole.model_copy(update={"recipe": Recipe(**SHORT, outer_full=True)})
    assert resolved(kept) == inner and trial_id(kept) == trial_id(inner) != trial_id(whole)
    model = build(kept, ["a", "b"])
    assert sorted({name.split(".")[2] for name, m in model.named_modules() if isinstance(m, BitLinear)}) == [
        "1"
    ]


def test_norm_where_the_input_is_not_normalised(tiny_vit):
    model = checkpoints.load(str(tiny_vit), ["a", "b"])
    quantize_(model, {"*": LayerSpec(weights="binary", norm="unnormalised")})
    normed = {
        name.rpartition(".")[2]: m.spec.norm for name, m in model.named_modules() if isinstance(m, BitLinear)
    }
    assert normed == dict.fromkeys(["q_proj", "k_proj", "v_proj", "fc1", "classifier"], False) | {
        "o_proj": True,
        "fc2": True,
    }
    with pytest.raises(BadInput, match="norm of a single layer must be true or false"):
        BitLinear(2, 2, norm="unnormalised")


@pytest.mark.parametrize("bits", [None, 1, 2, 8])
def test_clipped_gradients_vanish_outside_the_range(bits):
    fields = {"weights": "ternary", "activation_bits": bits, "beta_multiplier": 1.5}
    clipped, plain = BitLinear(40, 6, straight_through="clipped", **fields), BitLinear(40, 6, **fields)
    plain.load_state_dict(clipped.state_dict())
    x = torch.randn(9, 40)
    grads = []
    for layer in (clipped, plain):
        z = x.clone().requires_grad_()
        y = layer(z)
        y.square().sum().backward()
        grads.append((y, z.grad, layer.weight.grad))
    assert grads[0][0].equal(grads[1][0])  # forwards, nothing changes
    w = clipped.weight.detach()
    assert grads[0][2].equal(grads[1][2] * (w.abs() <= 1.5 * w.abs().mean()))
    if bits is None:
        limit = torch.full((9, 1), math.inf)
    elif bits == 1:
        limit = x.abs().mean(1, keepdim=True)
    else:
        limit = x.abs().amax(1, keepdim=True) * (2 ** (bits - 1) - 1) / 2 ** (bits - 1)
    inside = x.abs() <= limit
    assert grads[0][1].equal(grads[1][1] * inside) and (bits is None or not inside.all())


def test_a_model_too_slow_for_a_batch_is_timed_on_fewer_images(tiny_vit, monkeypatch):
    planned, sizes, real = (
        plan(load_study("default").model_copy(update={"model": str(tiny_vit)})),
        [],
        estimate.train,
    )
    monkeypatch.setattr(
        estimate,
        "train",
        lambda model, images, *more: sizes.append(len(images)) or real(model, images, *more),
    )
    assert _anchor(planned, planned.anchors[0], seconds=1e-9)["images_per_second"] > 0
    assert sizes == [2, 2]
    assert (estimate._short(0.004), estimate._short(0.123), estimate._short(83.4)) == (0.004, 0.12, 83)


def test_an_estimate_of_a_distilling_study_has_a_teacher_to_time(tiny_vit):
    space = checked(SpaceSpec, {"description": "d", "layer": {"weights": "binary"}}, "space")
    planned = plan(
        StudySpec(question="?", space=space, model=str(tiny_vit), recipe=Recipe(**SHORT, distill=0.5))
    )
    assert _anchor(planned, planned.anchors[0], seconds=0.01)["images_per_second"] > 0
