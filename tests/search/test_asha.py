"""Early stopping: who goes on at a rung, and a study whose hopeless trials end early."""

import itertools
import json
import shutil
import time
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import ray

from ablate import load_run, run_study
from ablate.cli import overrides, run_commands
from ablate.cli.status import outcome
from ablate.config.designs import EarlyStopping
from ablate.config.study_spec import StudySpec, load_study
from ablate.config.trial_spec import TrialSpec, checked
from ablate.engine.controller import Driver
from ablate.engine.estimate import _views, estimate
from ablate.engine.plan import plan
from ablate.engine.resume import resume_study
from ablate.engine.warm_start import adopt, reuse
from ablate.errors import AblateError, BadInput
from ablate.execution import ray_cluster
from ablate.execution.ray_cluster import Resources
from ablate.execution.tune_runner import distribute
from ablate.runs.ledger import append, read
from ablate.runs.record import blank_record
from ablate.search.searcher import Search
from ablate.search.successive_halving import Rungs, best
from ablate.training import trial

SPACE = {
    "description": "d",
    "layer": {"weights": {"each": ["full", "binary"]}},
    "objectives": ["accuracy", "size_bytes"],
}
WALL = ("train_seconds", "started_at")


def study(**rule):
    fields = {"question": "?", "space": SPACE, "recipe": {"epochs": 9}, "early_stopping": rule}
    return checked(StudySpec, fields, "study")


def report(epoch, accuracy, size_bytes, epochs=9):
    return {
        "curve": [{"epoch": epoch, "accuracy": accuracy}],
        "epochs": epochs,
        "accuracy": None,
        "size_bytes": size_bytes,
    }


def part(one_in, epoch, accuracy, size_bytes, before=()):
    """As `report`, on the way through a training on a part of the images."""
    rows = [*before, {"one_in": one_in, "images": 900 // one_in, "epoch": epoch, "accuracy": accuracy}]
    return {
        "curve": [],
        "rungs": rows,
        "epochs": 2,
        "accuracy": None,
        "size_bytes": size_bytes,
        "images": 900,
    }


def test_ranks_come_before_the_net():
    """Against a plain reference: peel one front after the other; of the last, take the farthest points."""
    rng = np.random.default_rng(0)
    for _ in range(30):
        points = rng.integers(0, 6, (12, 2)).astype(float) * [1.0, 1000.0]
        left, ranks = set(range(12)), {}
        for rank in itertools.count():
            if not left:
                break
            now = {
                i
                for i in left
                if not any((points[j] <= points[i]).all() and (points[j] < points[i]).any() for j in left)
            }
            ranks |= dict.fromkeys(now, rank)
            left -= now
        for k in (1, 4, 8):
            chosen = best(points, ["min", "min"], k)
            assert len(chosen) == k
            assert sorted(ranks[i] for i in chosen) == sorted(ranks.values())[:k]


def test_the_net_spreads():
    line = [[x, -x] for x in (0.0, 0.1, 0.2, 0.9, 1.0)]  # all of one rank
    assert best(line, ["min", "min"], 2) == {0, 4} and best(line, ["max", "min"], 1) == {4}
    assert best(line, ["min", "min"], 3) in ({0, 2, 4}, {0, 3, 4}) and best(line, ["min", "min"], 9) == set(
        range(5)
    )
    assert best([[1.0, 2.0]] * 4, ["min", "max"], 2) == {0, 1}


def test_at_a_rung_the_best_third_goes_on():
    rungs = Rungs(study())
    assert [
        rungs.should_prune(name, report(1, *at)) for name, at in {"a": (0.5, 100), "b": (0.4, 100)}.items()
    ] == [
        "",
        "",
    ]  # too few
    assert rungs.should_prune("c", report(1, 0.3, 100)) == "after epoch 1 not among the best 1 of 3"
    assert rungs.should_prune("d", report(1, 0.9, 90)) == ""
    assert (
        rungs.should_prune("e", report(1, 0.1, 95)).endswith("1 of 5")
        and rungs.should_prune("f", report(1, 0.2, 10)) == ""
    )  # the smallest
    assert rungs.should_prune("d", report(2, 0.0, 90)) == ""  # between rungs no trial is compared
    assert [rungs.should_prune(name, report(3, 0.5, 100)) for name in "abd"] == [
        "",
        "",
        "after epoch 3 not among the best 1 of 3",
    ]
    assert rungs.should_prune("z", report(9, 0.0, 999)) == ""  # it has ended anyway
    assert list(rungs.reached) == [1, 3, 9] and list(rungs.reached[9]) == ["z"]


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ({"reduction": 4}, {"over": "fraction", "reduction": 4, "rungs": 1}),
        ({"over": "fraction"}, {"over": "fraction", "reduction": 2, "rungs": 1}),
        ({"over": "epochs"}, {"over": "epochs", "reduction": 2, "first": 1}),
    ],
)
def test_options_change_the_studys_own_rule(tmp_path, tiny_study, option, expected):
    path = tmp_path / "s.toml"
    path.write_text("early_stopping = { over = 'fraction', reduction = 2, rungs = 1 }\n" + tiny_study)
    assert overrides.override_study(str(path), {"early_stopping": option}, 3).early_stopping == EarlyStopping(
        **expected
    )


