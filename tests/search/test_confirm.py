"""Confirmation: the front once more with other seeds, apart from what the search saw."""

import numpy as np
import optuna
import pandas as pd
import pytest
from scipy import stats

from ablate import load_run, run_study
from ablate.cli import result_tables
from ablate.cli.status import outcome
from ablate.config.study_spec import StudySpec, load_study
from ablate.config.trial_spec import LayerSpec, TrialSpec, checked
from ablate.engine.plan import plan, proposer_of
from ablate.engine.resume import resume_study
from ablate.errors import BadInput
from ablate.execution.ray_cluster import Resources
from ablate.reporting.confirmation_table import table
from ablate.runs.ledger import append, read
from ablate.runs.record import blank_record
from ablate.search.confirmation import confirmations, is_searched

SPACE = {
    "description": "d",
    "layer": {"weights": {"each": ["full", "binary"]}},
    "objectives": ["accuracy", "size_bytes"],
}


def study(**fields):
    return checked(StudySpec, {"question": "?", "space": SPACE, "seed": 7, "confirm": 3, **fields}, "study")


def record(spec, accuracy, test=None):
    results = {
        "status": "complete",
        "accuracy": accuracy,
        "test_accuracy": test,
        "size_bytes": 100 - len(spec.layers),
    }
    return blank_record(spec, f"{arm(spec)}-{spec.seed}") | results


def arm(spec):
    return "+".join(spec.layers) or "full"


SPECS = [
    TrialSpec(seed=7),
    *(TrialSpec(seed=7, layers={group: LayerSpec(weights="binary")}) for group in ("fc1", "head")),
]


def test_members_are_paired_by_their_seeds_and_tested():
    front = [record(spec, 0.5) for spec in SPECS[:2]]
    specs = list(confirmations(study(), front))
    assert [(arm(spec), spec.seed) for spec in specs] == [
        (a, seed) for seed in (8, 9, 10) for a in ("full", "fc1")
    ]
    assert {spec.test for spec in specs} == {"A"} and {spec.recipe for spec in specs} == {SPECS[0].recipe}
    assert not list(confirmations(study(confirm=0), front))
    assert {spec.test for spec in confirmations(study(final=True), front)} == {"B"}


def test_the_seeds_of_anchors_confirm_nothing():
    """They had their part in the search."""
    front = [record(SPECS[0], 0.6)]
    assert [spec.seed for spec in confirmations(study(anchor_seeds=2), front)] == [9, 10, 11]
    with pytest.raises(BadInput, match="seed must leave room"):
        study(seed=2**32 - 4, anchor_seeds=2)


def test_what_was_tested_on_other_images_is_in_no_mean():
    search = [record(SPECS[0], 0.6)]
    own = [record(spec, 0.5, 0.7) for spec in confirmations(study(), search)]
    other = [record(spec, 0.5, 0.1) for spec in confirmations(study(final=True), search)]
    rows = table(study(), [*search, *own, *other], ["full-7"])
    assert rows["n"].item() == 3 and rows["test_accuracy"].item() == pytest.approx(0.7)


def test_the_table_tells_the_search_from_its_confirmation():
    search = [record(spec, accuracy) for spec, accuracy in zip(SPECS, (0.6, 0.9, 0.5), strict=True)]
    scores = {("full", 8): 0.61, ("full", 9): 0.63, ("full", 10): 0.65, ("fc1", 8): 0.55}
    repeats = [
        record(spec, 0.1, scores.get((arm(spec), spec.seed))) for spec in confirmations(study(), search[:2])
    ]
    repeats = [row for row in repeats if row["test_accuracy"] is not None]
    repeats[0] |= {"accuracy": 0.4}
    failed = blank_record(next(confirmations(study(), search[1:])), "failed")
    rows = table(study(), [*search, *repeats, failed], ["fc1-7"]).set_index("trial_id")
    assert list(rows.index) == ["full-7", "fc1-7"] and list(rows["on_front"]) == [
        False,
        True,
    ]  # head: neither
    assert list(rows["search_accuracy"]) == [0.6, 0.9] and list(rows["n"]) == [3, 1]
    half = stats.t.ppf(0.975, 2) * np.std([0.61, 0.63, 0.65], ddof=1) / 3**0.5
    full = rows.loc["full-7"]
    assert (full["test_accuracy"], full["test_accuracy_low"], full["test_accuracy_high"]) == pytest.approx(
        (0.63, 0.63 - half, 0.63 + half)
    )
    assert full["accuracy"] == pytest.approx(0.2)
    assert rows.loc["fc1-7", "test_accuracy"] == 0.55 and np.isnan(
        rows.loc["fc1-7", "test_accuracy_low"]
    )  # one seed: unbounded


