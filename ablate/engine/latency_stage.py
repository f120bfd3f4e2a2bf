"""Latency within a study: a table of layers before its first trial, and its front measured whole after the last."""

import itertools
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from ablate import hardware
from ablate.config.search_space import values
from ablate.config.study_spec import StudySpec
from ablate.config.trial_spec import LayerSpec
from ablate.errors import BadInput
from ablate.execution import ray_cluster
from ablate.execution.ray_cluster import Resources
from ablate.files import store
from ablate.models import loading
from ablate.profiling import latency
from ablate.quantization import packed_model
from ablate.runs.run import Run


def layer_latencies(
    run: Run, classes: list[str], files: dict[str, bytes], resources: Resources, meanwhile: Callable[[], None]
) -> latency.LatencyTable:
    """The run's table of layer latencies: measured before its first trial, and kept, so that all sums are of one table."""
    path = run.path / "tables" / "layer_latency.json"
    if path.exists():
        return latency.LatencyTable.restore(json.loads(path.read_text(encoding="utf-8")))
    table: latency.LatencyTable = ray_cluster.run_on_worker(
        resources, _measure_layers, run.study, classes, files, meanwhile=meanwhile
    )
    store(path, json.dumps(table.dump()).encode())
    return table


def _measure_layers(study: StudySpec, classes: list[str], files: dict[str, bytes]) -> latency.LatencyTable:
    """On a worker: every layer at every precision that the space and the steps have, timed by itself."""
    loading.provide(study.model, files)
    model, size = loading.load(study.model, classes), loading.preprocess(study.model).size
    axes = {key: values(axis) for key, axis in study.space.layer.items()}
    for step in (*study.steps, *([study.reference] if study.reference else [])):
        for key, value in step.layer.items():
            axes[key] = (*axes.get(key, (LayerSpec.model_fields[key].default,)), value)
    axes = {
        key: tuple(dict.fromkeys(axis))
        for key, axis in axes.items()
        if not key.startswith(("beta", "straight"))
    }
    if "unnormalised" in axes.get("norm", ()):  # true for some layers, false for others
        axes["norm"] = (False, True)
    points = (dict(zip(axes, point, strict=True)) for point in itertools.product(*axes.values()))
    exist = [point for point in points if point.get("activation_bits") != 1 or point.get("signed", True)]
    return latency.layer_table(model, size, [LayerSpec(**point) for point in exist], hardware.device())


def measure_front(
    run: Run,
    front: pd.DataFrame,
    classes: list[str],
    files: dict[str, bytes],
    resources: Resources,
    meanwhile: Callable[[], None],
) -> None:
    """Write tables/latency.csv: the front's latencies as the search saw them, sums of layers, and measured whole."""
    rows = []
    for name, summed in zip(front["trial_id"], front["latency_ms"], strict=True):
        kept = {file.name: file.read_bytes() for file in (run.path / "weights" / name).glob("*")}
        how = (_measure_packed, kept, run.study.model, classes, files)
        whole = (
            asdict(ray_cluster.run_on_worker(resources, *how, meanwhile=meanwhile))
            if kept
            else {"median_ms": None}
        )
        rows.append(
            {
                "trial_id": name,
                "latency_ms_summed": summed,
                "latency_ms_measured": whole.pop("median_ms"),
                **whole,
            }
        )
    store(run.path / "tables" / "latency.csv", pd.DataFrame(rows).to_csv(index=False).encode())


def _measure_packed(
    kept: dict[str, bytes], name: str, classes: list[str], files: dict[str, bytes]
) -> latency.Timing:
    """On a worker: a packed model, loaded and timed whole."""
    loading.provide(name, files)
    with tempfile.TemporaryDirectory() as folder:
        for file, content in kept.items():
            (Path(folder) / file).write_bytes(content)
        try:
            model = packed_model.load_packed(folder)
        except BadInput:  # a model that only its checkpoint can build
            model = packed_model.load_packed(folder, skeleton=loading.load(name, classes).eval())
        model.to(hardware.device())
        return latency.measure(model, packed_model.load_preprocess(folder).size)
