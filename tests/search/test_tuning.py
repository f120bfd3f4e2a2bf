"""Tuned choices: several seeds, edges of their grids, and runs of versions that had neither."""

import json
import random
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from ablate.config.builtin import names
from ablate.config.study_spec import StudySpec, load_study
from ablate.config.trial_spec import checked
from ablate.errors import BadInput
from ablate.runs.record import blank_record
from ablate.runs.run import load_run, write_study
from ablate.search.experiment_design import Design
from ablate.search.tuning import edges, score

RESULTS = Path(__file__).parents[2] / "results"
GROUPS = ["block0.fc1", "head"]
RATES = [0.01, 0.03, 0.1]


def study(**fields):
    """Two cells, full and binary, whose learning rate is tuned."""
    base = {
        "question": "?",
        "design": "factorial",
        "seeds": 2,
        "tune": {"learning_rate": RATES},
        "space": {"description": "d", "layer": {"weights": ["full", "binary"]}},
    }
    return checked(StudySpec, base | fields, "study")


def peak(at, noise=0.0):
    """spec -> accuracy, which falls by a point for each factor of e from the rate `at`."""
    return lambda spec: 0.9 - 0.01 * abs(np.log(spec.recipe.learning_rate / at)) + noise * spec.seed


def told(spec, accuracy):
    """A record; it failed where the accuracy is None."""
    record = blank_record(spec, str(hash(spec.model_dump_json())))
    if accuracy is None:
        return record
    results = {"status": "complete", "accuracy": accuracy, "loss": 1.0, "size_bytes": 1, "images": 10}
    return record | results | ({"test_accuracy": accuracy} if spec.test else {})


def run(design, answer):
    """The records, one trial at a time."""
    records = []
    while (spec := design.ask()) is not None:
        records.append(told(spec, answer(spec)))
        design.tell(records[-1])
    return records


def rates(records, test):
    """Each record's rate, of those that are tested or not."""
    return [r["spec"]["recipe"]["learning_rate"] for r in records if bool(r["spec"]["test"]) == test]


def further(field, grid, side, limit=3):
    """What would be tried beyond an edge, value after value; None where there is no edge."""
    value, found = (max if side == "upper" else min)(grid), []
    while (key := (field, side)) in (beyond := edges({field: grid}, {field: value}, limit)):
        if (value := beyond[key]) is None:
            return found
        found.append(value)
    return found or None


@pytest.mark.parametrize(
    ("field", "grid", "lower", "upper"),
    [
        ("learning_rate", [0.01, 0.03, 0.1], [0.003, 0.001, 0.0003], [0.3, 1.0, 3.0]),
        ("learning_rate", [0.1, 0.01, 0.03], [0.003, 0.001, 0.0003], [0.3, 1.0, 3.0]),  # in any order
        ("learning_rate", [5e-4, 1e-3, 2e-3], [2.5e-4, 1.25e-4, 6.25e-5], [4e-3, 8e-3, 0.016]),
        ("learning_rate", [1e-5, 1e-4, 1e-3], [1e-6, 1e-7, 1e-8], [0.01, 0.1, 1.0]),
        ("learning_rate", [1e-3, 0.01, 0.03, 0.1], [1e-4, 1e-5, 1e-6], [0.3, 1.0, 3.0]),
        ("learning_rate", [0.03, 0.1], [0.009, 0.0027, 0.00081], [0.333, 1.11, 3.7]),
        ("weight_decay", [0.0, 0.05, 0.1], None, [0.15, 0.2, 0.25]),  # differences; none is below 0
        ("distill", [0.25, 0.5], [0.125, 0.0625, 0.0312], [1.0]),  # 2 is out of its bounds, and so is 1.001
        ("distill", [0.5, 1.0], [0.25, 0.125, 0.0625], None),
        ("ema", [0.9, 0.99], [0.818, 0.743, 0.675], []),  # 1.09 is out of its bounds, but 0.999 is not
        ("batch_size", [32, 64], [16, 8, 4], [128, 256, 512]),
        ("batch_size", [2, 3], [1], [4, 5, 6]),  # whole numbers
        ("epochs", [1, 2], [], []),  # a length is the study's to decide, and its edge is said alone
        ("learning_rate", [0.1], None, None),
        ("clip_norm", ["none", 1.0, 2.0], None, None),
        ("augment", [False, True], None, None),
        ("optimizer", ["sgd", "adamw"], None, None),
    ],
)
def test_what_lies_beyond_an_edge(field, grid, lower, upper):
    if isinstance(grid[0], str | bool):
        assert not any(edges({field: grid}, {field: value}, 3) for value in grid)
        return
    if len(grid) > 2:
        assert edges({field: grid}, {field: sorted(grid)[1]}, 3) == {}
    found = [further(field, grid, side) for side in ("lower", "upper")]
    assert found == [lower, upper]
    assert further(field, grid, "upper", limit=0) == (None if upper is None else [])


