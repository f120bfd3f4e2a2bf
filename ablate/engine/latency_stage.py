"""Latency within a study: layers are timed before its first trial, the front's models after its last."""

import itertools
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from ablate import hardware
from ablate.config.search_space import values
from ablate.config.study_spec import StudySpec
from ablate.config.trial_spec import LayerSpec
from ablate.execution import ray_cluster
from ablate.execution.ray_cluster import Resources
from ablate.files import write_atomic
from ablate.models import checkpoints, loading, locating
from ablate.profiling import latency
from ablate.profiling.latency_table import LatencyTable
from ablate.profiling.part_latencies import layer_table
from ablate.quantization.fused_model import fuse_
from ablate.quantization.packed_loading import load_preprocess
from ablate.runs.run import Run
from ablate.training.trial import load_packed_trial

WITHOUT_EFFECT = ("beta", "straight")  # how the layer fields begin that do not change a layer's latency


def layer_latencies(
    run: Run, classes: list[str], files: dict[str, bytes], resources: Resources, meanwhile: Callable[[], None]
) -> LatencyTable:
    """The run's table of layer latencies.

    It is measured before the run's first trial and kept, so that all sums are of one table.

    Args:
        run: The run.
        classes: The dataset's classes.
        files: The model's files, for a worker that lacks them.
        resources: What a trial may use.
        meanwhile: Is called every second.

    Returns:
        The table, as tables/layer_latency.json has it.
    """
    path = run.path / "tables" / "layer_latency.json"
    if path.exists():
        return LatencyTable.restore(json.loads(path.read_text(encoding="utf-8")))
    table: LatencyTable = ray_cluster.run_on_worker(
        resources, _measure_layers, run.study, classes, files, meanwhile=meanwhile
    )
    write_atomic(path, json.dumps(table.dump()).encode())
    return table


def _measure_layers(study: StudySpec, classes: list[str], files: dict[str, bytes]) -> LatencyTable:
    """On a worker: time each layer by itself at every precision of the space and of the steps."""
    locating.provide(study.model, files)
    model, size = checkpoints.load(study.model, classes), loading.preprocess(study.model).size
    axes = _precision_axes(study)
    points = (dict(zip(axes, point, strict=True)) for point in itertools.product(*axes.values()))
    valid = [point for point in points if point.get("activation_bits") != 1 or point.get("signed", True)]
    return layer_table(model, size, [LayerSpec(**point) for point in valid], hardware.device())


def _precision_axes(study: StudySpec) -> dict[str, tuple[Any, ...]]:
    """The values of each layer field that changes a layer's latency."""
    axes = {key: values(axis) for key, axis in study.space.layer.items()}
    for step in (*study.steps, *([study.reference] if study.reference else [])):
        for key, value in step.layer.items():
            axes[key] = (*axes.get(key, (LayerSpec.model_fields[key].default,)), value)
    axes = {
        key: tuple(dict.fromkeys(axis)) for key, axis in axes.items() if not key.startswith(WITHOUT_EFFECT)
    }
    if "unnormalised" in axes.get("norm", ()):  # true for some layers, false for others
        axes["norm"] = (False, True)
    return axes


def measure_front(
    run: Run,
    front: pd.DataFrame,
    classes: list[str],
    files: dict[str, bytes],
    resources: Resources,
    meanwhile: Callable[[], None],
) -> None:
    """Write tables/latency.csv: the front's latencies as sums, as the search saw them, and measured whole.

    They are measured as `load_packed` gives the model with exact=False, and with exact=True.

    Args:
        run: The run.
        front: Columns `trial_id` and `latency_ms`.
        classes: The dataset's classes.
        files: The model's files, for a worker that lacks them.
        resources: What a trial may use.
        meanwhile: Is called every second.
    """
    rows = []
    for name, summed in zip(front["trial_id"], front["latency_ms"], strict=True):
        packed = {file.name: file.read_bytes() for file in (run.path / "weights" / name).glob("*")}
        timing: dict[str, Any] = {"median_ms": None}
        exact_ms = None
        if packed:
            arguments = (packed, run.study.model, classes, files)
            measured = ray_cluster.run_on_worker(resources, _measure_packed, *arguments, meanwhile=meanwhile)
            timing, exact_ms = asdict(measured[0]), measured[1].median_ms
        rows.append(
            {
                "trial_id": name,
                "latency_ms_summed": summed,
                "latency_ms_measured": timing.pop("median_ms"),
                "latency_ms_exact": exact_ms,
                **timing,
            }
        )
    write_atomic(run.path / "tables" / "latency.csv", pd.DataFrame(rows).to_csv(index=False).encode())


def _measure_packed(
    packed: dict[str, bytes], name: str, classes: list[str], files: dict[str, bytes]
) -> tuple[latency.Timing, latency.Timing]:
    """On a worker: load a packed model, and time it whole: as it is fastest, and exact."""
    locating.provide(name, files)
    with tempfile.TemporaryDirectory() as folder:
        for file, content in packed.items():
            (Path(folder) / file).write_bytes(content)
        model = load_packed_trial(folder, name, classes)
        size = load_preprocess(folder).size
        exact = latency.measure(model, size)
        return latency.measure(model, size) if _fused(model) else exact, exact


def _fused(model: nn.Module) -> bool:
    """Fuse a model in place, where it is on a CPU; whether that changed it."""
    return next(model.parameters()).device.type == "cpu" and fuse_(model) > 0
