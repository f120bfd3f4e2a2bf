"""Every figure of a run: drawn, the same each time, and fit for print."""

import re

import numpy as np
import pandas as pd
import pytest
from commands import run_ablate
from matplotlib.figure import Figure
from matplotlib.text import Text

from ablate.analysis.confusion import confusions, most_confused
from ablate.paper_figures import (
    fig_confusion,
    fig_gap,
    fig_ladder,
    fig_layers,
    fig_pareto,
    fig_scaling,
    fig_sensitivity,
)
from ablate.paper_figures.confusion_info import classes_of, confusion_info, square
from ablate.paper_figures.gap_info import gap_info
from ablate.paper_figures.ladder_info import ladder_info
from ablate.paper_figures.pareto_info import pareto_info
from ablate.paper_figures.scaling_info import scaling_info
from ablate.paper_figures.sensitivity_info import sensitivity_info
from ablate.paper_figures.style import figure
from ablate.reporting.figures import MAX_CLASSES, _slugs, draw
from ablate.reporting.findings import findings, write_tables
from ablate.runs.run import load_run


@pytest.fixture(scope="module")
def volume_run(simulated):
    run = load_run(simulated(0.10, 0.03))
    return run, findings(run)


@pytest.fixture(scope="module")
def few(simulated):
    return simulated(0.05, 0.05, seeds=2)


@pytest.mark.long
def test_a_run_over_data_has_its_figures(volume_run, tmp_path):
    run, found = volume_run
    drawn = draw(run, found, tmp_path)
    assert [path.name for path in drawn] == ["gap", "scaling", "pareto", "layers"]
    for path in drawn:
        pdf = path.with_suffix(".pdf").read_bytes()
        assert b"/FontFile2" in pdf and b"/Type3" not in pdf  # TrueType, embedded
        width, height = map(float, re.search(rb"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+) \]", pdf).groups())
        assert width / 72 in (3.5, 7.0) and height / 72 < 9
        assert path.with_suffix(".png").stat().st_size > 5000