@pytest.mark.long
def test_an_estimate_counts_the_rungs(tmp_path, tiny_study):
    path = tmp_path / "s.toml"
    path.write_text(tiny_study)
    planned = plan(load_study(str(path)))
    epochs, (trained, validated) = 1, map(len, (planned.dataset.train, planned.dataset.validation))
    assert planned.study.recipe.epochs == epochs
    rule = EarlyStopping(over="fraction", reduction=2, rungs=2)
    stopped = replace(planned, study=planned.study.model_copy(update={"early_stopping": rule}))
    fraction = 0.03  # the mean of the study's 0.02 and 0.04
    views = planned.study.trials * (fraction * trained * (1 + 1 / 4 + 1 / 2) + 3 * validated / 3)
    assert estimate(stopped)["image_views"] == round(views)


@pytest.mark.long
def test_an_estimate_counts_the_checkpoint_of_each_seed_of_an_anchor(tiny_vit):
    space = {"name": "s", "description": "d", "layer": {"weights": ["full", "binary"]}}
    recipe = {"full_epochs": 2, "epochs": 1}
    fields = {"question": "?", "model": str(tiny_vit), "space": space, "recipe": recipe}
    planned = plan(StudySpec(**fields, anchor_seeds=3))
    trained, validated = len(planned.dataset.train), len(planned.dataset.validation)
    found = estimate(planned)
    assert found["trials"] == 6  # two points, and two further seeds of each
    assert found["image_views"] == round(6 * (trained + validated / 3) + 3 * 2 * trained)


@pytest.mark.long
def test_an_estimate_counts_fractions_and_what_a_design_tests(tiny_vit):
    space = {"name": "s", "description": "d", "layer": {"weights": "binary"}, "fraction": [0.1, 0.5]}
    design = {"design": "factorial", "seeds": 2, "tune": {"learning_rate": [1e-4, 1e-3]}}
    planned = plan(
        StudySpec(
            question="?",
            model=str(tiny_vit),
            space=space,
            recipe={"epochs": 3, "validate_every": 3},
            **design,
        )
    )
    trained, validated = len(planned.dataset.train), len(planned.dataset.validation)
    tested = len(planned.dataset.tested("A"))
    # Of each fraction two rates on three seeds, and two paired trials.
    views = 8 * 3 * (0.1 + 0.5) * trained + 2 * (8 * validated + 2 * tested) / 3
    assert planned.study.trials == 16 and estimate(planned)["image_views"] == round(views)


@pytest.mark.long
def test_an_estimate_counts_what_the_space_says_of_a_trials_length(tiny_vit):
    space = {"name": "s", "description": "d", "layer": {"weights": "binary"}, "fraction": 0.02}
    axes = {"epochs": [1, 5], "batch_size": 40, "full_epochs": [0, 2], "validate_every": 5}
    study_spec = StudySpec(
        question="?", model=str(tiny_vit), space=space | {"recipe": axes}, trials=2, recipe={"epochs": 99}
    )
    planned = plan(study_spec)
    images, validated = round(0.02 * len(planned.dataset.train)), len(planned.dataset.validation)
    *each, checkpoints = _views(planned)
    assert each == [3 * images + validated / 3] * 2 and checkpoints == 2 * images
    costs = estimate(planned)
    longest = costs["minutes_of_longest_trial"] * 60 * costs["images_per_second_of_a_cpu"]
    assert longest == pytest.approx(7 * images + validated / 3, rel=0.05)


