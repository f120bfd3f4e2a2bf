"""What a run shows, and what it does not."""

import json
import re
import shutil
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from commands import run_ablate

from ablate.analysis import paired
from ablate.analysis.confusion import changed, confusions, differences, examples, most_confused, repeated
from ablate.analysis.contrasts import RULE
from ablate.config.study_spec import StudySpec
from ablate.reporting import design_findings
from ablate.reporting.findings import findings
from ablate.reporting.front_measurements import measure
from ablate.reporting.plotly_panel import logarithmic
from ablate.reporting.run_results import RunResults
from ablate.runs import ledger
from ablate.runs.ledger import append
from ablate.runs.record import blank_record
from ablate.runs.run import create_run, load_run
from ablate.search.experiment_design import Design
from ablate.training.trial import trial_id


@pytest.fixture(scope="module")
def shrinks(simulated):
    return findings(load_run(simulated(0.10, 0.03)))


@pytest.mark.long
def test_the_verdict_of_a_designed_run(shrinks):
    volume = shrinks["volume"]
    verdicts = volume.tables["verdicts"].set_index("arm")
    assert dict(verdicts["verdict"]) == {"binary": "shrinks", "ternary": "constant"}
    changes = volume.tables["changes"].set_index(["arm", "contrast"])
    assert verdicts.loc["binary", "whole"] == changes.loc[("binary", "whole"), "value"] < -0.05
    assert "binary: shrinks" in volume.sentence and "Fixed beforehand" in volume.notes[0]
    assert (verdicts["whole_low"] < verdicts["whole"]).all() and (verdicts["intervals"] == 10).all()


def test_the_curves_of_each_arm_go_through_their_points(shrinks):
    tables = shrinks["scaling"].tables
    points = tables["points"].groupby(["arm", "images"])["error"].mean()
    for arm, band in tables["bands"].groupby("arm"):
        drawn = np.interp(points[arm].index, band["images"], band["error"])
        assert np.abs(drawn - points[arm]).max() < 0.02
        assert (band["low"] <= band["error"] + 1e-9).all() and (band["error"] <= band["high"] + 1e-9).all()
    assert set(tables["laws"]["arm"]) == {"full", "binary", "ternary", "binary and full", "ternary and full"}


@pytest.mark.long
def test_each_arm_is_held_against_the_full_one_of_its_recipe(simulated):
    plain = {"augment": False}
    steps = [{"name": n, "layer": {"weights": n}} for n in ("full", "binary")]
    steps += [{"name": f"{n}, plain", "layer": {"weights": n}, "recipe": plain} for n in ("full", "binary")]
    found = findings(load_run(simulated(0.10, 0.03, seeds=3, arms=steps)))["volume"]
    assert list(found.tables["verdicts"]["arm"]) == ["binary", "binary, plain"]
    assert 'the gap to "full, plain"' in found.sentence
    assert list(found.tables["verdicts"]["baseline"]) == ["full", "full, plain"]
    assert found.tables["verdicts"]["same_recipe"].all() and "together" not in found.sentence
    assert list(found.tables["bought"].drop_duplicates("arm")["arm"]) == ["full", "binary"]


@pytest.mark.long
def test_an_arm_without_a_full_one_of_its_recipe_says_so(simulated):
    steps = [{"name": n, "layer": {"weights": n}} for n in ("full", "binary")]
    steps += [{"name": "binary, plain", "layer": {"weights": "binary"}, "recipe": {"augment": False}}]
    found = findings(load_run(simulated(0.10, 0.03, seeds=3, arms=steps)))["volume"]
    verdicts = found.tables["verdicts"].set_index("arm")
    assert dict(verdicts["baseline"]) == {"binary": "full", "binary, plain": "full"}
    assert dict(verdicts["same_recipe"]) == {"binary": True, "binary, plain": False}
    told = verdicts["sentence"].str.contains(
        "the gap to full, in recipe and quantization together,", regex=False
    )
    assert dict(told) == {"binary": False, "binary, plain": True}
    assert verdicts.loc["binary", "verdict"] == "shrinks"


