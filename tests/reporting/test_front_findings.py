"""What a run says about its front: of one seed, of further seeds, of a design."""

import json

import numpy as np
import pandas as pd
import pytest

from ablate.analysis import pareto
from ablate.config.study_spec import StudySpec
from ablate.config.trial_spec import LayerSpec, TrialSpec
from ablate.paper_figures.pareto_info import pareto_info
from ablate.reporting import figures, plotly_front
from ablate.reporting.front_findings import front
from ablate.reporting.html_report import report
from ablate.reporting.run_results import RunResults
from ablate.runs.record import blank_record
from ablate.runs.run import create_run, load_run
from ablate.search.confirmation import confirmations
from ablate.search.experiment_design import Design
from ablate.training.trial import trial_id

GROUPS = [f"block{i}.fc1" for i in range(6)]
IMAGES, SD = 2000, 0.005
SPACE = {"name": "s", "description": "d", "layer": {"weights": "full"}}


def record_of(spec, folder, random, images):
    """A made-up record of a trial; the more layers stay full, the larger and the better, ever less so.

    Its predictions are written where there are images.
    """
    full = len(GROUPS) - len(spec.layers)
    record = blank_record(spec, trial_id(spec)) | {"status": "complete", "images": 100, "loss": 1.0}
    record |= {"size_bytes": 1000 * 2**full, "bitops": 1e9 * (1 + full)}
    expected = 0.3 + 0.5 * (1 - np.exp(-full / 3)) + random.normal(0, SD)
    kept = {}
    for split, column in (("validation", "accuracy"), ("test", "test_accuracy"))[: 1 + bool(spec.test)]:
        right = random.random(IMAGES) < expected
        record[column] = float(right.mean())
        kept |= {f"{split}_logits": np.eye(2)[right.astype(int)], f"{split}_labels": np.ones(IMAGES, int)}
    if images:
        (folder / "predictions").mkdir(exist_ok=True)
        np.savez(folder / "predictions" / f"{record['trial_id']}.npz", **kept)
    return record


