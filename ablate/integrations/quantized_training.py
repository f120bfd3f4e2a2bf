"""What the callbacks of Trainer and Lightning share: quantize a model, drive lambda, pack at the end."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from torch import nn

from ablate.config.trial_spec import LayerSpec, Recipe
from ablate.errors import BadInput
from ablate.models.preprocessing import Preprocess
from ablate.paths import local_path
from ablate.quantization.attention import attention_bits
from ablate.quantization.bitlinear import BitLinear
from ablate.quantization.packing import check_target, pack
from ablate.quantization.quantize import quantize_
from ablate.quantization.wrappers import unwrapped
from ablate.training.progressive import Ramp


class QuantizedTraining:
    """Quantizes a model before its training, drives lambda in each step, and packs it at the end.

    Args:
        precisions: By shell-style pattern on layer names, the precision, as for `quantize_`.
        progressive: How the quantized layers fade in, "linear" or "sigmoid"; None: they are quantized from
            the first step on.
        progressive_share: The fraction of the steps after which they are quantized fully.
        progressive_order: "together", or "depth": one layer group after the other, the first one first.
        pack_to: The folder for the packed model; None: it is not packed.
        preprocess: The image processing to store there, such as `ablate.models.preprocess("my-vit")`.
        attention_bits: Of the operands of the attention products, as for `quantize_`; None: floats.

    Raises:
        BadInput: `pack_to` has a model that `pack` did not write.
        ValidationError: Another value is out of range (pydantic's, a ValueError).
    """

    def __init__(
        self,
        precisions: Mapping[str, LayerSpec],
        *,
        progressive: Literal["linear", "sigmoid"] | None = None,
        progressive_share: float = 0.5,
        progressive_order: Literal["together", "depth"] = "together",
        pack_to: str | Path | None = None,
        preprocess: Preprocess | None = None,
        attention_bits: int | None = None,
    ) -> None:
        self.precisions, self.preprocess, self.attention_bits = precisions, preprocess, attention_bits
        self.recipe = Recipe(
            progressive=progressive, progressive_share=progressive_share, progressive_order=progressive_order
        )
        self.pack_to = None if pack_to is None else local_path(pack_to).absolute()
        if self.pack_to is not None:
            check_target(self.pack_to)  # now, and not after hours of training

    def quantize(self, model: nn.Module) -> None:
        """Quantize the model, before its optimizer is made. Raises BadInput as `quantize_`."""
        quantize_(model, self.precisions, attention_bits=self.attention_bits)

    def start(self, model: nn.Module, steps: float) -> None:
        """Begin the schedule of lambda over the steps of the training.

        Args:
            model: The quantized model.
            steps: Of the optimizer, in all.

        Raises:
            BadInput: The model is not quantized, or the steps have no end.
        """
        model = unwrapped(model)
        has_layers = any(isinstance(layer, BitLinear) for layer in model.modules())
        if not has_layers and attention_bits(model) is None:
            rule = "the model must be quantized before its optimizer is made"
            raise BadInput(
                f"{rule}; give the callback to the trainer when that is made, with the model itself"
            )
        if not math.isfinite(steps):
            if self.recipe.progressive:
                raise BadInput(
                    "progressive quantization needs an end of the training; set max_steps or max_epochs"
                )
            steps = 0
        self.ramp = Ramp(model, self.recipe, int(steps))

    def at(self, step: int) -> None:
        """Set the lambdas of a step, counted from 0."""
        self.ramp.at(step)

    def end(self, model: nn.Module, writes: bool) -> None:
        """Quantize fully, and pack the model.

        Args:
            model: As it was trained.
            writes: Whether this process is the one that writes.

        Raises:
            BadInput: As `pack`.
        """
        self.ramp.at(self.ramp.end)
        if writes and self.pack_to is not None:
            pack(model, self.pack_to, preprocess=self.preprocess)