def test_the_laws_have_both_kinds_of_interval(shrinks):
    laws = shrinks["scaling"].tables["laws"]
    for low, high in (("low", "high"), ("profile_low", "profile_high")):
        assert (laws[low] <= laws["value"] * (1 + 1e-6)).all() and (
            laws["value"] <= laws[high] * (1 + 1e-6)
        ).all()
    assert not np.allclose(laws["low"], laws["profile_low"], rtol=1e-3)


def test_a_cell_whose_trials_have_not_ended_is_empty(simulated):
    path = simulated(0.1, 0.0, seeds=2)
    records = (path / "ledger.jsonl").read_text().splitlines(keepends=True)
    (path / "ledger.jsonl").write_text("".join(line for line in records if '"arm":"full"' in line))
    cells = findings(load_run(path))["cells"].tables["cells"].set_index("cell")
    assert cells.loc["full, fraction 0.01", "n"] == 2 and cells.loc["binary, fraction 0.01", "n"] == 0


def keep(path, condition):
    lines = (path / "ledger.jsonl").read_text().splitlines(keepends=True)
    (path / "ledger.jsonl").write_text("".join(line for line in lines if condition(json.loads(line))))


def test_only_cells_with_a_mean_are_compared(simulated):
    path = simulated(0.1, 0.0, seeds=2)
    keep(path, lambda record: record["arm"] == "full")
    finding = findings(load_run(path))["cells"]
    assert "highest of 5 means" in finding.sentence and "of the 4 others" in finding.sentence
    assert "over all 10 pairs" in finding.sentence
    assert "10 of 15 cells have no mean yet" in finding.notes


def test_with_one_seed_no_interval_is_claimed(simulated):
    found = findings(load_run(simulated(0.1, 0.0, seeds=1)))
    sentence = found["cells"].sentence
    assert "on 1 seed; with one seed no two can be told apart; all on" in sentence
    assert "interval" not in sentence and "1 seeds" not in str([each.notes for each in found.values()])
    assert measure(RunResults(load_run(simulated(0.1, 0.0, seeds=1)))).how == "test accuracy over 1 seed"


def test_seeds_are_whole_numbers_while_trials_are_open(simulated):
    path = simulated(0.1, 0.0, seeds=4)
    keep(path, lambda record: record["seed"] > 1 or record["images"] < 20_000)
    notes = " ".join(findings(load_run(path))["volume"].notes)
    assert "of seed 0, 1)" in notes and "0.0" not in notes


def test_figures_of_an_empty_run_say_so(simulated):
    path = simulated(0.1, 0.0, seeds=1)
    (path / "ledger.jsonl").write_text("")
    done = run_ablate(path.parent, "figures", path.name)
    assert done.returncode == 0 and "run: no trial is recorded yet" in done.stdout


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_an_axis_of_zeros_is_linear():
    axis = {"title": "error"}
    assert logarithmic(axis, pd.Series([0.0, 0.0])) == axis
    assert logarithmic(axis, pd.Series([0.0, 1.0, 50.0]))["type"] == "log"


@pytest.mark.long
def test_test_images_are_drawn_too_before_the_last_trial_has_ended(simulated):
    path = simulated(0.1, 0.0, seeds=3)
    records = load_run(path).records.to_dict("records")[:-1]
    (path / "ledger.jsonl").unlink()
    (path / "predictions").mkdir()
    random, labels = np.random.default_rng(0), np.arange(200) % 10
    for record in records:
        guesses = np.where(random.random(200) < record["test_accuracy"], labels, (labels + 1) % 10)
        record["test_accuracy"] = float((guesses == labels).mean())
        file = path / "predictions" / f"{record['trial_id']}.npz"
        np.savez(file, test_logits=np.eye(10)[guesses], test_labels=labels)
        append(path / "ledger.jsonl", record)
    finding = findings(load_run(path))["volume"]
    gaps = finding.tables["gaps"]
    assert (gaps["low"] < gaps["gap"]).all() and (gaps["gap"] < gaps["high"]).all()
    assert any("intervals cover seeds and 200 test images" in note for note in finding.notes)


