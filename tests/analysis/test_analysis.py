import itertools
import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.analysis.front_uncertainty import attainment
from ablate.analysis.hypervolume import hypervolume, hypervolume_over_trials, reference_point
from ablate.analysis.pareto import front, front_of, knee
from ablate.errors import BadInput
from ablate.paper_figures import fig_pareto
from ablate.paper_figures.pareto_info import pareto_info

SIDE = 5  # of the grid on which the brute force counts cells


@st.composite
def problems(draw, objectives=(1, 2, 3), most=8):
    """Directions, and points on a small grid, so that ties and equal points are common."""
    directions = draw(
        st.lists(st.sampled_from(["min", "max"]), min_size=objectives[0], max_size=objectives[-1])
    )
    row = st.tuples(*[st.integers(0, SIDE)] * len(directions))
    return directions, draw(st.lists(row, min_size=1, max_size=most))


def cells(directions):
    """The unit cells between 0 and SIDE, each by its better and its worse corner."""
    for low in itertools.product(range(SIDE), repeat=len(directions)):
        low = np.array(low)
        better = np.where([d == "min" for d in directions], low, low + 1)
        yield better, 2 * low + 1 - better


def reaches(points, corner, directions):
    """Whether a point is as good as a corner in everything."""
    signs = np.where([d == "min" for d in directions], 1, -1)
    return any((np.array(p) * signs <= corner * signs).all() for p in points)


def worst(directions):
    return [SIDE if d == "min" else 0 for d in directions]


def dominated(a, b, signs):
    return all(a * signs <= b * signs) and any(a * signs < b * signs)


@pytest.mark.parametrize("directions", [["max", "min"], ["min", "min", "max"], ["max"]])
def test_front_against_the_definition(directions):
    signs = np.array([1 if direction == "max" else -1 for direction in directions])
    points = (
        np.random.default_rng(0).integers(0, 6, (60, len(directions))).astype(float)
    )  # with ties and equal points
    expected = [i for i, p in enumerate(points) if not any(dominated(p, q, signs) for q in points)]
    assert front(points, directions).tolist() == expected


def test_front_of_nothing():
    assert front(np.empty((0, 2)), ["max", "min"]).tolist() == []
    assert len(front_of(records([]), {"accuracy": "max"})) == 0


@given(problems())
def test_hypervolume_counts_the_cells_that_are_dominated(problem):
    directions, points = problem
    expected = sum(reaches(points, better, directions) for better, _ in cells(directions))
    assert hypervolume(points, worst(directions), directions) == expected


@given(problems(most=12))
def test_hypervolume_over_trials_is_that_of_the_first_trials(problem):
    directions, points = problem
    expected = [hypervolume(points[: i + 1], worst(directions), directions) for i in range(len(points))]
    assert hypervolume_over_trials(points, worst(directions), directions).tolist() == expected


