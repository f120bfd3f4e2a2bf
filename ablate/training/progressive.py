"""Progressive quantization: layers become quantized gradually during training."""

import math

import torch
from torch import nn

from ablate.config.trial_spec import Recipe
from ablate.models.layer_groups import groups, linear_layers
from ablate.quantization.bitlinear import BitLinear


class Ramp:
    """The schedule of lambda, from 0 (full precision) to 1 (quantized), over a model's BitLinear layers.

    Args:
        model: The model to train. Its layers are quantized fully until the first call of `at`.
        recipe: Gives the ramp's shape, its share of the steps, and whether layer groups follow each other.
        steps: Of the whole training.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, steps: int) -> None:
        layers = linear_layers(model)
        quantized = {name: layer for name, layer in layers.items() if isinstance(layer, BitLinear)}
        if recipe.progressive_order == "together":
            self.stages = [[*quantized.values()]]
        else:
            members = [[quantized[n] for n in names if n in quantized] for names in groups(model).values()]
            self.stages = [stage for stage in members if stage]  # one after the other: arXiv 2505.08823
        self.shape = recipe.progressive
        self.end = math.ceil(recipe.progressive_share * steps) if self.shape else 0
        self._set([1.0] * len(self.stages))

    def at(self, step: int) -> None:
        """Set the lambdas of a step. Does nothing once all of them are 1."""
        if step <= self.end and self.shape:
            n = len(self.stages)
            self._set([_lambda(step / self.end * n - i, self.shape) for i in range(n)])

    def _set(self, lambdas: list[float]) -> None:
        for layers, value in zip(self.stages, lambdas, strict=True):
            ramp = None if value == 1 or not layers else torch.tensor(value, device=layers[0].weight.device)
            for layer in layers:
                layer.ramp = ramp


def _lambda(t: float, shape: str) -> float:
    """From 0 at t = 0 to 1 at t = 1: linear, or the logistic function of 12 t - 6, rescaled to reach both."""
    t = min(1.0, max(0.0, t))
    if shape == "linear":
        return t
    low, high, value = (1 / (1 + math.exp(-x)) for x in (-6, 6, 12 * t - 6))
    return (value - low) / (high - low)