def test_every_choice_is_trained_with_the_seeds_after_the_paired_ones():
    design = Design(study(seed=5, seeds=2), GROUPS)
    records = run(design, peak(0.03))
    tuning = [r for r in records if not r["spec"]["test"]]
    seeds = {(r["arm"], r["spec"]["recipe"]["learning_rate"], r["seed"]) for r in tuning}
    assert seeds == {(arm, rate, seed) for arm in ("full", "binary") for rate in RATES for seed in (7, 8, 9)}
    assert {r["seed"] for r in records if r["spec"]["test"]} == {5, 6} and set(rates(records, True)) == {0.03}
    assert len(records) == design.size == design.least == 2 * (3 * 3 + 2) and not design.may_grow
    with pytest.raises(BadInput, match="seed must leave room"):
        study(seed=2**32 - 4, seeds=2)
    study(seed=2**32 - 5, seeds=2)


def test_the_best_mean_is_chosen_and_not_the_best_seed():
    lucky = {0.01: (0.3, 0.3, 0.8), 0.03: (0.6, 0.7, 0.5), 0.1: (0.5, 0.5, 0.5)}
    design = Design(study(seeds=1), GROUPS)
    records = run(design, lambda spec: lucky[spec.recipe.learning_rate][spec.seed - 1] if spec.seed else 0.5)
    assert set(rates(records, True)) == {0.03}
    row = design.table().query("role == 'seed'").iloc[0]
    assert row["lead"] == pytest.approx(0.1) and row["edge"] == ""  # to 0.1, which is paired: 0.1, 0.2, 0
    assert row["lead_low"] == pytest.approx(0.1 - 4.302653 * 0.1 / 3**0.5)


def test_a_grid_is_extended_until_the_best_lies_inside():
    design = Design(study(), GROUPS)
    assert design.may_grow and design.least == 22
    records = run(design, peak(0.3))
    beyond = [rate for rate in rates(records, False) if rate not in RATES]
    assert beyond == [0.3] * 3 + [1.0] * 3 + [0.3] * 3 + [1.0] * 3 and set(rates(records, True)) == {0.3}
    assert len(records) == design.size == 22 + 12 and not design.may_grow
    first_tested = next(i for i, record in enumerate(records) if record["spec"]["test"])
    assert all(record["spec"]["test"] for record in records[first_tested:])
    table = design.table()
    assert (table["edge"] == "").all() and (table["role"] == "tune").sum() == 2 * 5 * 3
    assert (table[table["role"] == "seed"]["learning_rate"] == 0.3).all()


@pytest.mark.parametrize(
    ("at", "limit", "chosen", "edge"),
    [(1e3, 3, 3.0, "upper"), (1e-9, 2, 1e-3, "lower"), (1e3, 0, 0.1, "upper"), (0.03, 3, 0.03, "")],
)
def test_a_choice_that_still_lies_on_an_edge_is_flagged(at, limit, chosen, edge):
    design = Design(study(grid_extension=limit), GROUPS)
    run(design, peak(at))
    rows = design.table().query("role == 'seed'")
    assert (rows["learning_rate"] == chosen).all() and (rows["edge"] == edge).all()


