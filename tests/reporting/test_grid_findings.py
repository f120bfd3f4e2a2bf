"""Data or updates? What is said of a grid, in sentences, tables and figures."""

import json

import numpy as np
import pytest

from ablate.config.study_spec import StudySpec
from ablate.reporting import figures, plotly_grid
from ablate.reporting.findings import findings
from ablate.reporting.grid_findings import at_best_lengths, grid
from ablate.reporting.html_report import report
from ablate.reporting.html_tables import html_tables
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

    def make(accuracy, until=10**6, fails=lambda spec: False, images=None, **fields):
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
            arm = next((layer.weights for layer in spec.layers.values()), "full")
            size, views = int(20_000 * spec.fraction), spec.recipe.image_views
            value = accuracy(arm, np.log10(size), np.log10(views)) + random.normal(0, 0.0005)
            value -= 0.01 * (spec.recipe.learning_rate != 2e-3)
            record = blank_record(spec, trial_id(spec)) | {"status": "complete"}
            record["images"] = images(spec) if images else size
            record |= {"accuracy": value, "loss": 1.0, "size_bytes": 1000 if arm == "full" else 100}
            record |= {"test_accuracy": value, "test_loss": 1.0} if spec.test else {}
            if fails(spec):
                record = blank_record(spec, trial_id(spec)) | {"status": "failed", "error": "NaN"}
            append(run.path / "ledger.jsonl", record)
            design.tell(record)
        return load_run(run.path)

    return make


def arrived(arm, images, views):
    """The gap falls by 2 points a decade of images, and accuracy has its maximum at 4,000 views."""
    return 0.6 + 0.05 * images - 0.05 * (views != np.log10(4000)) - (arm != "full") * (0.2 - 0.02 * images)


def rising(arm, images, views):
    return 0.2 + 0.02 * images + 0.1 * views - (arm != "full") * (0.3 - 0.04 * views)


def test_where_all_arms_arrive_they_are_compared_at_their_best_lengths(simulated):
    found = grid(RunResults(simulated(arrived)))
    assert "binary at its best length: shrinks: the gap to full shrinks with data" in found.sentence
    assert "ten times the images by -2.0 points" in found.sentence
    lengths, verdicts = found.tables["lengths"], found.tables["verdicts"]
    assert (lengths["views"] == 4000).all() and not lengths["censored"].any()
    assert (
        list(verdicts["arm"]) == ["binary"]
        and verdicts["views"].isna().all()
        and verdicts["seeds"].item() == 4
    )
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
    assert list(verdicts["views"]) == LENGTHS and (verdicts["arm"] == "binary").all()
    assert (verdicts["intervals"] == 15).all() and verdicts["same_recipe"].all()
    assert verdicts["sentence"][1].startswith("binary at 4,000 image views: constant: the gap to full stays")
    assert any("full at every size; binary at every size" in note for note in found.notes)


def test_an_arm_of_another_recipe_says_so(simulated):
    steps = [{"name": "full"}, {"name": "a", "layer": {"weights": "binary"}, "recipe": {"optimizer": "sgd"}}]
    found = grid(RunResults(simulated(rising, steps=steps)))
    assert not found.tables["verdicts"]["same_recipe"].any()
    assert found.tables["verdicts"]["sentence"].str.contains("in recipe and quantization together").all()
    assert (
        "a: on average over the grid its gap to full, in recipe and quantization together," in found.sentence
    )


def test_nothing_tuned(simulated):
    found = grid(RunResults(simulated(arrived, tune={})))
    assert "binary at its best length: shrinks" in found.sentence


def test_each_arm_is_compared_where_it_has_arrived(simulated):
    """Ternary weights, which rise at every length, do not keep binary ones from their best lengths."""

    def accuracy(arm, images, views):
        return rising(arm, images, views) if arm == "ternary" else arrived(arm, images, views)

    steps = [{"name": "full"}]
    steps += [{"name": name, "layer": {"weights": name}} for name in ("binary", "ternary")]
    found = grid(RunResults(simulated(accuracy, steps=steps)))
    verdicts = found.tables["verdicts"]
    assert list(verdicts["arm"]) == ["binary"] + 3 * ["ternary"]
    assert list(verdicts["intervals"]) == [10] + 3 * [30]
    assert "binary at its best length: shrinks" in found.sentence
    assert "ternary: over images, compared at equal image views" in found.sentence


def test_a_size_at_which_full_precision_fails_does_not_count(simulated):
    found = grid(RunResults(simulated(arrived, fails=lambda spec: spec.fraction == 0.1 and not spec.layers)))
    assert list(found.tables["verdicts"]["views"]) == LENGTHS
    assert any("the mean slopes of binary rest on 6 of 9 cells" in note for note in found.notes)


def test_of_the_tuned_cells_it_is_said_which_rest_on_nothing(simulated):
    failing = (0.01, 1000), (0.1, 1000)  # a corner, and a cell between two
    run = simulated(arrived, fails=lambda spec: (spec.fraction, spec.recipe.image_views) in failing)
    notes = grid(RunResults(run)).notes
    failed = "every tuning trial failed in 2 of 8 tuned cells"
    assert any(note.startswith(failed) and "fraction 0.1," not in note for note in notes)
    assert any("for full at 200 and 2,000 images; binary at 200 and 2,000 images" in note for note in notes)


def test_an_arm_may_be_called_like_another_at_a_length(simulated):
    names = ["binary", "binary, 4,000 image views", "binary at 4,000 image views"]
    steps = [
        {"name": name, "layer": {"weights": "binary"}, "recipe": {"weight_decay": 0.1 * i}}
        for i, name in enumerate(names)
    ]
    found = grid(RunResults(simulated(rising, steps=[{"name": "full, of old"}, *steps])))
    verdicts = found.tables["verdicts"]
    assert verdicts.groupby("arm")["views"].agg(list).to_dict() == dict.fromkeys(names, LENGTHS)
    assert at_best_lengths(found).tables["gaps"].empty


def test_fractions_of_as_many_images_are_not_compared(simulated):
    found = grid(RunResults(simulated(arrived, images=lambda spec: 200)))
    assert not found and found.notes == ("trials of different fractions have as many images",)


def test_where_a_gap_has_no_room_it_is_said(simulated):
    notes = grid(RunResults(simulated(lambda *cell: rising(*cell) - 0.25))).notes
    assert any(
        "where a gap has no room to be large: binary at 200 images and 1,000 views" in of for of in notes
    )


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
    (table,) = html_tables("grid", answers["grid"])
    assert {"gap (%)", "low (%)", "high (%)"} <= {cell.text for cell in table.head}
    panels = plotly_grid.grid(answers["grid"], [])
    assert [len(row) for row in panels[0].data[0]["z"]] == [3, 3, 3]
    assert "not trained to the end at 200 and 2,000 and 20,000 images" in panels[0].title
    json.dumps([panel._asdict() for panel in panels], allow_nan=False)


def test_other_designs_have_no_grid(finished):
    assert not findings(load_run(finished[0]))["grid"].applies