@pytest.mark.long
def test_what_is_too_few_is_not_said(simulated):
    found = findings(load_run(simulated(0.1, 0.0, seeds=1)))
    assert "inconclusive" in found["volume"].sentence and "two paired seeds" in " ".join(
        found["volume"].notes
    )
    assert not found["ladder"] and found["ladder"].notes == ("the study is no ladder",)


def test_the_findings_of_a_search(finished):
    found = findings(load_run(finished[0]))
    front = found["front"].tables["trials"]
    assert front["front"].sum() == len(found["front"].tables["front"]) >= 1
    assert front["front_probability"].isna().all() and "one seed" in found["front"].notes[0]
    course = found["progress"].tables["hypervolume"]["hypervolume"]
    assert course.is_monotonic_increasing and course.iloc[-1] == 1
    matrix = found["confusion"].tables["confusion"]
    assert (matrix.groupby(["model", "label"])["share"].sum().round(6).isin([0, 1])).all()
    assert found["volume"].notes and not found["volume"].sentence


def test_a_model_whose_predictions_are_lost_is_named_and_the_others_are_shown(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished[0], run)
    whole = findings(load_run(run))["confusion"]
    lost = re.search(r"quantized is (\w+)", whole.notes[0])[1]
    file = run / "predictions" / f"{lost}.npz"
    kept = file.read_bytes()
    for content in (b"", kept[:-200], kept[:100] + b"\xff" * 100 + kept[200:]):
        file.write_bytes(content)
        found = findings(load_run(run))["confusion"]
        assert f"the predictions of quantized, trial {lost}, are not there" in found.notes
        assert set(found.tables["confusion"]["model"]) == {"full"} and found.sentence


def test_a_run_without_a_record(finished, tmp_path):
    (tmp_path / "study.toml").write_bytes((finished[0] / "study.toml").read_bytes())
    (tmp_path / "ledger.jsonl").touch()
    found = findings(load_run(tmp_path))
    assert not any(found.values())
    assert all(finding.notes and not finding.sentence for finding in found.values())


def test_confusions_count():
    table = confusions({"m": (np.array([0, 1, 1]), np.array([0, 0, 1]))}, ["cat", "dog"])
    assert table.set_index(["label", "predicted"])["count"].to_dict() == {
        ("cat", "cat"): 1,
        ("cat", "dog"): 1,
        ("dog", "dog"): 1,
    }
    assert list(table["share"]) == [0.5, 0.5, 1]


def test_a_difference_of_two_matrices_is_taken_cell_by_cell():
    labels = np.array([0, 0, 0, 1])
    table = confusions({"full": (labels, labels), "m": (np.array([0, 1, 1, 1]), labels)}, ["cat", "dog"])
    found = differences(
        table.sample(frac=1, random_state=0).sort_values("model", kind="stable")
    )  # cells in another order
    assert set(found["model"]) == {"m"}
    assert found.set_index(["label", "predicted"])["difference"].to_dict() == {
        ("cat", "cat"): -2,
        ("cat", "dog"): 2,
    }
    zero = pd.DataFrame(
        {"model": ["full", "m"], "label": "dog", "predicted": "cat", "count": 0, "share": 0.0}
    )
    assert differences(pd.concat([table, zero])).equals(
        differences(table)
    )  # as files of earlier versions have them
    assert differences(table[table["model"] == "full"]).empty


def test_tables_of_many_classes_grow_with_the_images_and_not_with_the_pairs():
    classes, random = [f"class {i}" for i in range(10_000)], np.random.default_rng(0)
    labels = np.repeat(np.arange(10_000), 2)
    guesses = {name: (random.integers(0, 10_000, labels.size), labels) for name in ("full", "m")}
    tracemalloc.start()
    table = confusions(guesses, classes)
    found, worst = differences(table), most_confused(table, classes, 50)
    assert tracemalloc.get_traced_memory()[1] < 50e6  # a square of 10,000 has 800 MB
    tracemalloc.stop()
    assert (
        len(table) <= 2 * labels.size >= len(found)
        and table["count"].sum() == 2 * labels.size
        and (table["count"] > 0).all()
    )
    assert len(worst) == 50 and worst == sorted(worst, key=classes.index)


