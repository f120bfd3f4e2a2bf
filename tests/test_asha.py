"""Early stopping: who goes on at a rung, and a study whose hopeless trials end early."""

import itertools
import shutil
import time
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import ray

from ablate import cli, cluster, load_run, run_study, verbs
from ablate.asha import Rungs, best
from ablate.cluster import Resources
from ablate.distribute import distribute
from ablate.driver import Driver
from ablate.errors import AblateError
from ablate.ledger import append, blank_record, read
from ablate.resume import resume_study
from ablate.spec import EarlyStopping, StudySpec, TrialSpec, checked, load_study

SPACE = {"description": "d", "layer": {"weights": {"each": ["full", "binary"]}}, "objectives": ["accuracy", "size_bytes"]}
WALL = ("train_seconds", "started_at")


def study(**rule):
    asked = {"question": "?", "space": SPACE, "recipe": {"epochs": 9}, "early_stopping": rule}
    return checked(StudySpec, asked, "study")


def seen(epoch, accuracy, size_bytes, epochs=9):
    return {"epoch": epoch, "epochs": epochs, "accuracy": accuracy, "size_bytes": size_bytes}


def test_ranks_come_before_the_net():
    """Against a plain reference: peel one front after the other; within the last, the farthest from those taken."""
    rng = np.random.default_rng(0)
    for _ in range(30):
        points = rng.integers(0, 6, (12, 2)).astype(float) * [1.0, 1000.0]
        left, ranks = set(range(12)), {}
        for rank in itertools.count():
            if not left:
                break
            now = {i for i in left if not any((points[j] <= points[i]).all() and (points[j] < points[i]).any() for j in left)}
            ranks |= dict.fromkeys(now, rank)
            left -= now
        for k in (1, 4, 8):
            chosen = best(points, ["min", "min"], k)
            assert len(chosen) == k
            assert sorted(ranks[i] for i in chosen) == sorted(ranks.values())[:k]


def test_the_net_spreads():
    line = [[x, -x] for x in (0.0, 0.1, 0.2, 0.9, 1.0)]  # all of one rank
    assert best(line, ["min", "min"], 2) == {0, 4} and best(line, ["max", "min"], 1) == {4}
    assert best(line, ["min", "min"], 3) in ({0, 2, 4}, {0, 3, 4}) and best(line, ["min", "min"], 9) == set(range(5))
    assert best([[1.0, 2.0]] * 4, ["min", "max"], 2) == {0, 1}


def test_at_a_rung_the_best_third_goes_on():
    rungs = Rungs(study())
    assert [rungs.judge(name, seen(1, *at)) for name, at in {"a": (0.5, 100), "b": (0.4, 100)}.items()] == ["", ""]  # too few
    assert rungs.judge("c", seen(1, 0.3, 100)) == "after epoch 1 not among the best 1 of 3"
    assert rungs.judge("d", seen(1, 0.9, 90)) == ""
    assert rungs.judge("e", seen(1, 0.1, 95)).endswith("1 of 5") and rungs.judge("f", seen(1, 0.2, 10)) == ""  # the smallest
    assert rungs.judge("d", seen(2, 0.0, 90)) == ""  # between rungs nobody is asked
    assert [rungs.judge(name, seen(3, 0.5, 100)) for name in "abd"] == ["", "", "after epoch 3 not among the best 1 of 3"]
    assert rungs.judge("z", seen(9, 0.0, 999)) == ""  # it has ended anyway
    assert list(rungs.reached) == [1, 3, 9] and list(rungs.reached[9]) == ["z"]


def test_rungs_are_where_the_study_says():
    rungs = Rungs(study(first=2, reduction=2))
    for name in "abc":
        assert rungs.judge(name, seen(1, 0.5, 1)) == ""
    assert not rungs.reached.get(2)
    for name, accuracy in (("a", 0.9), ("b", 0.8)):
        rungs.judge(name, seen(2, accuracy, 1))
    assert set(rungs.reached[2]) == {"a", "b"} and rungs.judge("c", seen(2, 0.1, 1)).endswith("the best 1 of 3")
    late = Rungs(study(first=2, reduction=2))  # validated every three epochs: asked at the first one after a rung
    assert late.judge("a", seen(3, 0.9, 1)) == "" and late.judge("b", seen(3, 0.1, 1)).startswith("after epoch 3 not")


def test_the_ledger_s_curves_rebuild_the_rungs():
    rng = np.random.default_rng(1)
    live, records = Rungs(study()), []
    for i in range(20):
        record = blank_record(TrialSpec(seed=i), f"t{i}") | {"size_bytes": int(rng.integers(50, 100)), "status": "complete"}
        for epoch in range(1, 10):
            row = {"epoch": epoch, "loss": 1.0, "train_loss": 1.0, "accuracy": float(rng.random())}
            record["curve"].append(row)
            if live.judge(record["trial_id"], record | row | {"epochs": 9}):
                record["status"] = "pruned"
                break
        record["status"] = "failed" if i == 3 else record["status"]
        live.tell(record)
        records.append(record)
    assert {record["status"] for record in records} == {"complete", "pruned", "failed"}
    rebuilt = Rungs(study(), records)
    assert {rung: there for rung, there in live.reached.items() if there} == rebuilt.reached
    assert "t3" not in rebuilt.reached[1]


