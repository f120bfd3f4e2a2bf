"""Every figure of a run: drawn, the same each time, and fit for print."""

import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from ablate.figures import draw
from ablate.findings import findings, write_tables
from ablate.paper_figures import fig_confusion, fig_ladder, fig_pareto
from ablate.paper_figures.style import figure
from ablate.run import load_run


@pytest.fixture(scope="module")
def volume_run(simulated):
    run = load_run(simulated(0.10, 0.03))
    return run, findings(run)


@pytest.fixture(scope="module")
def few(simulated):
    return simulated(0.05, 0.05, seeds=2)


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


def test_the_command_draws_each_run_it_is_given(finished, few):
    runs = [str(finished[0]), str(few)]
    done = subprocess.run([sys.executable, "-m", "ablate", "figures", *runs], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    names = {path.name for path in (finished[0] / "figures").glob("*.pdf")}
    assert names >= {"pareto.pdf", "confusion_full.pdf", "confusion_quantized_less_full.pdf", "examples_wrong_quantized.pdf"}
    assert "pareto.pdf" in done.stdout and "gap.pdf" in done.stdout and "volume: binary: " in done.stdout


def test_a_difference_frames_both_cells_of_what_is_sure(tmp_path, monkeypatch):
    framed, box = [], fig_confusion._box
    monkeypatch.setattr(fig_confusion, "_box", lambda i, j: framed.append((i, j)) or box(i, j))
    rows = pd.DataFrame([(i, j, 1) for i in "abc" for j in "abc"], columns=["label", "predicted", "difference"])
    pairs = pd.DataFrame({"class": ["a", "a", "b"], "other": ["b", "c", "c"], "repeated": [False, True, False]})
    for tested, cells in ((pairs, [(0, 2), (2, 0)]), (None, [])):
        framed.clear()
        fig_confusion.draw_difference(rows, tested, "", tmp_path / "less")
        assert framed == cells and (tmp_path / "less.pdf").exists()


def test_a_ladder_whose_reference_has_not_ended_is_drawn(tmp_path):
    rungs = pd.DataFrame({"rung": ["base", "better"], "mean": [0.4, 0.5], "low": [0.3, 0.4], "high": [0.5, 0.6]})
    rungs = rungs.assign(gain=[np.nan, 0.1], gain_low=[np.nan, 0.05], cost=np.nan, cost_low=np.nan, cost_high=np.nan)
    seeds = pd.DataFrame({"base": [0.35, 0.45], "better": [0.45, 0.55]})
    fig_ladder.draw(rungs, seeds, "", tmp_path / "ladder", "full")
    assert (tmp_path / "ladder.pdf").exists()


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
            taken.append(fig_pareto._name(axes, "all full", points[at], points, taken))
        boxes = [Text.get_window_extent(label) for label in axes.texts]
    for box in boxes:
        assert box.count_contains(places) == 0 and box.count_overlaps(boxes) == 1  # itself
        assert inside.fully_containsx(box.x0) and inside.fully_containsx(box.x1)


def test_bad_input():
    done = subprocess.run([sys.executable, "-m", "ablate", "figures", "nowhere"], capture_output=True, text=True)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
