"""Which law the error follows: what the finding leaves out, says and draws."""

import json

import numpy as np
import pytest

from ablate.analysis import curves
from ablate.paper_figures import fig_scaling
from ablate.paper_figures.scaling_info import scaling_info
from ablate.reporting import figures, plotly_design_charts
from ablate.reporting.run_results import RunResults
from ablate.reporting.scaling_findings import scaling
from ablate.runs.run import load_run

ARMS = [{"name": name, "layer": {"weights": name}} for name in ("full", "binary")]
pytestmark = pytest.mark.long


@pytest.fixture
def run(simulated, monkeypatch):
    """(change, seeds) -> the finding of a simulated run, each record changed in place."""
    monkeypatch.setattr(curves, "SAMPLES", 20)

    def make(change=lambda record: None, seeds=4):
        path = simulated(0.10, 0.03, seeds=seeds, arms=ARMS)
        records = [json.loads(line) for line in (path / "ledger.jsonl").read_text().splitlines()]
        for record in records:
            del record["crc32"]
            record["steps"] = 313
            change(record)
        (path / "ledger.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        return scaling(RunResults(load_run(path)))

    return make


def is_at(record, arm, images=None):
    return record["arm"] == arm and images in (None, record["images"])


def test_a_missing_test_accuracy_is_left_out_and_counted(run):
    def lose_one(record):
        record["accuracy"] = 0.5  # on validation images
        if is_at(record, "binary", 2000) and record["seed"] == 0:
            record["test_accuracy"] = None

    found = run(lose_one)
    points = found.tables["points"]
    assert "left out: 1 of 40 trials, which have no test accuracy" in found.notes
    assert len(points) == 39 and not np.isclose(points["error"], 0.5).all()


def test_validation_errors_are_named_where_no_trial_was_tested(run):
    found = run(lambda record: record.update(test_accuracy=None))
    assert any("errors are those on the validation images" in note for note in found.notes)


def test_an_arm_at_chance_is_left_out_at_that_size(run):
    def guess(record):
        if is_at(record, "binary", 200):
            record["test_accuracy"] = 0.11 + 0.001 * record["seed"]

    found = run(guess)
    assert "binary: left out at 200 images, where it is near chance" in found.notes
    bands = found.tables["bands"].groupby("arm")["images"].min()
    assert bands["binary"] == pytest.approx(632) and bands["full"] == pytest.approx(200)


def test_a_baseline_at_chance_takes_its_size_from_all_arms(run):
    def guess(record):
        if is_at(record, "full", 200):
            record["test_accuracy"] = 0.1

    found = run(guess)
    assert any("200 images, where full itself is near chance" in note for note in found.notes)
    assert (found.tables["bands"]["images"] > 600).all()


def test_an_arm_at_chance_everywhere_has_no_law(run):
    found = run(lambda record: record.update(test_accuracy=0.1) if is_at(record, "binary") else None)
    assert any(note.startswith("binary: left out at 200 and 632 and 2,000") for note in found.notes)
    assert set(found.tables["laws"]["arm"]) == {"full"}


def test_published_laws_need_lengths_of_training(run):
    assert any("every trial has 313 steps" in note for note in run().notes)
    grown = run(lambda record: record.update(steps=2 * -(-record["images"] // 64)))
    points = grown.tables["points"].set_index("images")["processed"]
    assert set(points[200]) == {400}  # not the 512 of eight whole batches
    assert "images processed" in set(grown.tables["laws"]["data"])


@pytest.fixture
def rejected(run):
    zigzag = {200: 0.35, 632: 0.6, 2000: 0.45, 6320: 0.7, 20_000: 0.6}

    def bend(record):
        if is_at(record, "binary"):
            record["test_accuracy"] = zigzag[record["images"]] + 0.002 * (record["seed"] - 2)

    return run(bend, seeds=8)


def test_a_rejected_law_is_said_to_be_rejected(rejected):
    assert "No law fits binary" in rejected.sentence
    assert "is rejected by lack of fit (F(" in rejected.sentence and "adjusted by Holm" in rejected.sentence
    assert "E =" not in rejected.sentence


def test_a_rejected_law_is_not_drawn(rejected, tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    tables, seen = rejected.tables, []
    monkeypatch.setattr(Figure, "savefig", lambda canvas, path, **options: seen.append(canvas))
    info = scaling_info(tables["points"], tables["bands"], tables["laws"])
    assert info["binary"].rejected and not info["full"].rejected
    fig_scaling.draw(info, "", tmp_path / "scaling")
    [axes] = seen[0].axes
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert [text.endswith(" rejected") for text in legend] == [arm == "binary" for arm in info]
    assert len(axes.containers) == 1  # means with their intervals, of one arm
    assert len(axes.collections) == 2  # a band, and the bars of those intervals
    [panel] = plotly_design_charts.scaling(rejected, [])
    named = {trace["name"]: trace for trace in panel.data if "name" in trace}
    assert "binary: law rejected" in named and "full" in named
    [means] = [trace for trace in panel.data if "error_y" in trace]
    assert len(means["x"]) == 5 and len(means["error_y"]["arrayminus"]) == 5


def test_an_arm_pair_without_a_law_leaves_the_others_drawn(simulated, tmp_path, monkeypatch):
    monkeypatch.setattr(curves, "SAMPLES", 20)
    plain = [{**arm, "name": f"{arm['name']}, plain", "recipe": {"augment": False}} for arm in ARMS]
    path = simulated(0.10, 0.03, seeds=3, arms=[*ARMS, *plain])
    records = [json.loads(line) for line in (path / "ledger.jsonl").read_text().splitlines()]
    for record in records:
        del record["crc32"]
        if record["spec"]["recipe"]["augment"] is False:
            record["test_accuracy"] = 0.1
    (path / "ledger.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    run = load_run(path)
    found = scaling(RunResults(run))
    assert set(found.tables["bands"]["arm"]) == {"full", "binary"}
    assert all(found.tables["bands"][name].dtype.kind == "f" for name in ("images", "error", "low", "high"))
    [file] = figures.draw(run, {"scaling": found}, tmp_path)
    assert file.with_name("scaling.pdf").exists()


def test_a_run_without_any_law_is_drawn(run, tmp_path):
    found = run(lambda record: record.update(test_accuracy=0.5))
    tables = found.tables
    fig_scaling.draw(
        scaling_info(tables["points"], tables["bands"], tables["laws"]), "", tmp_path / "scaling"
    )
    assert (tmp_path / "scaling.pdf").exists()


@pytest.mark.parametrize(
    "seeds, doubt",
    [(1, "with one seed its fit is not tested"), (2, "with two seeds its lack of fit is hardly tested")],
)
def test_a_law_that_is_hardly_tested_is_only_the_closest(run, seeds, doubt):
    def by_a_power_law(record):
        noise = 0.003 * ((7 * record["seed"] + record["images"] // 100) % 5 - 2)
        gap = 1.2 if record["arm"] == "binary" else 1
        record["test_accuracy"] = 1 - gap * 0.6 * (record["images"] / 200) ** -0.3 * (1 + noise)

    found = run(by_a_power_law, seeds=seeds)
    assert found.sentence.startswith("By the points, the closest law is ") and f"; {doubt}." in found.sentence
    assert "points, the law is" not in found.sentence
    sure = run(by_a_power_law, seeds=8).sentence
    assert "tested" not in sure