def test_hypervolume_over_trials_of_numbers_that_are_no_integers():
    points = np.random.default_rng(0).normal(size=(300, 2))
    expected = [hypervolume(points[: i + 1], [-1, 1], ["max", "min"]) for i in range(len(points))]
    assert hypervolume_over_trials(points, [-1, 1], ["max", "min"]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.long
def test_a_hundred_thousand_trials_on_the_front_of_zdt1():
    x = np.random.default_rng(0).permutation(np.linspace(0, 1, 100_000))
    points, directions = np.column_stack([x, 1 - np.sqrt(x)]), ["min", "min"]
    started = time.process_time()
    reference = reference_point(points, directions)
    assert len(front(points, directions)) == 100_000
    over_trials = hypervolume_over_trials(points, reference, directions)
    volume = hypervolume(points, reference, directions)
    assert (
        time.process_time() - started < 5
    )  # seconds; it takes 1.3 on a slow core, of which the volumes over trials take 1.2
    assert reference == pytest.approx([1.1, 1.1])
    assert volume == pytest.approx(1.21 - 1 / 3, abs=1e-5)  # 0.876667
    assert over_trials[-1] == pytest.approx(volume, rel=1e-9) and (np.diff(over_trials) >= 0).all()
    assert points[knee(points, directions)] == pytest.approx([0.25, 0.5], abs=1e-2)


def test_the_reference_point_is_a_tenth_of_the_range_beyond_the_worst():
    assert reference_point([[0.5, 100], [0.9, 300]], ["max", "min"]) == pytest.approx([0.46, 320])
    assert reference_point([[0.5, 0]], ["max", "min"]) == pytest.approx(
        [0.45, 0.1]
    )  # no range: the size, else 1
    with pytest.raises(BadInput, match="at least one point"):
        reference_point([], ["max"])


@settings(max_examples=60)
@given(
    problems((2, 3), 6),
    st.lists(st.integers(0, 6), max_size=3),
    st.sampled_from([0.1, 0.5, 2 / 3, 0.75, 1.0]),
)
def test_attainment_against_counting_the_sets_that_reach_a_cell(problem, cuts, level):
    directions, points = problem
    ends = [0, *sorted(cuts), len(points)]
    sets = [points[a:b] for a, b in itertools.pairwise(ends)]  # some of them empty
    surface = attainment(sets, directions, level)
    assert len(surface) == len(front(surface, directions)) == len(np.unique(surface, axis=0))
    assert (np.diff(surface[:, 0]) * (1 if directions[0] == "min" else -1) >= 0).all()
    for better, _ in cells(directions):
        share = np.mean([reaches(s, better, directions) for s in sets])
        assert reaches(surface, better, directions) == (share >= level - 1e-9)


def test_attainment_starts_with_the_best_in_the_first_objective():
    surface = attainment([[(3, 9), (1, 4)], [(2, 8), (2, 5)]], ["max", "min"], 1)
    assert surface.tolist() == [[2, 9], [1, 5]]
    assert attainment([[(1, 1)], [(2, 2)], [], []], ["min", "min"]).tolist() == [
        [2, 2]
    ]  # both of the four that have any
    with pytest.raises(BadInput, match="2 or 3 objectives"):
        attainment([[(1,)]], ["max"])
    with pytest.raises(BadInput, match="level=0"):
        attainment([[(1, 2)]], ["max", "min"], 0)


@pytest.mark.parametrize("points, directions, expected", [
    ([(0, 10), (3, 3), (10, 0)], ["min", "min"], 1),
    ([(0, 10), (2, 4), (3, 3.5), (10, 0), (10, 10)], ["min", "min"], 1),  # 0.2 + 0.4 against 0.3 + 0.35
    ([(0, 10), (2, 4), (3, 2.5), (10, 0)], ["min", "min"], 2),
    ([(0.9, 4e6), (0.85, 1e6), (0.2, 5e5)], ["max", "min"], 1),  # whatever the units
    ([(9, 9), (0, 10), (3, 3), (3, 3), (10, 0)], ["min", "min"], 2),  # the first of equal ones
    ([(0, 10), (7, 7), (10, 0)], ["min", "min"], None),  # bulges the wrong way
    ([(0, 10), (5, 5), (10, 0)], ["min", "min"], None),  # straight
    ([(0, 1), (0.1, 0.9), (0.7, 0.3), (1, 0)], ["min", "min"], None),  # straight, but for rounding
    ([(0, 10), (10, 0)], ["min", "min"], None),
    ([(1, 1), (1, 1), (2, 2)], ["min", "min"], None),
    ([], ["min", "min"], None),
    ([(0, 10, 5), (3, 3, 5), (10, 0, 5)], ["min"] * 3, 1),  # all are alike in the last
    ([(0, 9, 9), (9, 0, 9), (9, 9, 0), (3, 3, 3)], ["min"] * 3, 3),
    ([(0, 2, 9), (9, 0, 9), (9, 9, 0), (4, 4, 4)], ["min"] * 3, None),  # an extreme has as small a sum
])  # fmt: skip
def test_knee(points, directions, expected):
    assert knee(points, directions) == expected


def test_points_that_are_no_points_are_refused():
    for points in ([[0.5, np.nan]], [[0.5, np.inf]], [[1, 2, 3], [4, 5, 6]], [1, 2]):
        with pytest.raises(BadInput, match=r"finite and \(n, 2\)"):
            front(points, ["max", "min"])
    with pytest.raises(BadInput, match=r"\(n, 2\)"):
        hypervolume([[1, 2]], [1], ["max", "min"])


def records(rows):
    names = ["trial_id", "status", "accuracy", "size_bytes", "bitops", "arm", "spec"]
    return pd.DataFrame(rows, columns=names)


ROWS = [
    ("a", "complete", 0.5, 4 * 2**20, 9e9, "full", {"layers": {}}),
    (
        "b",
        "complete",
        0.4,
        2**20,
        1e9,
        "binary",
        {"layers": {"h": {"weights": "binary", "activation_bits": 8}}},
    ),
    ("c", "failed", None, None, None, "full", {"layers": {}}),
    (
        "d",
        "complete",
        0.3,
        2**20,
        2e9,
        "binary",
        {"layers": {"h": {"weights": "binary", "activation_bits": 8}}},
    ),
]


def test_failed_trials_are_never_on_the_front():
    table = front_of(records(ROWS), {"accuracy": "max", "size_bytes": "min"})
    assert list(table["trial_id"]) == ["a", "b"]


def test_a_front_within_bounds():
    table, objectives = records(ROWS), {"accuracy": "max", "size_bytes": "min"}
    assert list(front_of(table, objectives, {"size_bytes": 2**20})["trial_id"]) == ["b"]  # a bound may be met
    assert list(front_of(table, objectives, {"accuracy": 0.45})["trial_id"]) == ["a"]
    assert list(front_of(table, {"size_bytes": "min"}, {"accuracy": 0.45})["trial_id"]) == [
        "a"
    ]  # no objective itself
    assert list(front_of(table, {"accuracy": "max"}, {"size_bytes": 1e7, "bitops": 5e9})["trial_id"]) == ["b"]
    assert list(front_of(table, objectives, {"accuracy": 0.9})["trial_id"]) == []
    assert len(front_of(records([]), objectives, {"accuracy": 0.9})) == 0
    with pytest.raises(BadInput, match="did you mean 'size_bytes'"):
        front_of(table, objectives, {"size": 1})


@pytest.mark.long
def test_the_figure_is_the_same_file_each_time(tmp_path):
    trials = records(ROWS)
    trials = trials[trials["status"] == "complete"].assign(
        front=[True, True, False], stairs=[True, True, False], label=["all full", "", ""]
    )
    for objectives in (["accuracy"], ["accuracy", "size_bytes"], ["accuracy", "size_bytes", "bitops"]):
        for name in ("one", "two"):
            fig_pareto.draw(pareto_info(trials, objectives), "title", tmp_path / name)
        for kind in (".png", ".pdf"):
            assert (tmp_path / f"one{kind}").read_bytes() == (tmp_path / f"two{kind}").read_bytes()
        assert b"FontFile2" in (tmp_path / "one.pdf").read_bytes()
