"""A callback for transformers' `Trainer`, so that one's own training script uses our layers."""

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ablate.integrations.quantized_training import QuantizedTraining


class QuantizeCallback(TrainerCallback):
    """Quantizes the model of a `Trainer`, drives lambda, and packs the model at the end.

        callback = QuantizeCallback({"vit.layers.*": LayerSpec(weights="ternary")})
        Trainer(model, arguments, callbacks=[callback])

    Give it to the Trainer when that is made: the optimizer is made later, and so trains what the layers learn
    beside their weights. Evaluation is always that of the quantized model.

    Args:
        *args: As of `QuantizedTraining`.
        **kwargs: As of `QuantizedTraining`.

    Raises:
        BadInput: As `QuantizedTraining`, and by the Trainer where the model cannot be quantized or packed.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.training = QuantizedTraining(*args, **kwargs)

    def on_init_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Quantize the model."""
        self.training.quantize(kwargs["model"])

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin lambda's schedule."""
        self.training.start(kwargs["model"], state.max_steps)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Set lambda."""
        self.training.at(state.global_step)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Pack the model, once the best one is loaded where `load_best_model_at_end` asks for it."""
        self.training.end(kwargs["model"], state.is_world_process_zero)