def test_a_trial_that_fails_beyond_the_edge_ends_the_extension():
    design = Design(study(), GROUPS)
    records = run(design, lambda spec: None if spec.recipe.learning_rate > 0.1 else peak(1)(spec))
    assert set(rates(records, True)) == {0.1} and rates(records, False).count(0.3) == 2 * 3
    assert (design.table()["edge"] == "").all()


def test_a_choice_that_fails_on_one_seed_counts_as_minus_one_there():
    assert score([{"accuracy": 0.9}, {"accuracy": None}, {"accuracy": float("nan")}]) == pytest.approx(
        -1.1 / 3
    )

    def answer(spec):
        return None if (spec.recipe.learning_rate, spec.seed) == (0.03, 3) else peak(0.03)(spec)

    design = Design(study(tune={"learning_rate": [0.01, 0.03, 0.2]}), GROUPS)
    assert set(rates(run(design, answer), True)) == {0.01}  # 0.2 is farther; the next below is worse
    design = Design(study(tune={"learning_rate": [0.01, 0.03]}, grid_extension=0), GROUPS)
    run(design, answer)
    row = design.table().query("role == 'seed'").iloc[0]  # where both completed the other is ahead
    assert row["learning_rate"] == 0.01 and row["lead"] == pytest.approx(-0.01 * np.log(3))


def test_where_every_trial_fails_nothing_is_extended():
    design = Design(study(), GROUPS)
    records = run(design, lambda spec: None)
    assert set(rates(records, False)) == set(RATES) and set(rates(records, True)) == {0.01}
    rows = design.table().query("role == 'seed'")
    assert (rows["edge"] == "").all() and rows["lead"].isna().all()


@pytest.mark.parametrize("workers", [1, 2, 7, 50])
def test_neither_workers_nor_the_order_of_their_trials_matter(workers):
    """As one trial at a time: the trials, the table, and a design that is told them in another order."""
    alone = Design(study(), GROUPS)
    expected = {json.dumps(record["spec"]) for record in run(alone, peak(0.5, noise=1e-4))}
    design, draw = Design(study(), GROUPS), random.Random(workers)
    running, records = [], []
    while True:
        while len(running) < workers and (spec := design.ask()) is not None:
            assert not spec.test or not any(
                other.layers == spec.layers and not other.test for other in running
            )  # a cell's paired trials begin once its tuning has ended
            running.append(spec)
        if not running:
            break
        spec = running.pop(draw.randrange(len(running)))
        records.append(told(spec, peak(0.5, noise=1e-4)(spec)))
        design.tell(records[-1])
    assert {json.dumps(record["spec"]) for record in records} == expected and len(records) == len(expected)
    assert design.table().equals(alone.table())
    draw.shuffle(records)
    again = Design(study(), GROUPS, records)
    assert again.ask() is None and not again.waits and again.table().equals(alone.table())
    assert again.size == len(records) and again.least == 22


@pytest.mark.parametrize("at", range(0, 36, 5))
def test_it_resumes_anywhere(at):
    whole = run(Design(study(), GROUPS), peak(0.3))
    rest = run(Design(study(), GROUPS, whole[:at]), peak(0.3))
    assert [r["spec"] for r in whole[:at] + rest] == [r["spec"] for r in whole]


def test_equal_cells_share_what_lies_beyond():
    steps = [{"name": "low", "tune": {"learning_rate": [0.01, 0.03, 0.1]}}]
    steps += [{"name": "again", "tune": {"learning_rate": [0.1, 0.03, 0.01]}}]
    steps += [{"name": "high", "tune": {"learning_rate": [0.1, 0.3, 1.0]}}]
    design = Design(
        study(design="arms", steps=steps, space={"description": "d", "layer": {"weights": "full"}}), GROUPS
    )
    records = run(design, peak(0.3))
    assert set(rates(records, False)) == {0.01, 0.03, 0.1, 0.3, 1.0}
    assert len(records) == 5 * 3 + 2 == design.size  # all three choose 0.3, and share their paired trials


