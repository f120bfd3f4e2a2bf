"""Bounds: what is counted to be out of them is never trained, and the front is within them."""

import json
import shutil
from functools import partial

import numpy as np
import pandas as pd
import pytest
from conftest import run_search

from ablate import load_run, run_study
from ablate.analysis import pareto
from ablate.analysis.bounds import best_by_size, excess
from ablate.cli.status import outcome
from ablate.config.canonical import effective, key_of
from ablate.config.study_spec import StudySpec, load_study
from ablate.config.trial_spec import LayerSpec, TrialSpec, checked
from ablate.data import datasets
from ablate.engine.drive import finish
from ablate.engine.plan import plan
from ablate.execution.ray_cluster import Resources
from ablate.models import checkpoints, layer_groups, loading
from ablate.profiling import macs
from ablate.profiling.cost_model import Counter
from ablate.quantization.packing import pack
from ablate.runs import ledger
from ablate.runs.record import blank_record
from ablate.search.searcher import Search
from ablate.training import trial

GROUPS = [f"block{i}.{role}" for i in range(2) for role in ("attention", "fc1", "fc2")] + ["head"]
LAYER = {"weights": {"each": ["full", "binary", "int8"]}, "activation_bits": [4, 8, "none"]}


def study(layer=LAYER, **fields):
    return checked(
        StudySpec, {"question": "?", "space": {"description": "d", "layer": layer}, **fields}, "study"
    )


def size_of(spec):
    """A reference: 100 bytes a full group, 25 in int8, 3 in binary."""
    kinds = [layer.weights for layer in spec.layers.values()]
    return {
        "size_bytes": 100 * (len(GROUPS) - len(kinds)) + 25 * kinds.count("int8") + 3 * kinds.count("binary")
    }


def answer(spec):
    return (
        blank_record(spec, key_of(spec))
        | {"status": "complete", "accuracy": 0.9 - 0.1 * len(spec.layers) ** 0.5}
        | size_of(spec)
    )


run = partial(run_search, answer)


@pytest.mark.long
def test_what_is_counted_beforehand_is_what_the_record_says(tmp_path, tiny_vit):
    rng = np.random.default_rng(0)
    for name in ("vit-micro", str(tiny_vit)):
        classes = datasets.load("cifar10-mini").classes
        model, preprocess = checkpoints.load(name, classes), loading.preprocess(name)
        count = Counter(model, preprocess, layer_groups.groups(model))
        for i in range(6):
            fields = {"norm": [True, False, "unnormalised"][i % 3], "activation_bits": [8, None][i % 2]}
            fields |= {"beta_per": ["tensor", "channel"][i % 2], "beta": [8.0, "least_squares"][i > 2]}
            kinds = {
                group: ["full", "binary", "ternary", "int4", "int8"][rng.integers(5)]
                for group in count.groups
            }
            chosen = {
                group: LayerSpec(weights=kind, **fields) for group, kind in kinds.items() if kind != "full"
            }
            spec = effective(TrialSpec(model=name, layers=chosen if i else {}))
            built = trial.build(spec, classes)
            assert count(spec)["size_bytes"] == pack(built, tmp_path / str(i), preprocess=preprocess)
            assert count(spec)["bitops"] == macs.count(built, preprocess.size).bitops


@pytest.mark.long
@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "gp", "random", "additive"])
def test_no_point_out_of_bounds_is_proposed(sampler):
    """Of random points one in a hundred is within; the walk towards the bounds finds them."""
    study_spec = study(sampler=sampler, max_size_bytes=120)
    search = Search(study_spec, GROUPS, count=size_of)
    specs = run(search, 16)
    assert len(specs) == 16 and max(size_of(spec)["size_bytes"] for spec in specs) <= 120
    assert search.out_of_bounds > 0 or sampler == "additive"  # whose programme has the bounds
    for at in (5, 12):
        heir = Search(study_spec, GROUPS, [answer(spec) for spec in specs[:at]], size_of)
        assert run(heir, 16 - at) == specs[at:]


def test_all_that_is_within_bounds_is_found_before_the_search_ends():
    layer = {"weights": {"each": ["full", "binary"]}}
    specs = run(Search(study(layer, max_size_bytes=420), GROUPS[:4], count=size_of), 99)
    inside = {
        key_of(spec)
        for spec in run(Search(study(layer), GROUPS[:4]), 99)
        if size_of(spec)["size_bytes"] <= 420
    }
    assert {key_of(spec) for spec in specs} == inside and 1 < len(inside) < 16


def test_tpe_is_told_what_is_out_of_bounds():
    search = Search(study(sampler="tpe", max_size_bytes=120, min_accuracy=0.7), GROUPS, count=size_of)
    before = search.history.optuna_study.get_trials()
    assert before and all(
        trial.state.name == "PRUNED" and trial.constraints["size_bytes"] > 0 for trial in before
    )
    run(search, 12)
    complete = [trial for trial in search.history.optuna_study.get_trials() if trial.state.name == "COMPLETE"]
    assert len(complete) == 12 and all(trial.constraints["size_bytes"] <= 0 for trial in complete)
    assert [trial.constraints["accuracy"] > 0 for trial in complete] == [
        trial.values[0] < 0.7 for trial in complete
    ]