@pytest.mark.long
def test_an_estimate_counts_what_will_run(tiny_vit, monkeypatch):
    """Tuned lengths, no more trials than the space has points, and no more CPUs than trials use at a time."""
    monkeypatch.setattr("ablate.engine.estimate._rate", lambda *args: 100.0)
    space = {"name": "s", "description": "d", "layer": {"weights": ["full", "binary"]}, "fraction": 0.02}
    base = {"question": "?", "model": str(tiny_vit), "space": space, "recipe": {"epochs": 99}}
    tuned = plan(StudySpec(**base, design="factorial", tune={"epochs": [1, 3]}, tuning_seeds=1))
    images = round(0.02 * len(tuned.dataset.train))
    one, three = (k * (images + len(tuned.dataset.validation) / 3) for k in (1, 3))
    tested = len(tuned.dataset.tested("A")) / 3
    *each, _ = _views(tuned)
    assert each == pytest.approx(2 * [one, three] + 2 * [(one + three) / 2 + tested])
    small = estimate(plan(StudySpec(**base, trials=50)), Resources(concurrency=1))
    assert (small["trials"], small["cpus"]) == (2, 1)


def test_a_study_of_single_images_is_refused_where_the_model_normalises_over_them(tmp_path):
    import transformers

    sizes = {
        "hidden_sizes": [16, 32, 48],
        "num_attention_heads": [2, 3, 4],
        "depths": [1, 1, 1],
        "key_dim": [8] * 3,
    }
    config = transformers.LevitConfig(image_size=64, mlp_ratio=[2] * 3, attention_ratio=[2] * 3, **sizes)
    transformers.LevitForImageClassification(config).save_pretrained(tmp_path)
    transformers.ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(tmp_path)
    space = {"description": "d", "layer": {"weights": ["full", "binary"]}, "recipe": {"batch_size": [1, 16]}}
    with pytest.raises(BadInput, match="this model needs 2 images or more a step, but a step would have 1"):
        plan(StudySpec(question="?", model=str(tmp_path), space=space))


def test_rungs_are_where_the_study_says():
    rungs = Rungs(study(first=2, reduction=2))
    for name in "abc":
        assert rungs.should_prune(name, report(1, 0.5, 1)) == ""
    assert not rungs.reached.get(2)
    for name, accuracy in (("a", 0.9), ("b", 0.8)):
        rungs.should_prune(name, report(2, accuracy, 1))
    assert set(rungs.reached[2]) == {"a", "b"} and rungs.should_prune("c", report(2, 0.1, 1)).endswith(
        "the best 1 of 3"
    )
    late = Rungs(
        study(first=2, reduction=2)
    )  # validated every three epochs: compared at the first one after a rung
    assert late.should_prune("a", report(3, 0.9, 1)) == "" and late.should_prune(
        "b", report(3, 0.1, 1)
    ).startswith("after epoch 3 not")


def test_the_ledger_s_curves_rebuild_the_rungs():
    rng = np.random.default_rng(1)
    live, records = Rungs(study()), []
    for i in range(20):
        record = blank_record(TrialSpec(seed=i), f"t{i}") | {
            "size_bytes": int(rng.integers(50, 100)),
            "status": "complete",
        }
        record["epochs"] = 9
        for epoch in range(1, 10):
            row = {"epoch": epoch, "loss": 1.0, "train_loss": 1.0, "accuracy": float(rng.random())}
            record["curve"].append(row)
            if live.should_prune(record["trial_id"], record):
                record["status"] = "pruned"
                break
        record["status"] = "failed" if i == 3 else record["status"]
        if record["status"] == "complete":
            record["accuracy"] = record["curve"][-1]["accuracy"]
        live.tell(record)
        records.append(record)
    assert {record["status"] for record in records} == {"complete", "pruned", "failed"}
    rebuilt = Rungs(study(), records)
    assert {rung: there for rung, there in live.reached.items() if there} == rebuilt.reached
    assert "t3" not in rebuilt.reached[1]


