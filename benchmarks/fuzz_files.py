"""Study and space files from scratch: known keys with values that mostly fit, and extreme files."""

from collections.abc import Callable
from random import Random
from typing import Any

from fuzz_rules import DESIGNS, NAMES
from fuzz_values import NUMBERS, OTHERS, TABLES, TIMES, near

LAYER: dict[str, list[Any]] = {
    "weights": ["full", "binary", "ternary", "int4", "int8"],
    "activation_bits": [1, 2, 4, 8, 8.0, "none"],
    "beta": ["absmean", "least_squares", "learned", 8, 8.0, 0.5, 5e-324],
    "beta_multiplier": [0.25, 0.5, 1, 1.0, 2.0, 1e308],
    "beta_per": ["tensor", "channel"],
    "activation_scale": ["token", "tensor", "batch", "static"],
    "calibration": ["mse", "max", "percentile"],
    "signed": [True, False],
    "norm": [True, False, "unnormalised"],
    "straight_through": ["plain", "clipped", "none"],
}
RECIPE: dict[str, list[Any]] = {
    "epochs": [0, 1, 2, 100, 100_000],
    "full_epochs": [0, 1, 100_000],
    "image_views": [1, 3000, 10**12, "none"],
    "validate_every": [1, 2, 1000, 10**9],
    "batch_size": [1, 64, 10**6],
    "optimizer": ["adamw", "sgd"],
    "learning_rate": [1e-3, 0.1, 1, 5e-324, 1e308],
    "weight_decay": [0, 0.0, -0.0, 0.05],
    "momentum": [0.0, 0.9, 1 - 2**-53],
    "schedule": ["cosine", "wsd"],
    "warmup": [0, 0.1],
    "warmup_views": [0, 2000],
    "decay": [0.2, 1],
    "clip_norm": [1.0, "none", 1],
    "augment": [True, False],
    "distort": [True, False],
    "policy": ["none", "randaugment", "trivialaugment", "autoaugment"],
    "erase": [0.0, 0.25, 1],
    "mix": [0.0, 0.8],
    "initialise": ["checkpoint", "quantized layers at random", "encoder at random", "all at random"],
    "initialise_blocks": ["none", 1],
    "initialiser": ["torch", 0.02],
    "trained": ["all", "head"],
    "label_smoothing": [0.0, 0.1],
    "quantized_rate_multiplier": [1, 0.1],
    "quantized_weight_decay": ["none", 0.0, 0.1],
    "weight_decay_until": [0, 0.5, 1],
    "second_stage": [0, 0.3],
    "second_stage_rate": [0.1, 1],
    "ema": [0.0, 0.99],
    "progressive": ["none", "linear", "sigmoid"],
    "progressive_share": [0.5, 1],
    "progressive_order": ["together", "depth"],
    "distill": [0, 0.5, 1],
    "temperature": [2.0, 4],
    "distill_blocks": [0.0, 1.5],
    "teacher": ["none", "vit-micro", "some/teacher", "~/teacher"],
    "outer_full": [True, False],
    "attention_bits": ["none", 8, 4],
    "bf16": [True, False, "auto"],
    "compile": [True, False],
}
GROUPS = ["*", "block*", "head", "block0.*", "*.fc1", "[", "**", "", "block[!0]*", "BLOCK*", "block?.fc1"]
WORDS = [
    "?",
    "",
    "none",
    "é",
    "e\u0301",
    "a\nb",
    "a\tb",
    "\x7f",
    '"""',
    "'",
    "\\",
    "[bold]",
    "😀",
    "none ",
    " " * 50,
]
ODD = [*NUMBERS, *OTHERS, *TABLES, *TIMES]
NAMED = ["bits", "layers_bits", "precisions", "head_only", "beta", "BITS", "bits.toml", "../bits", "no such"]
DATA = [
    "cifar10-mini",
    "cifar10",
    "imagefolder:images",
    "imagefolder:~/images?size=32",
    "imagefolder:",
    "~nobody",
    "imagefolder:~nobody/x",
]


