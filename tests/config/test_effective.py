"""Every part of a recipe in a search: each can be searched, and what changes nothing leaves no trace."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate import BitLinear, LayerSpec, quantize_
from ablate.config.canonical import OFF, asked, effective
from ablate.config.search_space import SpaceSpec
from ablate.config.study_spec import StudySpec
from ablate.config.trial_spec import Recipe, TrialSpec, checked
from ablate.engine.latency_stage import _measure_layers
from ablate.models import checkpoints
from ablate.search.searcher import Search

BINARY = LayerSpec(weights="binary")
RECIPE = {
    "initialise": ["checkpoint", "quantized layers at random", "encoder at random", "all at random"],
    "initialise_blocks": ["none", 1],
    "initialiser": ["torch", 0.02],
    "trained": ["all", "head"],
    "distort": [False, True],
    "policy": ["none", "randaugment", "trivialaugment", "autoaugment"],
    "erase": [0.0, 0.25],
    "mix": [0.0, 0.8],
    "full_epochs": [0, 1],
    "image_views": ["none", 500],
    "validate_every": [1, 2],
    "schedule": ["cosine", "wsd"],
    "warmup": [0.0, 0.1],
    "warmup_views": [0, 2000],
    "decay": [0.2, 0.5],
    "optimizer": ["adamw", "sgd"],
    "weight_decay": [0.0, 0.05],
    "momentum": [0.8, 0.9],
    "label_smoothing": [0.0, 0.1],
    "quantized_rate_multiplier": {"low": 0.5, "high": 4.0, "log": True},
    "quantized_weight_decay": ["none", 0.0, 0.1],
    "weight_decay_until": [0.5, 1.0],
    "second_stage": [0.0, 0.25],
    "second_stage_rate": {"low": 0.05, "high": 0.2},
    "ema": {"low": 0.9, "high": 0.999},
    "progressive": ["none", "linear", "sigmoid"],
    "progressive_share": {"low": 0.6, "high": 1.0},
    "progressive_order": ["together", "depth"],
    "distill": [0.0, 0.5],
    "temperature": [1.0, 2.0, 4.0],
    "distill_blocks": [0.0, 1.0],
    "teacher": ["none", "some/teacher"],
    "outer_full": [False, True],
    "attention_bits": ["none", 8],
    "compile": [False, True],
}
LAYER = {
    "weights": {"each": ["full", "binary", "int8"]},
    "activation_bits": ["none", 8],
    "beta": ["absmean", "learned", 8.0],
    "beta_per": ["tensor", "channel"],
    "activation_scale": ["token", "static"],
    "calibration": ["mse", "max"],
    "norm": [False, True, "unnormalised"],
    "straight_through": ["plain", "clipped", "none"],
}
GROUPS = ["block0.fc1", "block1.fc1", "head"]


def search(layer, recipe, groups=GROUPS):
    space = checked(SpaceSpec, {"description": "d", "layer": layer, "recipe": recipe}, "space")
    return Search(StudySpec(question="?", space=space), groups)


def test_every_part_can_be_searched():
    assert set(OFF) <= set(RECIPE) | set(LAYER)
    asking = search(LAYER, RECIPE)
    specs = [asking.ask() for _ in range(40)]
    for key in RECIPE:
        assert len({getattr(spec.recipe, key) for spec in specs}) > 1 or key == "outer_full", key
    for key in LAYER:
        assert len({getattr(layer, key) for spec in specs for layer in spec.layers.values()}) > 1, key
    assert all(0.9 <= spec.recipe.ema <= 0.999 for spec in specs)


@pytest.mark.long
@settings(deadline=None, max_examples=200)
@given(st.integers(0, 10**6), st.sampled_from([{}, {"quantized_weight_decay": {"low": 0.01, "high": 0.2}}]))
def test_a_trial_leads_back_to_its_point(seed, other):
    points, rng = search(LAYER, RECIPE | other).points, np.random.default_rng(seed)
    spec = points.spec_at(points.draw(rng))
    point = points.point(spec)
    assert points.spec_at(point) == spec == effective(spec)
    for name, axis in points.distributions.items():
        assert axis._contains(axis.to_internal_repr(point[name])), name


@pytest.mark.parametrize(
    ("layer", "recipe", "distinct"),
    [
        ({}, {"distill": [0.0, 0.5], "temperature": [1.0, 2.0, 4.0]}, 1 + 3),
        ({}, {"distill": [0.0, 0.5], "teacher": ["none", "a/b", "a/c"]}, 1 + 3),
        ({}, {"progressive": ["none", "linear"], "progressive_order": ["together", "depth"]}, 1 + 2),
        ({}, {"second_stage": [0.0, 0.2], "second_stage_rate": [0.1, 0.2]}, 1 + 2),
        ({}, {"optimizer": ["adamw", "sgd"], "momentum": [0.5, 0.9]}, 1 + 2),
        ({}, {"schedule": ["cosine", "wsd"], "warmup": [0.0, 0.1], "decay": [0.1, 0.2]}, 2 + 2),
        ({"weights": ["full", "binary"]}, {"quantized_weight_decay": [0.0, 0.1]}, 1 + 2),
        ({}, {"weight_decay": [0.0, 0.1], "weight_decay_until": [0.5, 1.0]}, 1 + 2),
        ({"weights": ["full", "binary"]}, {"quantized_rate_multiplier": [1.0, 2.0]}, 1 + 2),
        ({"weights": ["full", "binary"]}, {"progressive": ["none", "linear"]}, 1 + 2),
        ({"weights": ["full", "binary"]}, {"outer_full": [False, True]}, 1 + 2),
        ({"weights": {"each": ["full", "binary"]}}, {"outer_full": [False, True]}, 8),
        ({"beta": ["absmean", 8.0], "beta_per": ["tensor", "channel"]}, {}, 2 + 1),
        ({"weights": ["binary", "int4"], "beta_per": ["tensor", "channel"]}, {}, 2 + 1),
        (
            {"weights": "int4", "activation_bits": ["none", 8], "straight_through": ["plain", "clipped"]},
            {},
            1 + 2,
        ),
    ],
)
def test_what_has_no_effect_leaves_no_trace(layer, recipe, distinct):
    asking = search({"weights": "binary", **layer}, recipe)
    found = list(itertools.takewhile(lambda spec: spec is not None, iter(asking.ask, 0)))
    assert len(found) == len({str(spec) for spec in found}) == distinct


def test_parts_that_are_off_change_no_id():
    spec = TrialSpec(layers={"head": BINARY})
    plain = asked(spec, exclude=set())
    assert not set(OFF) & (set(plain["recipe"]) | set(plain["layers"]["head"]))
    assert asked(spec.model_copy(update={"recipe": Recipe(temperature=9.0)}), exclude=set()) == plain
    assert asked(spec.model_copy(update={"recipe": Recipe(label_smoothing=0.1)}), exclude=set()) != plain


def test_a_layer_that_stays_full_changes_no_id():
    spec = TrialSpec(layers={"head": BINARY})
    assert effective(
        TrialSpec(layers={"head": BINARY, "block0.fc1": LayerSpec(activation_bits=4)})
    ) == effective(spec)
    assert effective(TrialSpec(layers={"head": LayerSpec()})) == effective(TrialSpec())


@pytest.mark.long
def test_latencies_are_measured_of_the_steps_of_a_design_too(tiny_vit):
    steps = [
        {"name": name, "layer": {"weights": name, "activation_scale": "tensor"}}
        for name in ("binary", "int8")
    ]
    fields = {
        "question": "?",
        "space": {"description": "d", "layer": {"weights": "full"}},
        "design": "arms",
        "steps": steps,
    }
    table = _measure_layers(checked(StudySpec, {**fields, "model": str(tiny_vit)}, "study"), ["a", "b"], {})
    for step in steps:
        model = checkpoints.load(str(tiny_vit), ["a", "b"])
        quantize_(model, {"*": LayerSpec(**step["layer"])})
        assert table.sum({name: m.spec for name, m in model.named_modules() if isinstance(m, BitLinear)}) > 0


@pytest.mark.long
def test_latencies_are_measured_with_and_without_the_norm(tiny_vit):
    layer = {"weights": "binary", "norm": [False, "unnormalised"], "beta_per": ["tensor", "channel"]}
    space = checked(SpaceSpec, {"description": "d", "layer": layer}, "space")
    table = _measure_layers(StudySpec(question="?", space=space, model=str(tiny_vit)), ["a", "b"], {})
    model = checkpoints.load(str(tiny_vit), ["a", "b"])
    quantize_(model, {"*": LayerSpec(weights="binary", norm="unnormalised", beta_per="channel")})
    assert table.sum({name: m.spec for name, m in model.named_modules() if isinstance(m, BitLinear)}) > 0