def test_the_classes_that_are_confused_most():
    labels = np.array([0, 0, 0, 1, 2, 3])
    table = confusions({"m": (np.array([2, 2, 0, 1, 2, 1]), labels)}, ["a", "b", "c", "d"])
    assert most_confused(table, ["a", "b", "c", "d", "unseen"], 2) == ["a", "c"]
    assert most_confused(table, ["a", "b", "c", "d", "unseen"], 9) == ["a", "b", "c", "d", "unseen"]


@pytest.mark.parametrize("design", [["ladder", "leave-one-out"], ["leave-one-out"]])
def test_of_a_ladder_its_ends_are_compared_and_not_every_rung(tmp_path, design):
    steps = [{"name": name, "recipe": {"epochs": i}} for i, name in enumerate(("one", "two", "three"), 3)]
    reference = {"name": "full precision", "layer": {"weights": "full"}}
    space = {"description": "d", "layer": {"weights": "binary"}}
    study = StudySpec(
        question="?", space=space, design=design, steps=steps, reference=reference, base="bottom"
    )
    run = create_run(tmp_path, study, {"classes": ["cat", "dog"], "layer_groups": ["block0.fc1"]})
    (tmp_path / "predictions").mkdir()
    planned = Design(study, ["block0.fc1"])
    while spec := planned.ask():
        record = blank_record(spec, trial_id(spec)) | {"status": "complete", "images": 10, "size_bytes": 1}
        record |= {"accuracy": 0.5, "test_accuracy": 0.5}
        append(run.path / "ledger.jsonl", record)
        said = (
            [0, 1, 1] if spec.layers else [1, 1, 1]
        )  # the reference is another, so that each differs from it
        kept = {"test_logits": np.eye(2)[said], "test_labels": np.array([0, 1, 0])}
        np.savez(tmp_path / "predictions" / f"{record['trial_id']}.npz", **kept)
        planned.tell(record)
    tables = findings(load_run(tmp_path))["confusion"].tables
    shown = ["full precision", "bottom", "three"] if "ladder" in design else ["full precision", "all"]
    assert (
        list(dict.fromkeys(tables["confusion"]["model"]))
        == list(dict.fromkeys(tables["examples"]["model"]))
        == shown
    )
    assert list(dict.fromkeys(tables["confusion_difference"]["model"])) == shown[1:]


def test_what_data_and_recipe_buy_adds_up():
    corner = {("old", 10): 0.2, ("old", 100): 0.5, ("new", 10): 0.3, ("new", 100): 0.7}
    rows = [
        (arm, images, seed, value + 0.01 * seed)
        for (arm, images), value in corner.items()
        for seed in range(3)
    ]
    table = pd.DataFrame(rows, columns=["arm", "images", "seed", "test_accuracy"])
    found = paired.crossing(table, [("old", "new")])
    assert dict(zip(found["bought_by"], found["mean"].round(9), strict=True)) == {
        "data": 0.3,
        "new": 0.1,
        "both": 0.5,
        "both, beyond the sum": 0.1,
    }


def test_a_pair_of_classes_that_is_confused_more_often():
    labels = np.repeat([0, 1, 2], 20)
    baseline, guesses = labels.copy(), labels.copy()
    guesses[:8] = 1  # 8 of the first class taken for the second, where the baseline is right
    baseline[40:42] = guesses[40:42] = 0
    found = changed(guesses, baseline, labels, ["cat", "dog", "ship"]).set_index(["class", "other"])
    assert found.loc[("cat", "dog"), ["images", "confused", "baseline_confused"]].tolist() == [40, 8, 0]
    assert found.loc[("cat", "dog"), "p"] == pytest.approx(
        2 * 0.5**8
    )  # exact binomial: 8 of 8, on both sides
    assert found.loc[("cat", "ship"), ["confused", "baseline_confused", "p"]].tolist() == [2, 2, 1]