def searched(path, *, confirm=0, objectives=("accuracy", "size_bytes"), images=True, anchor_seeds=1):
    """A run of a search, a trial a size, whose front may have been confirmed by further seeds."""
    sizes, layer = len(GROUPS) + 1, LayerSpec(weights="binary")
    space = SPACE | {"objectives": list(objectives)}
    study = StudySpec(question="?", space=space, trials=sizes, confirm=confirm, anchor_seeds=anchor_seeds)
    run, random = create_run(path, study, {"classes": ["a", "b"]}), np.random.default_rng(0)
    specs = [TrialSpec(layers=dict.fromkeys(GROUPS[:n], layer), seed=study.seed) for n in range(sizes)]
    records = [record_of(spec, path, random, images) for spec in specs]
    points = [[record[name] for name in objectives] for record in records]
    chosen = [records[i] for i in pareto.front(points, list(study.directions.values()))]
    records += [record_of(spec, path, random, images) for spec in confirmations(study, chosen)]
    (path / "ledger.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return load_run(run.path)


def designed(path, seeds, sizes=4):
    """A run of a design whose arms have different sizes."""
    arms = [{"name": f"{n} binary", "groups": GROUPS[:n]} for n in range(1, sizes)]
    steps = [{"name": "full", "layer": {"weights": "full"}}]
    steps += [arm | {"layer": {"weights": "binary"}} for arm in arms]
    study = StudySpec(question="?", space=SPACE, design="arms", steps=steps, seeds=seeds)
    create_run(path, study, {"classes": ["a", "b"], "layer_groups": GROUPS})
    design, random, lines = Design(study, GROUPS), np.random.default_rng(0), []
    while spec := design.ask():
        record = record_of(spec, path, random, images=True)
        lines.append(json.dumps(record) + "\n")
        design.tell(record)
    (path / "ledger.jsonl").write_text("".join(lines))
    return load_run(path)


def found_in(run):
    finding = front(RunResults(run))
    return finding, " ".join(finding.notes)


@pytest.mark.long
def test_an_anchors_further_seeds_are_a_bar_and_are_on_no_front(tmp_path):
    run = searched(tmp_path / "run", anchor_seeds=2)
    records = run.records.to_dict("records")
    further = record_of(TrialSpec(seed=1), run.path, np.random.default_rng(1), images=False)
    better = further | {"accuracy": max(record["accuracy"] for record in records) + 0.01}
    with (run.path / "ledger.jsonl").open("a") as file:
        file.write(json.dumps(better) + "\n")
    run = load_run(run.path)
    finding, _ = found_in(run)
    assert better["trial_id"] not in [*finding.tables["trials"]["trial_id"], *run.candidates["trial_id"]]
    (row,) = finding.tables["seed_range"].to_dict("records")
    assert (row["trial_id"], row["n_seeds"]) == (records[0]["trial_id"], 2)
    assert (row["low"], row["high"]) == (records[0]["accuracy"], better["accuracy"])
    assert row["trials"].split() == [records[0]["trial_id"], better["trial_id"]]
    assert finding.notes[0].endswith("are on no front: 1")
    info = pareto_info(finding.tables["trials"], run.study.objectives, finding.tables)
    assert info.spread["x"].tolist() == [records[0]["size_bytes"] / info.x.unit]
    drawn = [figures.draw(run, {"front": finding}, tmp_path / "figures"), report(run).read_text()]
    assert drawn[0][0].with_suffix(".png").exists() and "range over seeds" in drawn[1]


@pytest.mark.long
def test_one_seed_has_a_band_over_images_alone_and_no_probability(tmp_path):
    run = searched(tmp_path / "run")
    finding, notes = found_in(run)
    assert finding.tables["trials"]["front_probability"].isna().all()
    assert "one seed tells nothing about the noise between seeds" in notes
    assert "covers images alone" in notes and "too high by an unknown amount" in notes
    curve = finding.tables["front_fit"]
    assert list(curve)[:4] == ["size_bytes", "accuracy", "low", "high"]
    covered = curve[["measured_on", "measured_seeds", "measured_images"]].drop_duplicates()
    assert covered.to_numpy().tolist() == [["validation", 1, IMAGES]]
    assert (curve["low"] < curve["high"]).all() and curve["accuracy"].is_monotonic_increasing
    assert "The curve through it (validation accuracy of its own trials) has its knee at" in finding.sentence
    assert finding.sentence.count("95 % over images alone") == 2
    page = report(run).read_text()
    assert "One seed tells nothing" in page or "one seed tells nothing" in page
    assert "front probability" not in page and "fit (validation), 95 % over images" in page
    assert (run.path / "tables" / "front_fit.csv").exists()


def test_without_predictions_there_is_no_band(tmp_path):
    finding, notes = found_in(searched(tmp_path / "run", images=False))
    assert finding.tables["front_fit"]["low"].isna().all() and "has no band" in notes
    assert finding.tables["front_sizes"].iloc[:, 2:].isna().all(axis=None)
    assert "95 %" not in finding.sentence
    info = pareto_info(finding.tables["trials"], ["accuracy", "size_bytes"], finding.tables)
    assert info.curve.name == "fit (validation, no band)" and not info.curve.has_band


def test_further_seeds_measure_the_front_afresh(tmp_path):
    run = searched(tmp_path / "run", confirm=3)
    finding, notes = found_in(run)
    curve, points = finding.tables["front_fit"], finding.tables["front_points"].set_index("size_bytes")
    assert set(curve["measured_on"]) == {"test"} and set(curve["measured_seeds"]) == {3}
    assert "(test accuracy over 3 further seeds)" in finding.sentence and "too high" not in notes
    fresh = run.records[run.records["spec"].map(lambda spec: bool(spec["test"]))]
    means = fresh.groupby("size_bytes")["test_accuracy"].mean()
    assert points["accuracy"].to_dict() == pytest.approx(means.to_dict()) and len(points) >= 5
    trials = finding.tables["trials"]
    assert set(trials.loc[trials["front_probability"].notna(), "trial_id"]) == set(points["trial_id"])
    assert "that of a trial's setting, among" in notes and "and its images" in notes
    expected = pareto.fit(means.index, means)
    sizes = finding.tables["front_sizes"]["size_bytes"].tolist()
    assert sizes == pytest.approx([expected.knee.value, expected.within_loss.value])


def test_a_setting_that_lacks_a_seed_is_left_out(tmp_path):
    run = searched(tmp_path / "run", confirm=3)
    members = len(found_in(run)[0].tables["front_points"])
    lines = (run.path / "ledger.jsonl").read_text().splitlines(keepends=True)
    (run.path / "ledger.jsonl").write_text("".join(lines[:-1]))
    finding, notes = found_in(load_run(run.path))
    assert f"left out: 1 of {members} settings, which lack a seed" in notes
    assert len(finding.tables["front_points"]) == members - 1
    assert set(finding.tables["front_fit"]["measured_seeds"]) == {3}


@pytest.mark.parametrize(
    "kept",
    [
        [(0, 0), (1, 1)],  # no seed is that of most settings
        [(0, 0), (0, 1), (1, 1), (1, 2), (2, 0), (2, 2)],  # each seed is, and no setting has all
    ],
)
def test_settings_that_share_too_few_seeds_have_no_curve(tmp_path, kept):
    run = designed(tmp_path / "run", 3)
    lines = (run.path / "ledger.jsonl").read_text().splitlines(keepends=True)
    of = {
        (len(record["spec"]["layers"]), record["seed"]): line
        for line in lines
        for record in [json.loads(line)]
    }
    (run.path / "ledger.jsonl").write_text("".join(of[each] for each in kept))
    run = load_run(run.path)
    finding, notes = found_in(run)
    few = f"too few seeds are shared by the {len({layers for layers, _ in kept})} settings"
    assert f"is not said: {few}" in notes and f"no curve is drawn through the front: {few}" in notes
    assert set(finding.tables) == {"trials", "front"}
    assert finding.tables["trials"]["front_probability"].isna().all()
    assert few in report(run).read_text()
    figures.draw(run, {"front": finding}, tmp_path / "figures")
    assert (tmp_path / "figures" / "pareto.pdf").exists()


@pytest.mark.parametrize("seeds", [1, 4])
def test_a_design_of_several_sizes_has_a_band(tmp_path, seeds):
    finding, notes = found_in(designed(tmp_path / "run", seeds))
    curve, trials = finding.tables["front_fit"], finding.tables["trials"]
    assert (
        set(curve["measured_seeds"]) == {seeds}
        and set(curve["measured_on"]) == {"test"}
        and curve["low"].notna().all()
    )
    assert "chosen by validation images with the same seeds" in notes and "too high" not in notes
    if seeds == 1:
        assert trials["front_probability"].isna().all() and "covers images alone" in notes
    else:
        by_setting = trials.groupby("layers")["front_probability"]
        assert (by_setting.count() == seeds).all() and (by_setting.nunique() == 1).all()


@pytest.mark.long
def test_two_sizes_have_means_with_intervals_in_place_of_a_curve(tmp_path):
    run = designed(tmp_path / "run", 4, sizes=2)
    finding, notes = found_in(run)
    assert "front_fit" not in finding.tables and "3 different sizes or more, but got 2" in notes
    points = finding.tables["front_points"]
    assert (points["low"] < points["accuracy"]).all() and (points["accuracy"] < points["high"]).all()
    [panel] = plotly_front.front(finding, ["accuracy", "size_bytes"])
    [means] = [trace for trace in panel.data if trace.get("name", "").startswith("mean")]
    assert means["name"] == "mean (test), 95 % over 4 seeds and images"
    assert len(means["error_y"]["array"]) == len(means["x"]) == 2
    figures.draw(run, {"front": finding}, tmp_path / "figures")
    assert (tmp_path / "figures" / "pareto.pdf").exists()


@pytest.mark.long
@pytest.mark.parametrize(
    ("objectives", "cost", "drawn"),
    [
        (["accuracy", "bitops"], "bitops", True),
        (["accuracy", "size_bytes", "bitops"], "size_bytes", True),
        (["size_bytes", "accuracy"], "size_bytes", False),
        (["accuracy", "images", "size_bytes"], "size_bytes", False),
        (["accuracy", "images"], None, False),
        (["loss", "size_bytes"], None, False),
        (["accuracy"], None, False),
    ],
)
def test_the_curve_is_over_accuracy_and_the_first_cost_in_ratios(tmp_path, objectives, cost, drawn):
    run = searched(tmp_path / "run", objectives=objectives)
    finding, _ = found_in(run)
    [panel] = plotly_front.front(finding, objectives)
    names = [trace.get("name", "") for trace in panel.data]
    assert any(name.startswith("fit (") for name in names) == drawn
    assert names[-1] == "pinned"  # as report.js expects
    assert ("front_fit" in finding.tables) == ("front_points" in finding.tables) == (cost is not None)
    assert cost is None or cost in finding.tables["front_fit"]
    figures.draw(run, {"front": finding}, tmp_path / "figures")
    assert (tmp_path / "figures" / "pareto.png").exists()


def test_an_objective_that_is_not_counted_gives_no_probability(tmp_path):
    finding, notes = found_in(searched(tmp_path / "run", confirm=2, objectives=["accuracy", "loss"]))
    assert finding.tables["trials"]["front_probability"].isna().all()
    assert "for accuracy beside what is counted" in notes


def test_the_knee_of_the_trials_is_on_a_log_scale_as_that_of_the_curve(tmp_path):
    """On a linear scale it is at another size."""
    finding, _ = found_in(searched(tmp_path / "run"))
    trials = finding.tables["trials"]
    knee = trials.loc[trials["knee"], "size_bytes"].item()
    assert knee == pytest.approx(finding.tables["front_sizes"]["size_bytes"].iloc[0])
    linear = pareto.knee(trials[["accuracy", "size_bytes"]].to_numpy(float), ["max", "min"])
    assert trials.loc[linear, "size_bytes"] != knee


@pytest.mark.long
def test_the_page_shows_the_sizes_with_their_units(tmp_path):
    run = searched(tmp_path / "run", confirm=3)
    page = report(run).read_text()
    sizes = pd.read_csv(run.path / "tables" / "front_sizes.csv")
    assert list(sizes) == ["at", "size_bytes", "size_bytes_low", "size_bytes_high"]
    assert "within 1 point of the best" in page and "size low" in page
    assert "fit (test), 95 % over 3 seeds" in page and "front probability (%)" in page