def test_over_the_fraction_a_rung_is_a_whole_training():
    rungs = Rungs(study(over="fraction", rungs=2))
    assert rungs.rule.divisors == (9, 3) and EarlyStopping().divisors == ()
    for name, accuracy in (("a", 0.5), ("b", 0.4), ("c", 0.3)):
        assert rungs.should_prune(name, part(9, 1, accuracy, 100)) == "" and not rungs.reached[9].get(
            name
        )  # on its way
    ends = {
        name: rungs.should_prune(name, part(9, 2, at, 100))
        for name, at in (("a", 0.5), ("b", 0.4), ("c", 0.3))
    }
    assert ends == {"a": "", "b": "", "c": "after 1/9 of its images not among the best 1 of 3"}
    passed = part(9, 2, 0.5, 100)["rungs"]
    assert rungs.should_prune("a", part(3, 1, 0.1, 100, passed)) == "" and not rungs.reached[3]
    assert rungs.should_prune("a", part(3, 2, 0.1, 100, passed)) == "" and rungs.reached[3] == {
        "a": [0.1, 100]
    }
    fresh = Rungs(study(over="fraction"))  # of a driver that came later: the trial has been at both rungs
    assert fresh.should_prune("a", part(3, 2, 0.1, 100, passed)) == ""
    assert fresh.reached == {9: {"a": [0.5, 100]}, 3: {"a": [0.1, 100]}}
    fresh.tell(part(9, 2, 0.4, 100) | {"trial_id": "b", "status": "pruned"})
    assert list(fresh.reached[9]) == ["a", "b"]
    fresh.tell(part(3, 2, 0.1, 100, passed) | {"trial_id": "a", "status": "failed"})
    assert fresh.reached == {9: {"b": [0.4, 100]}, 3: {}}


def test_images_are_those_of_the_whole_trial():
    fields = {
        "question": "?",
        "space": SPACE,
        "objectives": ["accuracy", "images"],
        "early_stopping": {"over": "fraction"},
    }
    rungs = Rungs(checked(StudySpec, fields, "study"))
    rungs.should_prune("a", part(9, 2, 0.5, 1))
    assert rungs.reached[9]["a"] == [0.5, 900]


def test_anchors_and_what_confirms_the_front_race_with_nobody():
    search = Search(study(), ["fc1", "fc2"])
    driver = SimpleNamespace(search=search, study=search.study, rungs=Rungs(search.study), front=[], best={})
    driver.state, driver.is_searched = (
        {"counts": dict.fromkeys(("complete", "pruned"), 0)},
        lambda record: True,
    )
    driver.races = partial(Driver.races, driver)
    anchors = [search.points.spec_at(point) for point in search.points.anchors()]
    proposed = list(iter(search.ask, None))
    assert [spec for spec in proposed if not driver.races(spec)] == proposed[: len(anchors)] == anchors
    assert len(proposed) > len(anchors) and not driver.races(proposed[-1].model_copy(update={"test": True}))
    for i, spec in enumerate(proposed):
        Driver._learn(driver, [ended(str(i), "complete", {1: 0.3, 9: 0.5}) | {"spec": spec.model_dump()}])
    assert [*driver.rungs.reached[1]] == [str(i) for i in range(len(anchors), len(proposed))]
    assert Driver.should_prune(SimpleNamespace(races=lambda spec: False), "x", anchors[0], {}) == ""


def ended(name, status, curve, size_bytes=100):
    """A record of nine epochs, or of those that it has."""
    rows = [
        {"epoch": epoch, "loss": 1.0, "train_loss": 1.0, "accuracy": accuracy}
        for epoch, accuracy in curve.items()
    ]
    last = {"accuracy": rows[-1]["accuracy"], "loss": 1.0} if status == "complete" else {}
    return (
        blank_record(TrialSpec(), name)
        | {"status": status, "epochs": 9, "curve": rows, "size_bytes": size_bytes}
        | last
    )


def test_what_a_stopped_trial_promised():
    """Its objectives at its last rung, and the mean gain of complete trials from there, if there are any."""
    rungs, late = Rungs(study()), ended("s", "pruned", {1: 0.2, 2: 0.9})
    rungs.tell(late)
    assert rungs.extrapolated_objectives() == {}
    rungs.tell(ended("a", "complete", {1: 0.3, 9: 0.5}))
    assert rungs.extrapolated_objectives() == {
        "s": {"accuracy": pytest.approx(0.4), "size_bytes": 100}
    }  # epoch 2 is no rung
    rungs.tell(ended("b", "complete", {1: 0.5, 9: 0.6}, 50))
    assert rungs.extrapolated_objectives() == {"s": {"accuracy": pytest.approx(0.35), "size_bytes": 100}}
    rungs.tell(ended("c", "pruned", {1: 0.2, 3: 0.3}))  # the others have no rung there: no gain
    rungs.tell(ended("d", "failed", {1: 0.2}))
    rungs.tell(ended("e", "complete", {1: 0.2}) | {"accuracy": None})
    assert (
        list(rungs.extrapolated_objectives()) == ["s", "c"]
        and rungs.extrapolated_objectives()["c"]["accuracy"] == 0.3
    )


