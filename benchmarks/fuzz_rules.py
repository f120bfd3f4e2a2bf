"""The rules of study and space files, written independently of `ablate`: the oracle of the TOML target."""

import math
from collections.abc import Callable, Mapping
from typing import Any

Rule = Callable[[Any], bool]
NAMES = ("accuracy", "loss", "size_bytes", "bitops", "latency_ms", "images", "train_seconds")
DESIGNS = ("ladder", "leave-one-out", "one-factor", "arms", "factorial", "sensitivity", "grid")


def number(value: Any) -> bool:
    return type(value) in (int, float)


def whole(low: int, high: float = math.inf) -> Rule:
    return lambda v: number(v) and (type(v) is int or v.is_integer()) and low <= v <= high


def real(low: float, high: float = math.inf, *, above: bool = False, below: bool = False) -> Rule:
    def holds(v: Any) -> bool:
        return (
            number(v)
            and low <= v <= high
            and math.isfinite(v)
            and not (above and v == low)
            and not (below and v == high)
        )

    return holds


def word(*words: str) -> Rule:
    return lambda v: type(v) is str and v in words


def own(value: Any) -> bool:
    """A user's own object, module:name."""
    if type(value) is not str or ":" not in value:
        return False
    module, name = value.split(":", 1)
    return name.isidentifier() and all(map(str.isidentifier, module.split(".")))


def optional(rule: Rule) -> Rule:
    return lambda v: v == "none" or rule(v)


def either(*rules: Rule) -> Rule:
    return lambda v: any(rule(v) for rule in rules)


def listed(rule: Rule, least: int = 0) -> Rule:
    return lambda v: type(v) is list and len(v) >= least and all(map(rule, v))


def table(rules: Mapping[str, Rule], *needed: str) -> Rule:
    return lambda v: (
        type(v) is dict
        and all(key in rules and rules[key](item) for key, item in v.items())
        and {*needed} <= {*v}
    )


def flag(value: Any) -> bool:
    return type(value) is bool


def text(value: Any) -> bool:
    return type(value) is str and value != "none"


def pattern(value: Any) -> bool:
    return type(value) is str


def numeric(rule: Rule) -> bool:
    """Whether a field's values may be numbers, as those of a range are."""
    return any(rule(v) for v in (0.5, 1, 2, 10))


def axis(rule: Rule, each: bool) -> Rule:
    """A value, choices that differ, a range, or for layers choices that each group makes."""

    def choices(v: Any) -> bool:
        return listed(rule, 1)(v) and len({(type(x) is bool, x) for x in v}) == len(v)

    def between(v: Any) -> bool:
        ends = (
            type(v) is dict
            and {"low", "high"} <= {*v} <= {"low", "high", "log"}
            and flag(v.get("log", False))
        )
        fits = ends and numeric(rule) and all(number(v[end]) and rule(v[end]) for end in ("low", "high"))
        return fits and v["low"] < v["high"] and (v["low"] > 0 or not v.get("log"))

    def own(v: Any) -> bool:
        return each and type(v) is dict and {*v} == {"each"} and choices(v["each"])

    return either(rule, choices, between, own)


PARTS = ("quantized layers", "encoder", "encoder and head", "all")
LAYER = {
    "weights": word("full", "binary", "ternary", "int4", "int8"),
    "activation_bits": optional(whole(1, 8)),
    "beta": either(word("absmean", "least_squares", "learned"), real(0, above=True)),
    "beta_multiplier": real(0, above=True),
    "beta_per": word("tensor", "channel"),
    "activation_scale": word("token", "tensor", "batch", "static"),
    "calibration": word("mse", "max", "percentile"),
    "signed": flag,
    "norm": either(flag, word("unnormalised")),
    "straight_through": optional(word("plain", "clipped")),
}
RECIPE = {
    "epochs": whole(0, 100_000),
    "full_epochs": whole(0, 100_000),
    "image_views": optional(whole(1, 10**12)),
    "validate_every": whole(1),
    "batch_size": whole(1, 10**6),
    "optimizer": word("adamw", "sgd"),
    "learning_rate": real(0, above=True),
    "weight_decay": real(0),
    "momentum": real(0, 1, below=True),
    "schedule": word("cosine", "wsd"),
    "warmup": real(0, 1, below=True),
    "warmup_views": whole(0, 10**12),
    "decay": real(0, 1, above=True),
    "clip_norm": optional(real(0, above=True)),
    "augment": either(flag, word("shift", "flip", "both")),
    "distort": flag,
    "policy": optional(word("randaugment", "trivialaugment", "autoaugment")),
    "erase": real(0, 1),
    "mix": real(0, 100),
    "initialise": word("checkpoint", *(f"{part} at random" for part in PARTS)),
    "initialise_blocks": optional(whole(0, 100_000)),
    "initialiser": either(word("torch"), real(0, above=True)),
    "trained": word("all", "head"),
    "label_smoothing": real(0, 1, below=True),
    "quantized_rate_multiplier": real(0, above=True),
    "quantized_weight_decay": optional(real(0)),
    "weight_decay_until": real(0, 1),
    "second_stage": real(0, 1, below=True),
    "second_stage_rate": real(0, 1, above=True),
    "ema": real(0, 1, below=True),
    "progressive": optional(word("linear", "sigmoid")),
    "progressive_share": real(0, 1, above=True),
    "progressive_order": word("together", "depth"),
    "distill": real(0, 1),
    "temperature": real(0, above=True),
    "distill_blocks": real(0),
    "teacher": lambda v: type(v) is str and v != "",
    "outer_full": flag,
    "attention_bits": optional(whole(2, 8)),
    "bf16": either(flag, word("auto")),
    "compile": flag,
}
FRACTION = real(0, 1, above=True)
IN_SPACES = RECIPE | {"bf16": flag}  # of a recipe's fields in a space
OBJECTIVES = listed(word(*NAMES))
SPACE = {
    "name": text,
    "description": text,
    "objectives": lambda v: OBJECTIVES(v) and len(set(v)) == len(v),
    "groups": listed(pattern, 1),
    "layer": table({key: axis(rule, True) for key, rule in LAYER.items()}, "weights"),
    "recipe": table({key: axis(rule, False) for key, rule in IN_SPACES.items()}),
    "fraction": axis(FRACTION, False),
}


