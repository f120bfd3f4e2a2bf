"""Which parts of a model begin at random weights, and which of them learn."""

import math

import pytest
import torch
from torchvision.models import resnet18

from ablate import BitLinear, LayerSpec, quantize_
from ablate.config.trial_spec import Recipe, TrialSpec
from ablate.errors import BadInput
from ablate.models import layer_groups
from ablate.models.checkpoints import load
from ablate.models.loading import logits, preprocess
from ablate.training.initialisation import initialise
from ablate.training.trainer import train
from ablate.training.trial import build, load_data, prepare, resolved, teacher_spec, trial_id

BINARY, SHORT = LayerSpec(weights="binary"), {"epochs": 1, "bf16": False}


def test_quantized_layers_may_begin_at_random(tiny_vit):
    spec = TrialSpec(model=str(tiny_vit), layers={"block1.fc1": BINARY}, recipe=Recipe(**SHORT))
    anew = spec.model_copy(update={"recipe": Recipe(**SHORT, initialise="quantized layers at random")})
    assert trial_id(spec) != trial_id(anew)
    draws = torch.get_rng_state()
    begun, models = build(spec, ["a", "b"]).state_dict(), [build(anew, ["a", "b"]) for _ in range(2)]
    assert torch.equal(draws, torch.get_rng_state())  # training has its own draws
    one, other = (model.state_dict() for model in models)
    differ = [name for name in begun if not torch.equal(begun[name], one[name])]
    assert {name.rpartition(".")[0] for name in differ} == {
        name for name, layer in models[0].named_modules() if isinstance(layer, BitLinear)
    }
    assert all(torch.equal(one[name], other[name]) for name in one)
    plain = spec.model_copy(update={"layers": {}, "recipe": anew.recipe})
    assert resolved(plain).recipe.initialise == "checkpoint"  # nothing is quantized


@pytest.mark.long
def test_random_layers_begin_anew_after_full_precision(tiny_vit, tmp_path, monkeypatch):
    """All other layers have the checkpoint's weights, whatever the precision."""
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path))
    models = {}
    for kind in ("checkpoint", "quantized layers at random"):
        recipe = Recipe(**SHORT, full_epochs=1, initialise=kind)
        layers = {"block1.fc1": LayerSpec(weights="int8")}
        spec = TrialSpec(model=str(tiny_vit), layers=layers, fraction=0.01, recipe=recipe)
        dataset = load_data(spec.data, spec.model)
        models[kind] = build(spec, dataset.classes)
        prepare(spec, 1, dataset, models[kind])
    trained, anew = (model.state_dict() for model in models.values())
    differ = {name for name in trained if not torch.equal(trained[name], anew[name])}
    layer = "vit.layers.1.mlp.fc1"
    assert differ == {name for name in trained if name.startswith(layer)} and len(differ) == 2


@pytest.mark.parametrize(
    ("kind", "begins"),
    [
        ("encoder at random", lambda group: group.startswith("block")),
        ("encoder and head at random", lambda group: True),
    ],
)
def test_linear_layers_begin_at_random_whatever_their_precision(tiny_vit, kind, begins):
    recipe = Recipe(**SHORT, initialise=kind, initialiser=0.5)
    spec = TrialSpec(model=str(tiny_vit), layers={"block1.fc1": BINARY}, recipe=recipe)
    before = build(spec.model_copy(update={"recipe": Recipe(**SHORT)}), ["a", "b"])
    model = build(spec, ["a", "b"])
    layers, groups = layer_groups.linear_layers(model), layer_groups.groups(model)
    anew = {name for group, names in groups.items() if begins(group) for name in names}
    tensors = {f"{name}.{part}" for name in anew for part in ("weight", "bias")}
    old = before.state_dict()
    assert {
        name for name, value in model.state_dict().items() if not torch.equal(value, old[name])
    } <= tensors
    for name in anew:
        weight = layers[name].weight
        assert not torch.equal(weight, old[f"{name}.weight"]) and not layers[name].bias.any()
        assert weight.std().item() == pytest.approx(0.5, rel=5 / math.sqrt(weight.numel()))
    plain = spec.model_copy(update={"layers": {}})
    assert resolved(plain).recipe.initialise == kind  # also where nothing is quantized
    assert teacher_spec(spec).recipe.initialise == "checkpoint"
    first = spec.model_copy(update={"recipe": recipe.model_copy(update={"initialise_blocks": 1})})
    weight = build(first, ["a", "b"]).state_dict()["vit.layers.1.mlp.fc2.weight"]
    assert torch.equal(weight, old["vit.layers.1.mlp.fc2.weight"])


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_all_begins_at_random(tiny_vit, kind):
    made = {"vit": lambda: load(str(tiny_vit), ["a", "b"]), "resnet": lambda: resnet18(num_classes=2)}[kind]
    recipe, model, other = Recipe(initialise="all at random"), made(), made()
    with torch.no_grad():
        for value in (*model.parameters(), *other.parameters()):
            value.fill_(7.0)  # none that an initialiser gives
    draws = torch.get_rng_state()
    initialise(model, recipe, 3)
    initialise(other, recipe, 3)
    assert torch.equal(draws, torch.get_rng_state())
    for (name, value), twin in zip(model.named_parameters(), other.parameters(), strict=True):
        assert not (value == 7.0).any() and torch.equal(value, twin), name


def test_the_head_alone_learns(tiny_vit):
    data = load_data("cifar10-mini", str(tiny_vit))
    model = load(str(tiny_vit), data.classes)
    quantize_(model, {"vit.layers.0.*": BINARY})
    before = {name: value.clone() for name, value in model.state_dict().items()}
    recipe, images = Recipe(**SHORT, trained="head", ema=0.5, weight_decay=0.1), data.validation
    (epoch,) = train(model, images, data.validation, recipe, preprocess(str(tiny_vit)), seed=0)
    after = model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"classifier.weight", "classifier.bias"} and epoch.train_loss < math.log(10) + 0.1
    assert all(value.requires_grad for value in model.parameters())
    trial = TrialSpec(
        layers={"block0.fc1": BINARY}, recipe=recipe.model_copy(update={"progressive": "linear"})
    )
    assert resolved(trial).recipe.progressive is None  # evaluation has no lambda


def test_a_model_without_a_head_has_none_that_learns_alone(tiny_vit):
    data = load_data("cifar10-mini", str(tiny_vit))
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 10, 32), torch.nn.Flatten())
    steps = train(
        model, data.test, data.test, Recipe(**SHORT, trained="head"), preprocess(str(tiny_vit)), seed=0
    )
    with pytest.raises(BadInput, match='trained = "head" needs a model whose head'):
        next(steps)


def test_without_a_gradient_of_rounding_quantized_weights_never_learn(tiny_vit):
    model = load(str(tiny_vit), ["a", "b"])
    quantize_(model, {"vit.layers.0.*": LayerSpec(weights="binary", straight_through=None)})
    logits(model.train(), torch.randn(2, 3, 32, 32)).sum().backward()
    for name, layer in model.named_modules():
        if isinstance(layer, BitLinear):
            assert layer.weight.grad is None and layer.bias.grad.any(), name
    assert model.vit.embeddings.cls_token.grad.any()  # activations pass it on
