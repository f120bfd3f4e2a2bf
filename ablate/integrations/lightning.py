"""A callback for Lightning, so that one's own training script uses our layers."""

from typing import Any

from torch import nn

from ablate.integrations.quantized_training import QuantizedTraining

try:
    from lightning.pytorch import Callback
except ImportError:
    try:
        from pytorch_lightning import Callback
    except ImportError:
        advice = "pip install 'ablate-vit[lightning]'"
        raise ImportError(f"ablate.integrations.lightning needs lightning; install it: {advice}") from None


class QuantizeCallback(Callback):
    """Quantizes a model inside a LightningModule, drives lambda, and packs the model at the end.

        callback = QuantizeCallback({"vit.layers.*": LayerSpec(weights="ternary")}, attribute="model")
        Trainer(callbacks=[callback])

    Evaluation is always that of the quantized model.

    Args:
        *args: As of `QuantizedTraining`.
        attribute: The name of the model in the LightningModule; patterns match the names inside it.
        **kwargs: As of `QuantizedTraining`.

    Raises:
        BadInput: As `QuantizedTraining`, and by the Trainer where the model cannot be quantized or packed.
    """

    def __init__(self, *args: Any, attribute: str = "model", **kwargs: Any) -> None:
        self.training, self.attribute = QuantizedTraining(*args, **kwargs), attribute

    def setup(self, trainer: Any, pl_module: nn.Module, stage: str) -> None:
        """Quantize the model, before `configure_optimizers`."""
        if stage == "fit":
            self.training.quantize(pl_module.get_submodule(self.attribute))

    def on_train_start(self, trainer: Any, pl_module: nn.Module) -> None:
        """Begin lambda's schedule."""
        steps = trainer.estimated_stepping_batches
        self.training.start(pl_module.get_submodule(self.attribute), steps)

    def on_train_batch_start(self, trainer: Any, pl_module: nn.Module, batch: Any, batch_idx: int) -> None:
        """Set lambda."""
        self.training.at(trainer.global_step)

    def on_train_end(self, trainer: Any, pl_module: nn.Module) -> None:
        """Pack the model."""
        self.training.end(pl_module.get_submodule(self.attribute), trainer.is_global_zero)