def scratch(kind: str, random: Random, odd: float) -> dict[str, Any]:
    """A file whose keys are known; `odd` is the share of values that are any."""

    def any_of(values: list[Any]) -> Any:
        return random.choice(ODD) if random.random() < odd else random.choice(values)

    def some(
        fields: dict[str, list[Any]], most: int, make: Callable[[list[Any]], Any] = any_of
    ) -> dict[str, Any]:
        keys = random.sample([*fields], random.randint(0, most))
        return {near(key, random) if random.random() < odd / 5 else key: make(fields[key]) for key in keys}

    def differing(values: list[Any]) -> list[Any]:
        return [*{repr(v): v for v in (any_of(values) for _ in range(random.randint(1, 3)))}.values()]

    def axis(values: list[Any], each: bool = False) -> Any:
        numbers = [v for v in values if type(v) in (int, float)]
        ways = [
            any_of(values),
            any_of(values),
            differing(values),
            {"each": differing(values)} if each else any_of(values),
        ]
        if len(numbers) > 1:
            ways.append({"low": any_of(sorted(numbers)[:1]), "high": any_of(sorted(numbers)[1:])})
            ways[-1] |= {"log": random.random() < 0.5} if random.random() < 0.5 else {}
        return random.choice(ways)

    def space() -> dict[str, Any]:
        layer = {"weights": axis(LAYER["weights"], True)} | some(LAYER, 3, lambda values: axis(values, True))
        made = {"description": any_of(WORDS), "layer": layer, "recipe": some(RECIPE, 2, axis)}
        extra = {
            "fraction": axis([0.01, 0.5, 1, 1.0, 5e-324]),
            "objectives": differing([*NAMES]),
            "groups": differing(GROUPS[:5]),
        }
        extra |= {"name": any_of(WORDS), "groups": differing(GROUPS)}
        return made | {key: extra[key] for key in random.sample([*extra], random.randint(0, 2))}

    def step() -> dict[str, Any]:
        made = {
            "name": any_of(["a", "b", "base", "all", "only: a", "all but: a"]),
            "layer": some(LAYER, 2),
            "recipe": some(RECIPE, 2),
        }
        made |= {"tune": some(RECIPE, 2, differing)} if random.random() < 0.2 else {}
        return made | ({"groups": differing(GROUPS[:6])} if random.random() < 0.2 else {})

    if kind == "space":
        return space()
    data = {
        "question": any_of(WORDS),
        "space": any_of(NAMED) if random.random() < 0.2 else space(),
        "recipe": some(RECIPE, 4),
    }
    extra = {
        "model": any_of(["vit-micro", "resnet18", "models/mine", "~/mine", "no such", "x" * 5000]),
        "data": any_of(DATA),
        "objectives": differing([*NAMES]),
        "trials": any_of([1, 12, 10**6]),
        "hours": any_of([1, 0.5, "none", 5e-324]),
        "seed": any_of([0, 1, 2**32 - 1, 2**32 - 2]),
        "sampler": any_of(["additive", "tpe", "nsga2", "gp", "random"]),
        "early_stopping": {
            **some(
                {
                    "over": ["epochs", "fraction"],
                    "reduction": [2, 3, 1000],
                    "first": [1, 2],
                    "rungs": [1, 2, 10],
                },
                3,
            )
        },
        "confirm": any_of([0, 1, 1000]),
        "max_size_bytes": any_of([1, 10**6, 10**30, "none"]),
        "min_accuracy": any_of([0.5, 1, "none"]),
        "name": any_of(WORDS),
    }
    if random.random() < 0.4:
        extra |= {
            "design": any_of([*DESIGNS, [*DESIGNS[:2]], [*DESIGNS[2:5]]]),
            "seeds": any_of([1, 2, 8, 10_000]),
        }
        extra |= {"steps": [step() for _ in range(random.randint(0, 3))], "tune": some(RECIPE, 2, differing)}
        extra |= {"reference": step(), "points": any_of([2, 4, 8, 64, "none"]), "base": any_of(WORDS)}
        if extra["design"] == "grid":
            data["space"] = {"description": "d", "layer": {"weights": any_of(LAYER["weights"])}}
            data["space"] |= {"fraction": any_of([[0.1, 1.0], [0.5, 1], [1]])}
            data["space"]["recipe"] = {"image_views": any_of([[100, 400], [1, 10**12], 100])}
            extra["tune_at"] = {"image_views": any_of([[100, 400], [400, 100]])}
        return (
            data
            | {"design": extra["design"], "steps": extra["steps"]}
            | {k: extra[k] for k in random.sample([*extra], 2)}
        )
    return data | {key: extra[key] for key in random.sample([*extra], random.randint(0, 4))}


