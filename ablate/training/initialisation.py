"""Random weights in place of a checkpoint's, for the parts of a model that a recipe names."""

import re
from collections.abc import Iterable

import torch
from torch import nn

from ablate.config.trial_spec import Recipe
from ablate.models import heads, layer_groups
from ablate.quantization.bitlinear import BitLinear


def initialise(model: nn.Module, recipe: Recipe, seed: int) -> None:
    """Give the parts of a model that `recipe.initialise` names random weights.

    Args:
        model: Changed in place. Its own random state and that of torch stay as they are.
        recipe: Names the parts, and the initialiser of linear layers.
        seed: Of the weights. Any device has the same.
    """
    if recipe.initialise == "checkpoint":
        return
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(seed)  # the CPU's
        if recipe.initialise == "all at random":
            _renew(model, seed)
        for layer in _linear(model, recipe):
            _draw(layer, recipe)


def _linear(model: nn.Module, recipe: Recipe) -> Iterable[nn.Linear]:
    """The linear layers to initialise, in the model's order."""
    if recipe.initialise == "quantized layers at random":
        return [layer for layer in model.modules() if isinstance(layer, BitLinear)]
    layers = layer_groups.linear_layers(model)
    groups = {name: group for group, names in layer_groups.groups(model).items() for name in names}
    return [layer for name, layer in layers.items() if _begins(groups[name], recipe)]


def _begins(group: str, recipe: Recipe) -> bool:
    """Whether the linear layers of a group begin at random."""
    if group == "head":
        return recipe.initialise != "encoder at random"
    block = re.match(r"block(\d+)\.", group)
    return not block or recipe.initialise_blocks is None or int(block[1]) < recipe.initialise_blocks


def _renew(model: nn.Module, seed: int) -> None:
    """Initialise all modules as the model's library does."""
    if hasattr(model, "initialize_weights"):
        return heads.renew(model, model.modules(), seed)
    for module in model.modules():
        if callable(reset := getattr(module, "reset_parameters", None)):
            reset()


def _draw(layer: nn.Linear, recipe: Recipe) -> None:
    if isinstance(layer, BitLinear) and layer.gain is not None:
        layer.gain.fill_(1.0)
    if recipe.initialiser == "torch":
        fresh = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None)
        values = {key: value.view_as(layer.get_parameter(key)) for key, value in fresh.state_dict().items()}
        layer.load_state_dict(layer.state_dict() | values)
        return
    layer.weight.copy_(torch.normal(0.0, recipe.initialiser, layer.weight.shape))
    if layer.bias is not None:
        layer.bias.zero_()
