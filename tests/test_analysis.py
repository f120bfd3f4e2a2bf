import numpy as np
import pandas as pd
import pytest

from ablate.analysis.pareto import front, front_of
from ablate.paper_figures import fig_pareto


def dominated(a, b, signs):
    return all(a * signs <= b * signs) and any(a * signs < b * signs)


@pytest.mark.parametrize("directions", [["max", "min"], ["min", "min", "max"], ["max"]])
def test_front_against_the_definition(directions):
    signs = np.array([1 if direction == "max" else -1 for direction in directions])
    points = np.random.default_rng(0).integers(0, 6, (60, len(directions))).astype(float)  # with ties and equal points
    expected = [i for i, p in enumerate(points) if not any(dominated(p, q, signs) for q in points)]
    assert front(points, directions).tolist() == expected


def test_front_of_nothing():
    assert front(np.empty((0, 2)), ["max", "min"]).tolist() == []
    assert len(front_of(records([]), {"accuracy": "max"})) == 0


def records(rows):
    names = ["trial_id", "status", "accuracy", "size_bytes", "bitops", "arm", "spec"]
    return pd.DataFrame(rows, columns=names)


ROWS = [
    ("a", "complete", 0.5, 4 * 2**20, 9e9, "full", {"layers": {}}),
    ("b", "complete", 0.4, 2**20, 1e9, "binary", {"layers": {"h": {"weights": "binary", "activation_bits": 8}}}),
    ("c", "failed", None, None, None, "full", {"layers": {}}),
    ("d", "complete", 0.3, 2**20, 2e9, "binary", {"layers": {"h": {"weights": "binary", "activation_bits": 8}}}),
]


def test_failed_trials_are_never_on_the_front():
    table = front_of(records(ROWS), {"accuracy": "max", "size_bytes": "min"})
    assert list(table["trial_id"]) == ["a", "b"]


def test_the_figure_is_the_same_file_each_time(tmp_path):
    trials = records(ROWS)
    trials = trials[trials["status"] == "complete"].assign(
        front=[True, True, False], stairs=[True, True, False], label=["all full", "", ""]
    )
    for objectives in (["accuracy"], ["accuracy", "size_bytes"], ["accuracy", "size_bytes", "bitops"]):
        for name in ("one", "two"):
            fig_pareto.draw(trials, objectives, "title", tmp_path / name)
        for kind in (".png", ".pdf"):
            assert (tmp_path / f"one{kind}").read_bytes() == (tmp_path / f"two{kind}").read_bytes()
        assert b"FontFile2" in (tmp_path / "one.pdf").read_bytes()
