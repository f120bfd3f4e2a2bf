"""Layers that become quantized step by step while a model trains."""

import math

import torch
from torch import nn

from ablate.config.trial_spec import Recipe
from ablate.models.layer_groups import groups, linear_layers
from ablate.quantization.bitlinear import BitLinear


class Ramp:
    """lambda of progressive quantization: after `at(step)` the model's BitLinear layers have the step's."""

    def __init__(self, model: nn.Module, recipe: Recipe, steps: int) -> None:
        layers = linear_layers(model)
        quantized = {name: layer for name, layer in layers.items() if isinstance(layer, BitLinear)}
        grouped = [
            [quantized[name] for name in names if name in quantized] for names in groups(model).values()
        ]
        together = recipe.progressive_order == "together"
        self.stages = (
            [[*quantized.values()]] if together else [stage for stage in grouped if stage]
        )  # arXiv 2505.08823
        self.shape, self.end = (
            recipe.progressive,
            math.ceil(recipe.progressive_share * steps) if recipe.progressive else 0,
        )
        self._set([1.0] * len(self.stages))

    def at(self, step: int) -> None:
        """Costs nothing once lambda is 1 everywhere."""
        if step <= self.end and self.shape:
            self._set(
                [_lambda(step / self.end * len(self.stages) - i, self.shape) for i in range(len(self.stages))]
            )

    def _set(self, lambdas: list[float]) -> None:
        for layers, value in zip(self.stages, lambdas, strict=True):
            ramp = None if value == 1 or not layers else torch.tensor(value, device=layers[0].weight.device)
            for layer in layers:
                layer.ramp = ramp


def _lambda(t: float, shape: str) -> float:
    """From 0 at t = 0 to 1 at t = 1: linear, or the logistic function of 12 t - 6, stretched to reach both."""
    t = min(1.0, max(0.0, t))
    if shape == "linear":
        return t
    low, high, here = (1 / (1 + math.exp(-x)) for x in (-6, 6, 12 * t - 6))
    return (here - low) / (high - low)