def test_what_repeats_is_sure_on_every_seed_and_in_one_direction():
    pairs = {
        ("cat", "dog"): [(9, 1, 1e-6)] * 2,
        ("cat", "ship"): [(9, 1, 1e-6), (1, 9, 1e-6)],
        ("dog", "ship"): [(9, 1, 1e-6), (9, 8, 0.5)],
    }
    rows = [("m", seed, *pair, *row) for pair, seeds in pairs.items() for seed, row in enumerate(seeds)]
    columns = ["model", "seed", "class", "other", "confused", "baseline_confused", "p"]
    found = repeated(pd.DataFrame(rows, columns=columns))
    assert found.groupby(["class", "other"], sort=False)["repeated"].unique().tolist() == [
        [True],
        [False],
        [False],
    ]
    assert found["holm"].iloc[0] == pytest.approx(6e-6) and list(found["sure"]) == [True] * 5 + [False]
    assert list(found["holm_every_seed"]) == pytest.approx([3e-6] * 2 + [1] * 4)


def test_confusions_are_adjusted_over_models_and_seeds_too():
    """A p of 0.004 is sure among the 10 pairs of one model, but not among those of two models."""
    rows = [(model, 0, i, j, 9, 1, 0.5) for model in ("a", "b") for i in range(5) for j in range(i)]
    changes = pd.DataFrame(
        rows, columns=["model", "seed", "class", "other", "confused", "baseline_confused", "p"]
    )
    changes.loc[0, "p"] = 0.004
    assert repeated(changes[changes["model"] == "a"])["sure"].sum() == 1
    both = repeated(changes)
    assert both["sure"].sum() == both["repeated"].sum() == 0 and (both["contrasts"] == 20).all()


def lose_the_test_accuracy(path, line):
    """Take it out of one record of a run's ledger."""
    records = ledger.read(path / "ledger.jsonl")
    records[line] |= {"test_accuracy": None, "test_loss": None}
    (path / "ledger.jsonl").unlink()
    for record in records:
        ledger.append(path / "ledger.jsonl", record)


def test_one_test_accuracy_that_is_missing_is_left_out_and_counted(simulated):
    path = simulated(0.1, 0.0, seeds=3)
    whole = design_findings.cells(RunResults(load_run(path)))
    lose_the_test_accuracy(path, 7)
    found = design_findings.cells(RunResults(load_run(path)))
    counts = found.tables["cells"]["n"]
    assert sorted(counts) == [2] + [3] * (len(counts) - 1) and len(whole.tables["cells"]) == len(counts)
    complete = len(load_run(path).records)
    assert found.notes == (f"left out, with their pairs: 1 of {complete} trials without test_accuracy",)
    assert "all on half A of the test images" in found.sentence and whole.notes == ()


def test_the_best_cell_is_above_those_that_it_can_be_told_from(simulated):
    found = design_findings.cells(RunResults(load_run(simulated(0.1, 0.0))))  # at the end two are alike
    means = found.tables["cells"]
    assert list(means.columns) == ["cell", "n", "mean", "low", "high", "means"]
    n, best = len(means), means.loc[means["mean"].idxmax(), "cell"]
    start = re.escape(f"The highest of {n} means is that of {best}: ")
    above = re.match(
        rf"{start}.* above (\d+) of the {n - 1} others .* all {n * (n - 1) // 2} pairs", found.sentence
    )
    assert (means["means"] == n).all() and 10 <= int(above[1]) < n - 1


def climbed(path, seeds, lost=0, gains=(0.1, 0.0, 0.0)):
    """A made-up run of a ladder of three steps with these gains; the first records lack a test accuracy."""
    changes = {"one": ("augment", False), "two": ("ema", 0.99), "three": ("warmup", 0.25)}
    steps = [{"name": name, "recipe": dict([change])} for name, change in changes.items()]
    space = {"description": "d", "layer": {"weights": "binary"}}
    design = ["ladder", "leave-one-out"]
    study = StudySpec(question="?", space=space, design=design, steps=steps, base="bottom", seeds=seeds)
    run = create_run(path, study, {"classes": ["cat", "dog"], "layer_groups": ["block0.fc1"]})
    planned, random = Design(study, ["block0.fc1"]), np.random.default_rng(0)
    for i, spec in enumerate(iter(planned.ask, None)):
        taken = [getattr(spec.recipe, field) == value for field, value in changes.values()]
        accuracy = 0.4 + np.dot(taken, gains) + random.normal(0, 0.005)
        record = blank_record(spec, trial_id(spec)) | {"status": "complete", "images": 10, "size_bytes": 1}
        record |= {"accuracy": accuracy, "test_accuracy": None if i < lost else accuracy}
        append(run.path / "ledger.jsonl", record)
        planned.tell(record)
    return RunResults(load_run(path))