def extreme(kind: str, random: Random) -> tuple[str, bytes]:
    """A file that is very long, very deep, or asks for very many."""
    n = random.choice((900, 5000, 100_000))
    numbers = ", ".join(f"{i + 1}.5" for i in range(100_000))
    head = "description = 'd'\n" if kind == "space" else "question = '?'\n"
    below = "[layer]\n" if kind == "space" else "[space]\ndescription = 'd'\n[space.layer]\n"
    layer = head + below + "weights = 'binary'\n"
    crossed = "".join(
        f"{key} = [{', '.join(map(str, range(1, 9)))}]\n"
        for key in ("epochs", "full_epochs", "batch_size", "validate_every")
    )
    cells = "question = '?'\ndesign = 'factorial'\nseeds = 10000\n{}[space]\ndescription = 'd'\n"
    cells += "[space.layer]\nweights = 'binary'\n[space.recipe]\n"
    made = {
        "deep array": head + "groups = " + "[" * n + "]" * n + "\n",
        "deep table": head + "groups = " + "{a=" * n + "1" + "}" * n + "\n",
        "dotted key": head + ".".join("a" * min(n, 20_000)) + " = 1\n",
        "dotted known key": head + "layer." + ".".join("a" * min(n, 20_000)) + " = 1\n",
        "long comment": layer + "# " + "x" * 10**7,
        "long string": f"description = '{'x' * 10**7}'\n" + layer,
        "long name": head + f"{'x' * 10**6} = 1\n",
        "long pattern": head + f"groups = ['{'[' * 20_000}']\n" + below + "weights = 'binary'\n",
        "stars": head + f"groups = ['{'*a' * 5000}']\n" + below + "weights = 'binary'\n",
        "many choices": layer + f"beta_multiplier = [{numbers}]\n",
        "many choices each": layer + f"beta_multiplier = {{each = [{numbers}]}}\n",
        "many wrong choices": layer + f"activation_bits = [{numbers}]\n",
        "many keys": head + "".join(f"k{i} = 1\n" for i in range(20_000)),
        "many objectives": head + f"objectives = [{'1, ' * n}]\n" + below + "weights = 'binary'\n",
        "many patterns": head + "groups = [" + "'*', " * n + "]\n" + below + "weights = 'binary'\n",
        "many steps": head
        + "design = 'arms'\nspace = 'head_only'\n"
        + "".join(f"[[steps]]\nname = '{i}'\n" for i in range(1000)),
        "many seeds": cells.format("") + crossed,
        "many tunings": cells.format(
            "[tune]\n" + crossed + "ema = [" + ", ".join(f"0.{i}" for i in range(1, 1000)) + "]\n"
        )
        + "epochs = [1, 2]\n",
        "many points": cells.format("points = 4096\n").replace("seeds = 10000", "seeds = 1")
        + "".join(f"{k} = [{v[0]}, {v[1]}]\n" for k, v in _two().items()),
        "a number of many digits": head + f"trials = {'9' * n}\n",
        "a hexadecimal number of many digits": head + f"trials = 0x{'f' * n}\n",
    }
    what = random.choice([*made])
    return what, made[what].encode()


def _two() -> dict[str, tuple[str, str]]:
    """Recipe fields of two values each, as TOML."""
    numbers = {
        "epochs": (1, 2),
        "full_epochs": (1, 2),
        "batch_size": (8, 64),
        "validate_every": (1, 2),
        "warmup": (0, 0.1),
        "warmup_views": (0, 2000),
        "decay": (0.2, 1),
    }
    numbers |= {
        "learning_rate": (0.1, 0.2),
        "weight_decay": (0, 0.1),
        "label_smoothing": (0, 0.1),
        "ema": (0, 0.9),
    }
    numbers |= {
        "distill": (0, 0.5),
        "second_stage": (0, 0.3),
        "distill_blocks": (0, 1),
        "weight_decay_until": (0.5, 1),
    }
    numbers |= {
        "temperature": (1, 2),
        "progressive_share": (0.5, 1),
        "quantized_rate_multiplier": (1, 2),
        "second_stage_rate": (0.1, 1),
    }
    return {key: (str(low), str(high)) for key, (low, high) in numbers.items()}
