"""Data or updates? What is said of a grid, in sentences, tables and figures."""

import json

import numpy as np
import pytest

from ablate.config.study_spec import StudySpec
from ablate.reporting import figures, plotly_grid
from ablate.reporting.findings import findings
from ablate.reporting.grid_findings import grid
from ablate.reporting.html_report import report
from ablate.reporting.run_results import RunResults
from ablate.runs.ledger import append
from ablate.runs.record import blank_record
from ablate.runs.run import create_run, load_run
from ablate.search.experiment_design import Design
from ablate.training.trial import trial_id

GROUPS = ["block0.attention", "block0.fc1"]
SIZES, LENGTHS = [0.01, 0.1, 1.0], [1000, 4000, 16_000]
pytestmark = pytest.mark.long


@pytest.fixture
def simulated(tmp_path):
    """(accuracy of an arm, log10 of images and of views) -> a run of a grid with such accuracies."""

    def make(accuracy, until=10**6, **fields):
        space = {"description": "d", "fraction": SIZES, "recipe": {"image_views": LENGTHS}}
        arms = [{"name": "full"}, {"name": "binary", "layer": {"weights": "binary"}}]
        study = StudySpec(
            question="simulated",
            space=space | {"layer": {"weights": "full"}},
            design="grid",
            seeds=4,
            **{"steps": arms, "tuning_seeds": 2, "tune": {"learning_rate": [1e-3, 2e-3, 4e-3]}, **fields},
        )
        about = {"classes": [str(i) for i in range(10)], "layer_groups": GROUPS}
        run = create_run(tmp_path / "run", study, about)
        design, random = Design(study, GROUPS), np.random.default_rng(0)
        for _ in range(until):
            if (spec := design.ask()) is None:
                break
            arm = "binary" if spec.layers else "full"
            images, views = 20_000 * spec.fraction, spec.recipe.image_views
            value = accuracy(arm, np.log10(images), np.log10(views)) + random.normal(0, 0.0005)
            value -= 0.01 * (spec.recipe.learning_rate != 2e-3)
            record = blank_record(spec, trial_id(spec)) | {"status": "complete", "images": int(images)}
            record |= {"accuracy": value, "loss": 1.0, "size_bytes": 1000 if arm == "full" else 100}
            record |= {"test_accuracy": value, "test_loss": 1.0} if spec.test else {}
            append(run.path / "ledger.jsonl", record)
            design.tell(record)
        return load_run(run.path)

    return make


def arrived(arm, images, views):
    """The gap falls by 2 points a decade of images, and accuracy has its maximum at 4,000 views."""
    return 0.6 + 0.05 * images - 0.05 * (views != np.log10(4000)) - (arm == "binary") * (0.2 - 0.02 * images)


def rising(arm, images, views):
    return 0.2 + 0.02 * images + 0.1 * views - (arm == "binary") * (0.3 - 0.04 * views)


def test_where_all_arms_arrive_they_are_compared_at_their_best_lengths(simulated):
    found = grid(RunResults(simulated(arrived)))
    assert "binary at its best length: shrinks: the gap to full shrinks with data" in found.sentence
    assert "ten times the images by -2.0 points" in found.sentence
    lengths, verdicts = found.tables["lengths"], found.tables["verdicts"]
    assert (lengths["views"] == 4000).all() and not lengths["censored"].any()
    assert list(verdicts["arm"]) == ["binary"] and verdicts["seeds"].item() == 4
    assert verdicts["intervals"].item() == 5 and verdicts["same_recipe"].all()
    gaps = found.tables["gaps"].set_index("images")["gap"]
    of = (
        found.tables["paired"]
        .query("views == 4000")
        .pivot_table(index="images", columns="arm", values="accuracy")
    )
    assert set(found.tables["choices"]["arm"]) == {"full", "binary"}
    assert gaps.to_dict() == pytest.approx((of["full"] - of["binary"]).to_dict())


def test_gaps_at_the_best_lengths_are_drawn(simulated):
    run = simulated(arrived)
    answers = findings(run)
    assert {"grid", "lengths", "gap"} <= {path.name for path in figures.draw(run, answers)}
    assert [panel for panel in plotly_grid.grid(answers["grid"], []) if panel.title.startswith("Gap to full")]


def test_where_arms_still_rise_they_are_compared_at_equal_lengths(simulated):
    found = grid(RunResults(simulated(rising)))
    equal = "over images, compared at equal image views, its gap: constant at 1,000 and 4,000 and 16,000"
    assert equal in found.sentence
    assert "ten times the updates by -4.0 points" in found.sentence
    verdicts = found.tables["verdicts"]
    assert list(verdicts["arm"]) == [f"binary, {views:,} image views" for views in LENGTHS]
    assert (verdicts["intervals"] == 15).all() and verdicts["same_recipe"].all()
    assert verdicts["sentence"][1].startswith("binary at 4,000 image views: constant: the gap to full stays")
    assert any("full at every size; binary at every size" in note for note in found.notes)


def test_an_arm_of_another_recipe_says_so(simulated):
    steps = [{"name": "full"}, {"name": "a", "layer": {"weights": "binary"}, "recipe": {"optimizer": "sgd"}}]
    found = grid(RunResults(simulated(rising, steps=steps)))
    assert not found.tables["verdicts"]["same_recipe"].any()
    assert found.tables["verdicts"]["sentence"].str.contains("in recipe and quantization together").all()


def test_nothing_tuned(simulated):
    found = grid(RunResults(simulated(arrived, tune={})))
    assert "binary at its best length: shrinks" in found.sentence


@pytest.mark.parametrize("until", [0, 5, 60, 70, 71, 72, 73, 100])
def test_a_grid_under_way_shows_what_it_has(simulated, until, tmp_path):
    run = simulated(arrived, until)
    answers = findings(run)
    assert answers["grid"].applies and not answers["volume"].applies and not answers["scaling"].applies
    figures.draw(run, answers)
    assert report(run, tmp_path / "page.html").exists()


def test_the_figures_have_every_cell(simulated):
    run = simulated(rising)
    answers = findings(run)
    drawn = {path.name for path in figures.draw(run, answers)}
    assert {"grid", "lengths"} <= drawn and "gap" not in drawn
    panels = plotly_grid.grid(answers["grid"], [])
    assert [len(row) for row in panels[0].data[0]["z"]] == [3, 3, 3]
    assert "not trained to the end at 200 and 2,000 and 20,000 images" in panels[0].title
    json.dumps([panel._asdict() for panel in panels], allow_nan=False)


def test_other_designs_have_no_grid(finished):
    assert not findings(load_run(finished[0]))["grid"].applies