def test_a_ladder_says_which_gains_can_be_told_from_nothing(tmp_path):
    found = design_findings.ladder(climbed(tmp_path, 6))
    rungs = found.tables["ladder"].set_index("rung")
    assert (rungs["contrasts"] == 6).all() and (rungs["means"] == 4).all()
    assert "1 of 3 gains can be told from 0, by the largest estimate one: +" in found.sentence
    assert found.notes == (
        "95 % intervals are simultaneous over 6 gains and costs; with 6 seeds each is 1.6 times as wide as "
        f"it would be alone; {RULE}",
        "those of the means are simultaneous over 4 means",
    )


def test_a_ladder_of_noise_names_no_step(tmp_path):
    found = design_findings.ladder(climbed(tmp_path, 4, gains=(0.0, 0.0, 0.0)))
    assert "none of 3 gains can be told from 0" in found.sentence and "largest" not in found.sentence


def costly(path, cost):
    """A made-up sensitivity of two groups on four seeds: the first costs this much, the second nothing."""
    space = {"description": "d", "layer": {"weights": {"each": ["full", "binary"]}}}
    study = StudySpec(question="?", space=space, design="sensitivity", seeds=4)
    run = create_run(path, study, {"classes": ["cat", "dog"], "layer_groups": ["a", "b"]})
    planned, random = Design(study, ["a", "b"]), np.random.default_rng(0)
    while spec := planned.ask():
        accuracy = 0.6 - cost * ("a" in spec.layers) + random.normal(0, 0.002)
        record = blank_record(spec, trial_id(spec)) | {"status": "complete", "images": 10, "size_bytes": 1}
        record |= {"accuracy": accuracy, "loss": 1 - accuracy}
        append(run.path / "ledger.jsonl", record)
        planned.tell(record)
    return design_findings.sensitivity(RunResults(load_run(path)))


def test_a_sensitivity_names_only_costs_that_can_be_told_from_nothing(tmp_path):
    found = costly(tmp_path / "some", 0.2)
    assert re.match(r"Binary costs \+\d+\.\d points \(\+", found.sentence)
    for how in ("alone", "last"):
        assert (
            f"binary {how}, 1 of 2 costs can be told from 0, by the largest estimate a: +" in found.sentence
        )
    assert found.notes[0].startswith("95 % intervals are simultaneous over 5 costs in accuracy; with 4 seeds")
    nothing = costly(tmp_path / "none", 0.0).sentence
    assert "binary alone, none of 2 costs can be told from 0" in nothing and "largest" not in nothing


def test_a_ladder_leaves_a_missing_test_accuracy_out_with_its_pairs(tmp_path):
    found = design_findings.ladder(climbed(tmp_path, 6, lost=1))
    rungs = found.tables["ladder"].set_index("rung")
    assert (
        rungs.loc["bottom", "n"] == 5 and rungs.loc["one", "gain_n"] == 5 and rungs.loc["two", "gain_n"] == 6
    )
    assert found.notes[0] == "left out, with their pairs: 1 of 36 trials without test_accuracy"


def test_examples_are_the_first_of_their_class():
    logits = np.array([[2.0, 0.0], [0.0, 3.0], [1.0, 0.0], [0.0, 1.0]])
    found = examples(logits, np.array([0, 0, 1, 1]), ["cat", "dog"])
    assert found[["right", "image", "label", "predicted"]].to_numpy().tolist() == [
        [True, 0, "cat", "cat"],
        [True, 3, "dog", "dog"],
        [False, 1, "cat", "dog"],
        [False, 2, "dog", "cat"],
    ]
    assert found["confidence"].iloc[0] == pytest.approx(1 / (1 + np.exp(-2)))