def test_of_several_tuned_fields_each_has_edges_of_its_own():
    """The best of 2 x 2 points is at two edges; what lies beyond is tried one field after the other."""
    tune = {"learning_rate": [0.01, 0.1], "label_smoothing": [0.1, 0.2], "augment": [True, False]}
    design = Design(study(tune=tune, seeds=1), GROUPS)

    def answer(spec):
        recipe = spec.recipe
        return peak(1.0)(spec) - abs(recipe.label_smoothing - 0.8) - 0.05 * (recipe.augment is True)

    run(design, answer)
    table = design.table()
    row = table[table["role"] == "seed"].iloc[0]
    chosen = {key: row[key] for key in tune}
    assert chosen == {"learning_rate": 1.0, "label_smoothing": 0.8, "augment": False}
    assert row["edge"] == "label_smoothing upper"  # 1.6 is out of its bounds
    tried = table[(table["cell"] == row["cell"]) & (table["role"] == "tune")]
    beyond = tried[(tried["learning_rate"] > 0.1) | (tried["label_smoothing"] > 0.2)]
    assert not beyond["augment"].any()  # only around the best
    design = Design(study(tune=tune, seeds=1, grid_extension=1), GROUPS)
    run(design, answer)
    row = design.table().query("role == 'seed'").iloc[0]
    assert (row["learning_rate"], row["label_smoothing"]) == (1.0, 0.4)
    assert row["edge"] == "learning_rate upper, label_smoothing upper"


def test_a_field_that_changes_nothing_is_not_extended_for_ever():
    """AdamW has no momentum: its choices are the same trials."""
    tune = {"momentum": [0.8, 0.9]}
    design = Design(study(tune=tune, recipe={"optimizer": "adamw"}), GROUPS)
    records = run(design, peak(0.3))
    assert len(records) == 2 * (3 + 2) == design.size and design.table()["lead"].isna().all()


def test_a_design_without_tuning_has_no_choices_to_doubt():
    design = Design(study(tune={}), GROUPS)
    assert len(run(design, peak(0.3))) == 4 == design.least and not design.may_grow
    assert not {"edge", "lead"} & {*design.table()}


@pytest.mark.parametrize("name", ["ladder", "data_volume", "data_volume_epochs", "paper_micro", "final"])
def test_a_run_of_an_older_version_keeps_its_choices(name, tmp_path):
    """It had one tuning seed and extended nothing, and its study.toml says neither."""
    for file in ("study.toml", "ledger.jsonl", "provenance.json"):
        shutil.copy(RESULTS / name / file, tmp_path)
    run = load_run(tmp_path)
    assert (run.study.tuning_seeds, run.study.grid_extension) == (1, 0)
    records = run.records.to_dict("records")
    groups = list(dict.fromkeys(group for record in records for group in record["spec"]["layers"]))
    design = Design(run.study, groups, records)
    assert design.ask() is None and not design.waits and not design.may_grow
    assert design.size == design.least == run.study.trials == len(records)
    assert set(design.table()["trial_id"]) == set(run.records["trial_id"])
    write_study(tmp_path, run.study)  # as `resume` does
    assert load_run(tmp_path).study == run.study == load_study(str(tmp_path / "study.toml"))


def test_the_built_in_studies_say_how_many_trials_they_have_at_least():
    groups = [f"block{i}.{part}" for i in range(6) for part in ("attention", "fc1", "fc2")] + ["head"]
    designs = {name: Design(study, groups) for name in names("studies") if (study := load_study(name)).design}
    told = {
        name: int(found[1])
        for name, design in designs.items()
        if (found := re.search(r"at least (\d+) trials", design.study.cost))
    }
    assert told == {name: design.least for name, design in designs.items() if design.may_grow}


def test_only_a_run_has_the_older_default(tmp_path):
    text = (RESULTS / "ladder" / "study.toml").read_text().replace("trials = 152\n", "")
    (tmp_path / "study.toml").write_text(text)
    mine = load_study(str(tmp_path / "study.toml"))
    assert (mine.tuning_seeds, mine.grid_extension) == (3, 3)
    assert Design(mine, GROUPS).least == 19 * (3 * 3 + 5)
    (tmp_path / "provenance.json").write_text("{}")  # a run that was killed before its ledger was there
    assert load_study(str(tmp_path / "study.toml")).tuning_seeds == 1