def pair(rule: Rule) -> Rule:
    return lambda v: type(v) is list and len(v) == 2 and all(map(rule, v))


TUNE = table({key: listed(rule, 1) for key, rule in RECIPE.items()})
STEP = {
    "name": lambda v: text(v) and bool(v),
    "source": text,
    "groups": listed(pattern),
    "layer": table(LAYER),
    "recipe": table(RECIPE),
    "tune": TUNE,
}
STOPPING = {
    "over": word("epochs", "fraction"),
    "reduction": whole(2, 1000),
    "first": whole(1),
    "rungs": whole(1, 10),
}
STUDY = {
    **dict.fromkeys(("name", "question", "source", "cost", "expected", "command", "model", "data"), text),
    "space": either(text, table(SPACE, "description", "layer")),
    "objectives": SPACE["objectives"],
    "trials": whole(1, 10**6),
    "hours": optional(real(0, above=True)),
    "seed": whole(0, 2**32 - 1),
    "recipe": table(RECIPE),
    "design": either(word("search", *DESIGNS), listed(word(*DESIGNS))),
    "points": optional(whole(2)),
    "seeds": whole(1, 10_000),
    "tune": TUNE,
    "tune_at": table(dict.fromkeys(("fraction", "image_views"), pair(real(0, above=True)))),
    "tuning_seeds": whole(1, 1000),
    "anchor_seeds": whole(1, 100),
    "grid_extension": whole(0, 10),
    "base": lambda v: text(v) and v != "",
    "steps": listed(table(STEP, "name")),
    "reference": optional(table(STEP, "name")),
    "gap_margin": real(0, 1, above=True, below=True),
    "slope_margin": real(0, 1, above=True, below=True),
    "relative_margin": real(0, 1, above=True, below=True),
    "sampler": either(word("additive", "tpe", "nsga2", "gp", "random"), own),
    "early_stopping": optional(table(STOPPING)),
    "confirm": whole(0, 1000),
    "max_size_bytes": optional(whole(1)),
    "max_bitops": optional(real(0, above=True)),
    "max_latency_ms": optional(real(0, above=True)),
    "min_accuracy": optional(real(0, 1, above=True)),
}
FIELDS = sorted({*STUDY, *SPACE, *STEP, *STOPPING, *RECIPE, *LAYER, "low", "high", "log", "each", "step"})


def broken(data: dict[str, Any], rules: Mapping[str, Rule], *needed: str) -> str:
    """The first key whose rule a file breaks; "" where there is none."""
    absent = [key for key in needed if key not in data]
    return next(
        (key for key, value in data.items() if key not in rules or not rules[key](value)), "".join(absent[:1])
    )


def choices_of(value: Any) -> float:
    """How many values an axis has."""
    if type(value) is dict and "low" in value:
        return math.inf
    return len(value["each"]) if type(value) is dict else len(value) if type(value) is list else 1


def on(value: Any, given: Any) -> bool:
    """Whether a value lies on an axis as it stands in the file."""
    if type(given) is dict and "low" in given:
        return number(value) and given["low"] <= value <= given["high"]
    listed = given["each"] if type(given) is dict else given if type(given) is list else [given]
    return any(
        (type(v) is bool) == (type(value) is bool) and (v == value or (v == "none" and value is None))
        for v in listed
    )
