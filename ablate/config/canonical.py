"""The canonical form of a trial: what cannot change its outcome is reset, so equal trials have one id."""

import json
from typing import Any

from ablate.config.precisions import TABLE
from ablate.config.trial_spec import LayerSpec, TrialSpec, Value

# Fields that were added after the first records, and the values at which they change nothing. A trial's hash
# leaves these values out. They stay as they are, whatever the defaults become: so a trial that had an id
# keeps it.
OFF: dict[str, Value | None] = {
    "full_epochs": 0,
    "image_views": None,
    "validate_every": 1,
    "schedule": "cosine",
    "warmup_views": 2000,
    "decay": 0.2,
    "beta_per": "tensor",
    "calibration": "mse",
    "straight_through": "plain",
    "distort": False,
    "policy": None,
    "erase": 0.0,
    "mix": 0.0,
    "label_smoothing": 0.0,
    "quantized_rate_multiplier": 1.0,
    "quantized_weight_decay": None,
    "weight_decay_until": 1.0,
    "second_stage": 0.0,
    "second_stage_rate": 0.1,
    "ema": 0.0,
    "progressive": None,
    "progressive_share": 0.5,
    "progressive_order": "together",
    "distill": 0.0,
    "temperature": 2.0,
    "distill_blocks": 0.0,
    "teacher": None,
    "initialise": "checkpoint",
    "initialise_blocks": None,
    "initialiser": "torch",
    "trained": "all",
    "outer_full": False,
    "attention_bits": None,
    "compile": False,
}
USUAL: dict[str, Value | None] = OFF | {
    "epochs": 2,
    "momentum": 0.9,
    "warmup": 0.1,
    "activation_bits": 8,
    "beta": "absmean",
    "beta_multiplier": 1.0,
    "activation_scale": "token",
    "signed": True,
    "norm": False,
}


def effective(spec: TrialSpec) -> TrialSpec:
    """Return the same trial in its canonical form.

    A field that changes nothing has its usual value, and `layers` lacks the layer groups that stay in full
    precision.
    """
    low = {group: layer for group, layer in spec.layers.items() if layer.weights != "full"}
    inner = {group: layer for group, layer in low.items() if not (spec.recipe.outer_full and is_outer(group))}
    layers = {group: layer.model_copy(update=_usual(idle_in(layer))) for group, layer in inner.items()}
    recipe = spec.recipe.model_copy(update=_usual(idle(spec, bool(layers))))
    return spec.model_copy(update={"layers": layers, "recipe": recipe})


def asked(spec: TrialSpec, *, exclude: set[str]) -> dict[str, Any]:
    """Return what identifies a trial, as plain data: its canonical form without the fields that are off.

    Args:
        spec: The trial.
        exclude: Fields of the trial that are left out.
    """

    def on(fields: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in fields.items() if key not in OFF or value != OFF[key]}

    plain = effective(spec).model_dump(exclude=exclude)
    if plain["recipe"]["augment"] == "both":  # does what true does, and did on any data in older versions
        plain["recipe"]["augment"] = True
    return plain | {
        "recipe": on(plain["recipe"]),
        "layers": {group: on(layer) for group, layer in plain["layers"].items()},
    }


def is_outer(group: str) -> bool:
    """Return whether a layer group belongs to the head or to the first block."""
    return group == "head" or group.startswith("block0.")


def _usual(keys: list[str]) -> dict[str, Value | None]:
    return {key: USUAL[key] for key in keys}


def idle(spec: TrialSpec, quantized: bool) -> list[str]:
    """Return the fields of a trial's recipe that change nothing. quantized: whether it has such layers."""
    recipe = spec.recipe
    idle = ["outer_full"]  # `layers` has been changed by it
    idle += ["epochs"] if recipe.image_views else []
    idle += ["momentum"] if recipe.optimizer == "adamw" else []
    idle += ["warmup_views", "decay"] if recipe.schedule == "cosine" else ["warmup"]
    idle += ["temperature"] if recipe.distill == 0 else []
    idle += ["teacher"] if recipe.distill == recipe.distill_blocks == 0 else []
    idle += ["second_stage_rate"] if recipe.second_stage == 0 else []
    if not quantized:
        idle += ["quantized_rate_multiplier", "quantized_weight_decay", "progressive"]
        idle += ["initialise"] if recipe.initialise == "quantized layers at random" else []
    if recipe.trained == "head":  # the model stays in evaluation, which has no lambda
        idle.append("progressive")
    if recipe.initialise == "checkpoint" or "initialise" in idle:
        idle.append("initialiser")
    if recipe.initialise not in ("encoder at random", "encoder and head at random"):
        idle.append("initialise_blocks")
    progressive = recipe.progressive and "progressive" not in idle
    idle += [] if progressive else ["progressive_share", "progressive_order"]
    if recipe.weight_decay == 0 and not (quantized and recipe.quantized_weight_decay):
        idle.append("weight_decay_until")
    return idle


def idle_in(layer: LayerSpec) -> list[str]:
    """Return the fields of a layer that change nothing."""
    if layer.weights == "full":
        return [key for key in LayerSpec.model_fields if key != "weights"]
    idle = []
    if integer := not TABLE[layer.weights].has_beta:
        idle += ["beta", "beta_multiplier", "beta_per"]
    if not isinstance(layer.beta, str):
        idle.append("beta_per")
    if not layer.is_static or layer.activation_bits == 1:
        idle.append("calibration")
    if layer.activation_bits is None:
        idle += ["activation_scale", "signed"]
        idle += ["straight_through"] if integer and layer.straight_through == "clipped" else []
    return idle


def key_of(spec: TrialSpec) -> str:
    """Return a trial as text, equal for equal trials."""
    return json.dumps(spec.model_dump(), sort_keys=True)