@pytest.mark.long
def test_the_same_findings_give_the_same_files(volume_run, tmp_path):
    run, found = volume_run
    for folder in ("a", "b"):
        draw(run, found, tmp_path / folder)
    for path in sorted((tmp_path / "a").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path


def test_tables_hold_what_the_findings_hold(volume_run):
    run, found = volume_run
    written = {path.stem for path in write_tables(found, run.path / "tables")}
    assert {"verdicts", "gaps", "needed", "laws", "bands", "trials", "front", "cells", "design"} <= written


@pytest.mark.long
def test_the_command_draws_each_run_it_is_given(finished, few):
    runs = [str(finished[0]), str(few)]
    done = run_ablate(".", "figures", *runs)
    assert done.returncode == 0, done.stderr
    names = {path.name for path in (finished[0] / "figures").glob("*.pdf")}
    assert names >= {
        "pareto.pdf",
        "confusion_full.pdf",
        "confusion_quantized_less_full.pdf",
        "examples_wrong_quantized.pdf",
    }
    assert "pareto.pdf" in done.stdout and "gap.pdf" in done.stdout and "volume: binary: " in done.stdout


def test_a_difference_frames_both_cells_of_what_is_sure(tmp_path, monkeypatch):
    framed, frame = [], fig_confusion._frame
    monkeypatch.setattr(fig_confusion, "_frame", lambda i, j: framed.append((i, j)) or frame(i, j))
    rows = pd.DataFrame(
        [(i, j, 1) for i in "abc" for j in "abc"], columns=["label", "predicted", "difference"]
    )
    pairs = pd.DataFrame(
        {"class": ["a", "a", "b"], "other": ["b", "c", "c"], "repeated": [False, True, False]}
    )
    for tested, cells in ((pairs, [(0, 2), (2, 0)]), (None, [])):
        framed.clear()
        matrix = square(rows, "difference", classes_of(rows))
        fig_confusion.draw_difference(matrix, tested, "", tmp_path / "less")
        assert framed == cells and (tmp_path / "less.pdf").exists()


def test_a_ladder_whose_reference_has_not_ended_is_drawn(tmp_path):
    rungs = pd.DataFrame(
        {"rung": ["base", "better"], "mean": [0.4, 0.5], "low": [0.3, 0.4], "high": [0.5, 0.6]}
    )
    rungs = rungs.assign(
        gain=[np.nan, 0.1],
        gain_low=[np.nan, 0.05],
        gain_high=[np.nan, 0.15],
        cost=np.nan,
        cost_low=np.nan,
        cost_high=np.nan,
    )
    seeds = pd.DataFrame({"base": [0.35, 0.45], "better": [0.45, 0.55]})
    fig_ladder.draw(ladder_info(rungs, seeds, "full"), "", tmp_path / "ladder")
    assert (tmp_path / "ladder.pdf").exists()


def test_a_ladder_marks_what_can_be_told_from_nothing():
    ends = {"gain_low": [np.nan, -0.1, 0.05], "gain_high": [np.nan, 0.3, 0.15]}
    costs = {
        "cost": [np.nan, 0.2, 0.1],
        "cost_low": [np.nan, 0.1, -np.inf],
        "cost_high": [np.nan, 0.3, np.inf],
    }
    rungs = pd.DataFrame({"rung": ["base", "one", "two"], "mean": 0.5, "low": 0.4, "high": 0.6, "gain": 0.1})
    seeds = pd.DataFrame(0.5, index=[0], columns=["base", "one", "two"])
    info = ladder_info(rungs.assign(**ends, **costs), seeds)
    assert list(info.rungs["gain_clear"]) == [False, False, True]
    assert list(info.rungs["cost_clear"]) == [False, True, False]


def test_costs_with_wide_intervals_keep_the_numbers_of_their_axis(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(Figure, "savefig", lambda canvas, path, **how: seen.append(canvas))
    costs = pd.DataFrame({"how": "alone", "group": ["a", "b"], "precision": "binary", "accuracy_cost": 0.1})
    fig_sensitivity.draw(sensitivity_info(costs.assign(accuracy_high=1.0)), "title", tmp_path / "sensitivity")
    seen[0].draw_without_rendering()
    labels = seen[0].axes[-1].get_yticklabels()
    assert len(labels) > 2 and all(label.get_visible() for label in labels)


def test_labels_hide_neither_points_nor_each_other(tmp_path):
    """Points in rows and columns, among which most places beside one lie on others."""
    x, y = (axis.ravel() for axis in np.meshgrid(np.linspace(0, 1, 5), np.linspace(0, 1, 5)))
    points = np.column_stack([x, y])
    with figure(tmp_path / "figure") as axes:
        axes.scatter(x, y)
        axes.margins(0.1)
        axes.figure.draw_without_rendering()
        places, inside, taken = axes.transData.transform(points), axes.bbox.frozen(), []
        for at in (0, 1, 12, 24):
            taken.append(fig_pareto._draw_label(axes, "all full", points[at], points, taken))
        boxes = [Text.get_window_extent(label) for label in axes.texts]
    for box in boxes:
        assert box.count_contains(places) == 0 and box.count_overlaps(boxes) == 1  # itself
        assert inside.fully_containsx(box.x0) and inside.fully_containsx(box.x1)


NAMES = [
    "US$ 5 to US$ 10^",
    "a$^$b",
    "$x_1",
    "\\frac{1}",
    "100 %",
    "_hidden",
    "new\nline",
    "größe",
    "<b>x</b>",
    "",
]


def test_names_are_drawn_as_they_are(tmp_path, monkeypatch):
    """Names that are formulas to matplotlib, or that its legends leave out."""
    seen = []

    def looked(canvas, to, *, format, metadata):
        if format == "pdf":
            canvas.draw_without_rendering()  # parses what it takes for a formula
            seen.append({text.get_text() for text in canvas.findobj(Text) if text.get_visible()})

    monkeypatch.setattr(Figure, "savefig", looked)
    names = [name.replace("\n", "\\n") for name in NAMES]
    cells = pd.DataFrame(
        [(a, b, 1, 0.1) for a in NAMES for b in NAMES], columns=["label", "predicted", "count", "share"]
    )
    fig_confusion.draw(confusion_info(cells), NAMES[0], tmp_path / "confusion")
    assert seen.pop() >= {*names, NAMES[0]}
    fig_layers.draw(pd.DataFrame([["binary"] * 10], columns=NAMES), [NAMES[0]], NAMES[1], tmp_path / "layers")
    assert seen.pop() >= {*names}
    points = pd.DataFrame(
        [(arm, size, 1 / size) for arm in NAMES for size in (10, 20)], columns=["arm", "images", "error"]
    )
    bands = points.assign(low=0.01, high=0.2)
    laws = pd.DataFrame({"arm": NAMES[:2], "equation": "E + B/D^beta"})
    fig_scaling.draw(scaling_info(points, bands, laws), "", tmp_path / "scaling")
    drawn = seen.pop()
    assert drawn >= set(names[2:]) and "US$ 5 to US$ 10^: E + B/Dᵝ" in drawn


def crowded(axis):
    """Pairs of an axis' names that lie on each other, seen across the direction in which they run."""
    labels = [label for label in axis.get_ticklabels() if label.get_visible() and label.get_text()]
    places = [label.get_window_extent().p0 for label in labels]
    turn = np.deg2rad(labels[0].get_rotation())
    across = np.diff([[-np.sin(turn), np.cos(turn)] @ place for place in places])
    return (np.abs(across) < labels[0].get_fontsize() * labels[0].figure.dpi / 72).sum()


@pytest.mark.parametrize("classes", [10, 25, 102])
def test_a_confusion_matrix_can_be_read_whatever_its_classes(classes, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(Figure, "savefig", lambda canvas, path, **how: seen.append(canvas))
    names = [f"{i} a class whose name has about sixty letters, as some have, {i}" for i in range(classes)]
    random = np.random.default_rng(0)
    table = confusions({"m": tuple(random.integers(0, classes, (2, 2000)))}, names)
    kept = most_confused(table, names, MAX_CLASSES)
    fig_confusion.draw(confusion_info(table, kept), "title", tmp_path / "figure")
    [axes] = (canvas := seen[0]).axes
    canvas.draw_without_rendering()
    assert (
        len(axes.get_yticklabels()) == min(classes, MAX_CLASSES)
        and not crowded(axes.xaxis)
        and not crowded(axes.yaxis)
    )
    assert axes.bbox.width > 0.4 * canvas.bbox.width and canvas.get_size_inches()[1] < 9


@pytest.mark.long
@pytest.mark.parametrize("groups", [37, 150])
def test_layer_maps_can_be_read_whatever_the_groups(groups, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(Figure, "savefig", lambda canvas, path, **how: seen.append(canvas))
    names = [f"vision_model.with_a_long_path.encoder.layers.{i}.mlp.fc1" for i in range(groups)]
    fig_layers.draw(
        pd.DataFrame([["binary"] * groups] * 3, columns=names),
        ["50.0%, 1 KiB"] * 3,
        "title",
        tmp_path / "layers",
    )
    costs = pd.DataFrame(
        {"how": "alone", "group": names, "precision": "binary", "accuracy_cost": 0.1, "accuracy_high": np.nan}
    )
    fig_sensitivity.draw(sensitivity_info(costs), "title", tmp_path / "sensitivity")
    for canvas in seen[::2]:
        canvas.draw_without_rendering()
        shown = [label.get_text() for label in canvas.axes[-1].get_xticklabels() if label.get_visible()]
        assert (
            not crowded(canvas.axes[-1].xaxis)
            and len(shown) >= min(groups, 30)
            and len(set(shown)) == len(shown)
        )


@pytest.mark.parametrize(("objective", "course"), [("accuracy", [20, 30, 30, 40]), ("loss", [2, 2, 1, 1])])
def test_one_objective_is_drawn_trial_by_trial(objective, course, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(Figure, "savefig", lambda canvas, path, **how: seen.append(canvas))
    trials = pd.DataFrame(
        {"accuracy": [0.2, 0.3, 0.1, 0.4], "loss": [2.0, 3.0, 1.0, 4.0], "label": ["all full", "", "", ""]}
    )
    best = trials.index == (2 if objective == "loss" else 3)
    info = pareto_info(trials.assign(front=best, stairs=best), [objective])
    fig_pareto.draw(info, "", tmp_path / "pareto")
    [axes] = seen[0].axes
    assert axes.get_xlabel() == "trial" != axes.get_ylabel()
    assert list(axes.lines[0].get_xdata()) == [1, 2, 3, 4] and list(
        axes.lines[0].get_ydata()
    ) == pytest.approx(course)


def test_values_that_have_no_logarithm_are_drawn_on_linear_scales(tmp_path, monkeypatch):
    """As where every trial counts no bit operations."""
    canvases = []
    monkeypatch.setattr(Figure, "savefig", lambda canvas, path, **options: canvases.append(canvas))
    trials = pd.DataFrame({"accuracy": [0.2, 0.3], "size_bytes": [0, 10], "bitops": 0, "label": ""})
    objectives = ["accuracy", "size_bytes", "bitops"]
    info = pareto_info(trials.assign(front=True, stairs=True), objectives)
    fig_pareto.draw(info, "", tmp_path / "pareto")
    assert canvases[0].axes[0].get_xscale() == "linear"


def test_files_of_names_that_are_alike_do_not_replace_each_other():
    slugs = _slugs(["a b", "a_b_2", "a-b", "A b", "größe", "x" * 300, "猫" * 300, "a\udcff"])
    assert len({slug.casefold() for slug in slugs.values()}) == 8 and slugs["a b"] == "a_b"
    assert max(len(slug.encode()) for slug in slugs.values()) <= 62


def test_a_legend_of_many_arms_lies_on_nothing(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(Figure, "savefig", lambda canvas, path, **how: seen.append(canvas))
    arms = [f"{i}, an arm with a name of about sixty letters, as some of them have" for i in range(9)]
    gaps = pd.DataFrame([(arm, n, True, 0.1) for arm in arms for n in (10, 99)])
    gaps.columns = ["arm", "images", "kept", "gap"]
    verdicts = pd.DataFrame({"arm": arms, "verdict": "grows", "same_recipe": True, "first": 0, "second": 0})
    fig_gap.draw(gap_info(gaps.assign(low=0, high=0.2), verdicts), 0.01, "title", tmp_path / "gap")
    points = pd.DataFrame([(arm, n, 1 / n) for arm in arms for n in (10, 99)])
    points.columns = ["arm", "images", "error"]
    laws = pd.DataFrame({"arm": arms, "equation": "E + B/D^beta"})
    bands = points.assign(low=0.01, high=0.2)
    fig_scaling.draw(scaling_info(points, bands, laws), "title", tmp_path / "scaling")
    for canvas in seen[::2]:
        canvas.draw_without_rendering()
        [axes], [box] = canvas.axes, canvas.legends
        assert not box.get_window_extent().overlaps(axes.get_tightbbox())
        assert axes.bbox.height > 0.4 * canvas.bbox.height


@pytest.mark.long
def test_bad_input():
    done = run_ablate(".", "figures", "nowhere")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