def test_ids_of_digits_are_ids(tmp_path):
    search = [record(SPECS[0], 0.6) | {"trial_id": "123456789012"}]
    table(study(), search, ["123456789012"]).to_csv(tmp_path / "confirmed.csv", index=False)
    assert list(result_tables.confirmed(tmp_path / "confirmed.csv").columns[0].cells) == ["123456789012"]


@pytest.mark.long
def test_a_front_is_confirmed_resumed_and_extended(own_ray, tiny_study, tmp_path, capsys):
    (tmp_path / "tiny.toml").write_text(tiny_study)
    study_spec = load_study(str(tmp_path / "tiny.toml")).model_copy(update={"trials": 3, "confirm": 2})
    run = run_study(study_spec, tmp_path / "run", resources=Resources(concurrency=2))
    front = pd.read_csv(run.path / "tables" / "front.csv")
    confirmed = pd.read_csv(run.path / "tables" / "confirmed.csv")
    assert len(run.searched) == 3 and len(run.records) == 3 + 2 * len(front)
    assert set(confirmed["trial_id"]) == set(front["trial_id"]) and set(confirmed["n"]) == {2}
    assert {folder.name for folder in (run.path / "weights").iterdir()} == set(front["trial_id"])
    repeats = run.records[~run.records.index.isin(run.searched.index)]
    assert (
        set(repeats["seed"]) == {1, 2}
        and repeats["test_accuracy"].notna().all()
        and run.searched["test_accuracy"].isna().all()
    )
    assert run.state["trials"] == run.state["done"] == len(run.records)

    run.to_optuna(f"sqlite:///{tmp_path}/studies.db")
    assert len(optuna.load_study(study_name="run", storage=f"sqlite:///{tmp_path}/studies.db").trials) == 3

    lost = read(run.path / "ledger.jsonl")[-1]  # as if killed before the last one was written
    kept = read(run.path / "ledger.jsonl")[:-1]
    (run.path / "ledger.jsonl").unlink()
    for row in kept:
        append(run.path / "ledger.jsonl", row)
    resumed, _ = resume_study(run.path, trials=4, resources=Resources(concurrency=1))
    assert len(resumed.searched) == 4 and resumed.records["trial_id"].is_unique
    assert list(resumed.records["trial_id"][: len(kept)]) == [row["trial_id"] for row in kept]
    fourth = TrialSpec.model_validate(resumed.searched.iloc[3]["spec"])
    planned = plan(study_spec)
    blind = proposer_of(
        planned.study, planned.search.groups, [row for row in kept if is_searched(row)], planned.count
    )
    assert blind.ask() == fourth  # the sampler was told of the search's own trials alone
    table = pd.read_csv(run.path / "tables" / "confirmed.csv").set_index("trial_id")
    front = pd.read_csv(run.path / "tables" / "front.csv")["trial_id"]
    assert (table.loc[front, "n"] == 2).all() and set(confirmed["trial_id"]) <= set(table.index)
    assert (
        table.loc[confirmed["trial_id"], "n"].drop(front, errors="ignore") >= 1
    ).all()  # what left the front keeps its records
    assert lost["trial_id"] in set(resumed.records["trial_id"]) or not table["on_front"].all()
    outcome(load_run(run.path), False)
    shown = capsys.readouterr().out
    assert "Confirmed: " in shown and "Pareto front: " in shown and "of 4 trials" in shown


@pytest.mark.long
def test_further_seeds_of_anchors_are_confirmed_around_and_resumed(own_ray, tiny_study, tmp_path):
    (tmp_path / "tiny.toml").write_text(tiny_study)
    changes = {"trials": 3, "anchor_seeds": 2, "confirm": 1}
    asked = load_study(str(tmp_path / "tiny.toml")).model_copy(update=changes)
    run = run_study(asked, tmp_path / "run", resources=Resources(concurrency=2))
    trained = sorted(zip(run.searched["arm"], run.searched["seed"], strict=True))
    assert trained == [("binary", 0), ("full", 0), ("full", 1)] and len(run.candidates) == 2
    assert set(run.records["seed"]) == {0, 1, 2} and run.state["trials"] == len(run.records)
    front = set(pd.read_csv(run.path / "tables" / "front.csv")["trial_id"])
    assert front <= set(run.candidates["trial_id"])
    run.to_optuna(f"sqlite:///{tmp_path}/studies.db")
    assert len(optuna.load_study(study_name="run", storage=f"sqlite:///{tmp_path}/studies.db").trials) == 2
    (run.path / "provenance.json").write_text("{}")  # as of a version that recorded no study
    resumed, _ = resume_study(run.path, trials=5, resources=Resources(concurrency=1))
    assert sorted(resumed.searched["seed"]) == [0] * 4 + [1] and resumed.records["trial_id"].is_unique


def test_a_design_has_seeds_of_its_own():
    with pytest.raises(ValueError, match="confirm is for a search"):
        study(space=SPACE | {"layer": {"weights": "binary"}}, design="factorial")