def test_the_additive_sampler_learns_from_what_was_stopped():
    """And goes on from a ledger with it as it would have."""
    study_spec = study().model_copy(update={"trials": 99})
    groups = [f"block{i}.fc1" for i in range(8)]
    search, records = Search(study_spec, groups), []
    for i in range(20):
        spec = search.ask()
        good = 1 - sum((0.01, 0.09)[group == "block3.fc1"] for group in spec.layers)
        status = "pruned" if i >= 8 else "complete"
        curve = {1: good - 0.3} | ({9: good} if status == "complete" else {})
        records.append(
            ended("x", status, curve, 100 - 10 * len(spec.layers))
            | {"spec": spec.model_dump(), "trial_id": str(i)}
        )
        search.tell(records[-1])
    heir = Search(study_spec, groups, records)
    forgetful = Search(
        study_spec,
        groups,
        [row | {"status": "failed"} if row["status"] == "pruned" else row for row in records],
    )
    first = heir.ask()
    assert first == search.ask() and first != forgetful.ask()


@pytest.mark.long
def test_several_trials_at_once_are_stopped_and_recorded(tmp_path):
    """Odd trials end at epoch 1, even ones at epoch 3, on reused workers; an error stays an error."""

    def sleepy(spec, name, state, *, threads):
        record = blank_record(spec, name) | {"size_bytes": 1}
        for epoch in (1, 2, 3):
            time.sleep(0.05)
            record["curve"].append({"epoch": epoch, "loss": 1.0, "train_loss": 1.0, "accuracy": 0.5})
            if spec.seed == 4 and epoch == 2:
                return SimpleNamespace(
                    record=record | {"error": "NonFinite: loss"}, predictions={}, weights={}
                )
            so_far = record | {"curve": [*record["curve"]]}
            yield SimpleNamespace(epoch=epoch, accuracy=0.5, loss=1.0, state={}, record=so_far)
        return SimpleNamespace(
            record=record | {"status": "complete", "accuracy": 0.5}, predictions={}, weights={}
        )

    def should_prune(name, spec, so_far):
        assert so_far["size_bytes"] == 1 and so_far["curve"][-1]["loss"] == 1.0
        return "it is odd" if spec.seed % 2 and len(so_far["curve"]) == 1 else ""

    queue = iter([(f"trial{i}", TrialSpec(seed=i)) for i in range(12)])
    records = []
    (tmp_path / "ledger.jsonl").touch()
    ray.init("local", num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        distribute(
            lambda: next(queue, None),
            lambda record: records.append(record) or [],
            lambda running, waiting, deaths: None,
            stop=lambda: False,
            steps=sleepy,
            path=tmp_path,
            writer=ray_cluster.writer_of(tmp_path),
            should_prune=should_prune,
            resources=Resources(concurrency=3, gpus_per_trial=0.0),
        )
    finally:
        ray.shutdown()
    ledger = {record["seed"]: record for record in read(tmp_path / "ledger.jsonl")}
    assert len(records) == len(ledger) == 12 and {record["trial_id"] for record in records} == {
        f"trial{i}" for i in range(12)
    }
    odd = [ledger[i] for i in range(1, 12, 2)]
    assert all((row["status"], row["error"], len(row["curve"])) == ("pruned", "it is odd", 1) for row in odd)
    assert [len(ledger[i]["curve"]) for i in (0, 2, 6, 8, 10)] == [3] * 5 and ledger[4]["status"] == "failed"


def bare(run):
    return [
        {key: str(value) for key, value in row.items() if key not in WALL}
        for row in run.records.to_dict("records")
    ]


def resumed_after(n, run, path):
    """A copy of a finished run, gone on with as if its driver had died after n trials."""
    shutil.copytree(run.path, path)
    (path / "state.json").unlink()
    (path / "ledger.jsonl").unlink()
    for row in read(run.path / "ledger.jsonl")[:n]:
        append(path / "ledger.jsonl", row)
    return resume_study(path, resources=Resources(concurrency=1))[0]


@pytest.mark.long
def test_a_study_stops_its_hopeless_trials_and_goes_on_after_a_kill(own_ray, tiny_study, tmp_path, capsys):
    (tmp_path / "tiny.toml").write_text(tiny_study.replace("epochs = 1", "epochs = 3"))
    study_spec = load_study(str(tmp_path / "tiny.toml")).model_copy(
        update={"trials": 11, "early_stopping": EarlyStopping()}
    )
    run = run_study(study_spec, tmp_path / "run", resources=Resources(concurrency=1))
    records = run.records.to_dict("records")
    pruned = [record for record in records if record["status"] == "pruned"]
    assert len(records) == 11 and len(pruned) == run.state["counts"]["pruned"] >= 2
    assert {record["status"] for record in records[:4]} == {"complete"}  # the anchors
    for record in pruned:
        assert len(record["curve"]) == 1 and record["error"].startswith("after epoch 1 not among the best ")
        assert pd.isna(record["accuracy"]) and record["size_bytes"] > 0 and record["train_seconds"] > 0
    assert all(len(record["curve"]) == 3 for record in records if record["status"] == "complete")
    front = set(pd.read_csv(run.path / "tables" / "front.csv")["trial_id"])
    assert front and not front & {record["trial_id"] for record in pruned}

    assert bare(resumed_after(8, run, tmp_path / "killed")) == bare(run)
    outcome(load_run(run.path), False)
    assert f"{len(pruned)} stopped early" in capsys.readouterr().out
    with pytest.raises(AblateError, match=r"that of a pruned trial \(after epoch 1"):
        run_commands.rerun(run.path, pruned[0]["trial_id"], True)


@pytest.mark.slow
def test_a_study_over_the_fraction_trains_few_trials_on_all_images(own_ray, tiny_study, tmp_path, capsys):
    (tmp_path / "tiny.toml").write_text(
        "early_stopping = { over = 'fraction', reduction = 2, rungs = 2 }\n" + tiny_study
    )
    study_spec = load_study(str(tmp_path / "tiny.toml")).model_copy(update={"trials": 11, "confirm": 1})
    run = run_study(study_spec, tmp_path / "run", resources=Resources(concurrency=1))
    records = run.searched.to_dict("records")
    pruned = [record for record in records if record["status"] == "pruned"]
    complete = [record for record in records if record["status"] == "complete"]
    assert len(records) == 11 and len(pruned) >= 2 and complete and len(run.records) > 11
    for record in pruned:
        last = record["rungs"][-1]["one_in"]
        assert record["curve"] == [] and record["error"].startswith(
            f"after 1/{last} of its images not among the best "
        )
        assert pd.isna(record["accuracy"]) and record["size_bytes"] > 0 and record["images"] in (80, 160)
    for record in complete:
        assert [row["one_in"] for row in record["rungs"]] == [4, 2] and len(record["curve"]) == 1
        assert [row["images"] for row in record["rungs"]] == [record["images"] // 4, record["images"] // 2]
    front = set(pd.read_csv(run.path / "tables" / "front.csv")["trial_id"])
    assert front and front <= {record["trial_id"] for record in complete}
    assert not run.records[len(records) :]["rungs"].map(len).any()  # what confirms the front
    assert bare(resumed_after(4, run, tmp_path / "killed")) == bare(run)

    assert trial.trial_id(TrialSpec.model_validate(complete[0]["spec"])) == complete[0]["trial_id"]
    capsys.readouterr()
    run_commands.rerun(run.path, complete[0]["trial_id"], True)
    compared = {row["field"]: row for row in json.loads(capsys.readouterr().out)}
    assert "loss after epoch 1 on 1/4 of its images" in compared and all(
        row["same"] for row in compared.values()
    )
    with pytest.raises(AblateError, match=r"that of a pruned trial \(after 1/"):
        run_commands.rerun(run.path, pruned[0]["trial_id"], True)
    compared = {row["field"]: row for row in json.loads(capsys.readouterr().out)}
    assert compared["loss after epoch 1 on 1/4 of its images"]["same"] and not compared["status"]["same"]

    planned, known = reuse([run.path], plan(study_spec))
    adopt(tmp_path / "more", known)
    known = read(tmp_path / "more" / "ledger.jsonl")
    assert [record["rungs"] for record in known] == [record["rungs"] for record in complete]
    assert {*Rungs(planned.study, known).reached} == {4, 2}