def test_what_confirms_the_front_is_not_stopped():
    assert Driver.judge(SimpleNamespace(), "x", TrialSpec(test=True), {}) == ""


def test_several_trials_at_once_are_stopped_and_recorded(tmp_path):
    """Odd ones end at epoch 1 and even ones run to epoch 3, on workers that are used again; an error is still an error."""

    def sleepy(spec, name, state, *, threads):
        record = blank_record(spec, name) | {"size_bytes": 1}
        for epoch in (1, 2, 3):
            time.sleep(0.05)
            record["curve"].append({"epoch": epoch, "loss": 1.0, "train_loss": 1.0, "accuracy": 0.5})
            if spec.seed == 4 and epoch == 2:
                return SimpleNamespace(record=record | {"error": "NonFinite: loss"}, predictions={}, weights={})
            so_far = record | {"curve": [*record["curve"]]}
            yield SimpleNamespace(epoch=epoch, accuracy=0.5, loss=1.0, state={}, record=so_far)
        return SimpleNamespace(record=record | {"status": "complete", "accuracy": 0.5}, predictions={}, weights={})

    def judge(name, spec, seen):
        assert seen["size_bytes"] == 1 and seen["loss"] == 1.0
        return "it is odd" if spec.seed % 2 and seen["epoch"] == 1 else ""

    queue = iter([(f"trial{i}", TrialSpec(seed=i)) for i in range(12)])
    told = []
    (tmp_path / "ledger.jsonl").touch()
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        distribute(
            lambda: next(queue, None),
            lambda record: told.append(record) or [],
            lambda running, waiting, deaths: None,
            stop=lambda: False,
            steps=sleepy,
            path=tmp_path,
            writer=cluster.writer_of(tmp_path),
            judge=judge,
            resources=Resources(concurrency=3, gpus_per_trial=0.0),
        )
    finally:
        ray.shutdown()
    ledger = {record["seed"]: record for record in read(tmp_path / "ledger.jsonl")}
    assert len(told) == len(ledger) == 12 and {record["trial_id"] for record in told} == {f"trial{i}" for i in range(12)}
    odd = [ledger[i] for i in range(1, 12, 2)]
    assert all((row["status"], row["error"], len(row["curve"])) == ("pruned", "it is odd", 1) for row in odd)
    assert [len(ledger[i]["curve"]) for i in (0, 2, 6, 8, 10)] == [3] * 5 and ledger[4]["status"] == "failed"


def test_a_study_stops_its_hopeless_trials_and_goes_on_after_a_kill(tiny_study, tmp_path, capsys):
    (tmp_path / "tiny.toml").write_text(tiny_study.replace("epochs = 1", "epochs = 3"))
    asked = load_study(str(tmp_path / "tiny.toml")).model_copy(update={"trials": 7, "early_stopping": EarlyStopping()})
    run = run_study(asked, tmp_path / "run", resources=Resources(concurrency=1))
    records = run.records.to_dict("records")
    pruned = [record for record in records if record["status"] == "pruned"]
    assert len(records) == 7 and len(pruned) == run.state["counts"]["pruned"] >= 3
    for record in pruned:
        assert len(record["curve"]) == 1 and record["error"].startswith("after epoch 1 not among the best ")
        assert pd.isna(record["accuracy"]) and record["size_bytes"] > 0 and record["train_seconds"] > 0
    assert all(len(record["curve"]) == 3 for record in records if record["status"] == "complete")
    front = set(pd.read_csv(run.path / "tables" / "front.csv")["trial_id"])
    assert front and not front & {record["trial_id"] for record in pruned}

    shutil.copytree(run.path, tmp_path / "killed")  # as if its driver had died after four trials
    (tmp_path / "killed" / "state.json").unlink()
    (tmp_path / "killed" / "ledger.jsonl").unlink()
    for row in read(run.path / "ledger.jsonl")[:4]:
        append(tmp_path / "killed" / "ledger.jsonl", row)
    resumed, _ = resume_study(tmp_path / "killed", resources=Resources(concurrency=1))

    def bare(run):
        return [{key: str(value) for key, value in row.items() if key not in WALL} for row in run.records.to_dict("records")]

    assert bare(resumed) == bare(run)
    cli._show(load_run(run.path), False)
    assert f"{len(pruned)} stopped early" in capsys.readouterr().out
    with pytest.raises(AblateError, match=r"that of a pruned trial \(after epoch 1"):
        verbs.rerun(run.path, pruned[0]["trial_id"], True)