def test_excess_is_a_share_of_the_bound():
    within = {"size_bytes": 100, "accuracy": 0.5, "latency_ms": 2.0}
    assert excess({"size_bytes": 150, "accuracy": 0.6, "latency_ms": None}, within) == pytest.approx(
        {"size_bytes": 0.5, "accuracy": -0.2}
    )


@pytest.mark.long
def test_a_study_within_bounds(tiny_study, tmp_path, capsys):
    """It trains nothing too large, keeps the bounds in its folder, and says when nothing is within them."""
    (tmp_path / "tiny.toml").write_text(tiny_study)
    study_spec = load_study(str(tmp_path / "tiny.toml"))
    everything = plan(study_spec)
    sizes, bitops = (
        sorted(everything.count(spec)[cost] for spec in everything.anchors)
        for cost in ("size_bytes", "bitops")
    )
    bound, most = (sizes[1] + sizes[-1]) // 2, float(bitops[1] + bitops[-1]) // 2
    bounds = {"max_size_bytes": bound, "max_bitops": most, "max_latency_ms": 1e6, "min_accuracy": 0.99}
    run = run_study(
        study_spec.model_copy(update=bounds | {"trials": 3}),
        tmp_path / "run",
        resources=Resources(concurrency=1),
    )
    assert (
        len(run.records) == 3
        and run.records["latency_ms"].notna().all()
        and (run.records["size_bytes"] <= bound).all()
        and (run.records["bitops"] <= most).all()
    )
    specs = [effective(TrialSpec.model_validate(spec)) for spec in run.records["spec"]]
    assert [everything.count(spec)["size_bytes"] for spec in specs] == list(run.records["size_bytes"])
    assert not (run.path / "tables" / "front.csv").exists() and not (run.path / "figures").exists()
    reloaded = load_run(run.path)  # what resume reads
    within = {"size_bytes": bound, "bitops": most, "latency_ms": 1e6, "accuracy": 0.99}
    assert reloaded.study.within == within
    outcome(reloaded, False)
    shown = " ".join(capsys.readouterr().out.split())
    assert (
        f"Pareto front: 0 of 3 trials, with size_bytes at most {bound:,} and bitops at most {most:,.0f}"
        " and latency_ms at most 1,000,000 and accuracy at least 0.99; no trial keeps these bounds" in shown
    )
    outcome(reloaded, True)
    assert json.loads(capsys.readouterr().out)["within"] == reloaded.study.within


def test_status_in_json_has_the_numbers_of_the_ledger(finished, capsys):
    run = load_run(finished[0])
    outcome(run, True)
    front = json.loads(capsys.readouterr().out)["front"]
    own = {record["trial_id"]: record for record in ledger.read(run.path / "ledger.jsonl")}
    assert front and all(row["loss"] == own[row["trial_id"]]["loss"] for row in front)
    assert all(row["latency_ms"] is None and row["spec"] == own[row["trial_id"]]["spec"] for row in front)


def test_latency_is_bounded_by_the_table_of_layers():
    def costs(spec):
        return size_of(spec) | {"latency_ms": 7.0 - len(spec.layers)}

    specs = run(Search(study(max_latency_ms=3.0), GROUPS, count=costs), 12)
    assert len(specs) == 12 and all(len(spec.layers) >= 4 for spec in specs)
    assert (
        run(Search(study({"weights": ["full", "binary"]}, max_latency_ms=1e-6), GROUPS[:3], count=costs), 9)
        == []
    )


@pytest.mark.long
def test_tables_and_figure_show_what_is_within(finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    shutil.rmtree(folder / "figures")
    all_of = load_run(folder).records
    bound = int(all_of["size_bytes"].median())
    text = (folder / "study.toml").read_text()
    (folder / "study.toml").write_text(text.replace('max_size_bytes = "none"', f"max_size_bytes = {bound}"))
    run = finish(load_run(folder))
    small = all_of[all_of["size_bytes"] <= bound]
    assert run.study.within == {"size_bytes": bound} and 0 < len(small) < len(all_of)
    expected = set(pareto.front_of(small, run.study.directions)["trial_id"])
    assert set(pd.read_csv(folder / "tables" / "front.csv")["trial_id"]) == expected
    assert (folder / "figures" / "pareto.png").exists()
    best = best_by_size(all_of.to_dict("records"), run.study.within)
    assert {record["trial_id"] for record in best.values()} <= set(small["trial_id"]) and best
    assert not best_by_size(all_of.to_dict("records"), {"accuracy": 1.0})


@pytest.mark.parametrize(
    ("bounds", "told"),
    [
        ({"max_size_bytes": 10}, "max_size_bytes must leave a point, but got 10; "),
        ({"max_bitops": 2e3}, "max_bitops must leave a point, but got 2000; "),
        ({"max_size_bytes": 10, "max_bitops": 9e15}, "max_size_bytes and max_bitops .* got 10 and 9e[+]15; "),
    ],
)
def test_a_bound_that_no_point_keeps_is_refused(bounds, told, tiny_study, tmp_path):
    (tmp_path / "tiny.toml").write_text(tiny_study)
    study = load_study(str(tmp_path / "tiny.toml")).model_copy(update=bounds)
    with pytest.raises(ValueError, match=f"{told}the smallest model found has [1-9]"):
        plan(study)


def test_a_design_has_no_bounds():
    with pytest.raises(ValueError, match="bound a search; a design trains all of its cells"):
        study(layer={"weights": "binary"}, design="factorial", min_accuracy=0.5)
