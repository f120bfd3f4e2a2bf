"""The arms of a run as rows of Table 1: their accuracies and counts come from its records."""

import statistics
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from ablate.config.canonical import asked
from ablate.errors import BadInput
from ablate.formatting import describe_layers, split_name
from ablate.models import loading
from ablate.models.preprocessing import Preprocess
from ablate.profiling.macs import Cost
from ablate.reporting.run_results import RunResults
from ablate.reporting.table1_cells import Cell
from ablate.reporting.table1_models import Entry
from ablate.reporting.table1_published import PRINTED
from ablate.runs.ledger import trial_of
from ablate.runs.record import Record, value_of
from ablate.runs.run import Run
from ablate.training import trial

# The model that each of the paper's rows is of.
MODELS = {"1-bit ViT": "ViT-B/16", "ViT": "ViT-B/16", "Resnet 18": "ResNet-18", "VGG16": "VGG-16"}
BASELINES = {"resnet18": "Resnet 18", "vgg16": "VGG16"}  # the beginning of our name -> the paper's name


@dataclass(frozen=True)
class Arm(Entry):
    """A row whose numbers are in the records of a run.

    Args:
        instead: Why its model is none of the paper's; "" where it is one.
        cost: Its counts.
        size_bytes: Of the packed model.
        accuracy: The mean over its seeds.
    """

    instead: str
    cost: Cost
    size_bytes: int
    accuracy: Cell


def arms_of(run: Run) -> tuple[list[Arm], list[str]]:
    """The arms of a run: trials that differ in their seeds alone.

    Args:
        run: Of a search only the best arm by validation of each kind of weights is taken.

    Returns:
        The arms, and a note on each arm whose every seed failed.

    Raises:
        BadInput: The run has no complete trial.
    """
    ended = [
        record for record in run.records.to_dict("records") if record["status"] in ("complete", "failed")
    ]
    if not _complete(ended):
        reason = f"{str(run.path)!r} has none; `ablate status` says how it is"
        raise BadInput(f"RUN must have a complete trial, but {reason}")
    tested = any(_is_number(record["test_accuracy"]) for record in ended)
    # Trials that were not tested chose the settings.
    records = [record for record in ended if trial_of(record).test] if tested else ended
    by_spec: dict[str, list[Record]] = {}
    for record in records:
        by_spec.setdefault(str(asked(trial_of(record), exclude={"seed"})), []).append(record)
    arms, suffix = list(by_spec.values()), ""
    if not run.study.design:
        arms = _best_of_each_kind(arms)
        confirmed = ", among those confirmed" if any(record["spec"]["test"] for record in records) else ""
        tried = len(_complete([record for record in ended if not record["spec"]["test"]]))
        suffix = f", the best of its kind by validation{confirmed}, of {tried} trials"
    results = RunResults(run)
    cells = {}
    if results.design is not None:
        cells = dict(zip(results.design["trial_id"], results.design["cell"], strict=True))
    named = [(arm, cells.get(arm[0]["trial_id"]) or describe_layers(arm[0]["spec"]) + suffix) for arm in arms]
    notes = [
        f"No row: {name}, all {len(arm)} seeds of which failed." for arm, name in named if not _complete(arm)
    ]
    return [_arm(results, arm, name) for arm, name in named if _complete(arm)], notes


def _best_of_each_kind(arms: list[list[Record]]) -> list[list[Record]]:
    """The best arm by mean validation accuracy of each kind of weights, the worst of them first."""
    arms = [arm for arm in arms if _complete(arm)]
    arms.sort(key=lambda arm: statistics.mean(_number(record, "accuracy") for record in _complete(arm)))
    return list({arm[0]["arm"]: arm for arm in arms}.values())


def _complete(records: list[Record]) -> list[Record]:
    return [record for record in records if record["status"] == "complete"]


def _number(record: Record, name: str) -> float:
    """A field that every complete record has."""
    value = value_of(record, name)
    assert value is not None
    return value


def _is_number(value: float | None) -> bool:
    return value is not None and not np.isnan(value)


def _arm(results: RunResults, arm: list[Record], name: str) -> Arm:
    records = _complete(arm)
    first, failed = records[0], len(arm) - len(records) or None
    spec = trial_of(first)

    def build() -> tuple[nn.Module, Preprocess]:
        return trial.build(spec, results.classes).eval(), loading.preprocess(spec.model)

    values = [_number(record, "test_accuracy" if spec.test else "accuracy") for record in records]
    sd = statistics.stdev(values) if len(values) > 1 else None
    is_one_bit = any(layer.weights == "binary" for layer in spec.layers.values())
    vit = "1-bit ViT" if is_one_bit else "ViT"
    beside = next((paper for ours, paper in BASELINES.items() if spec.model.startswith(ours)), vit)
    cost = Cost(*(int(_number(first, key)) for key in ("parameters", "macs", "bitops")))
    model, instead = Path(spec.model).name, ""
    if not is_printed(cost, beside):
        counts = f"{cost.parameters / 1e6:.2f} M parameters and {cost.macs / 1e9:.2f} GMac"
        instead = (
            f"{model} is no {MODELS[beside]}: it has {counts}, and no printed number is of such a model."
        )
        model += f" in place of {MODELS[beside]}"
    return Arm(
        name=f"{model}, {name}",
        beside=beside,
        build=build,
        instead=instead,
        cost=cost,
        size_bytes=int(_number(first, "size_bytes")),
        accuracy=Cell(
            statistics.mean(values),
            "measured",
            n=len(values),
            sd=sd,
            split=split_name(spec.test),
            failed=failed,
        ),
    )


def is_printed(cost: Cost, model: str) -> bool:
    """Whether counts are those that the paper printed for one of its models, up to rounding.

    Args:
        cost: Of our model.
        model: The paper's name of its model.
    """
    ours = {"parameters": cost.parameters / 1e6, "macs": cost.macs / 1e9}
    return all(abs(value / float(PRINTED[model][key]) - 1) < 0.005 for key, value in ours.items())
