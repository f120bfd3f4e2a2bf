"""Fractions of factorial designs keep apart what they say."""

import itertools
import json

import numpy as np
import pytest

from ablate.cli.status import dry_run
from ablate.config.study_spec import StudySpec, load_study
from ablate.config.trial_spec import checked
from ablate.engine.plan import plan
from ablate.errors import BadInput
from ablate.execution.ray_cluster import Resources
from ablate.search.experiment_design import Design
from ablate.search.fractional_factorial import fraction

# (factors, runs) -> resolution, of Montgomery, Design and Analysis of Experiments, table of 2^(k-p) designs
TABLE = {
    **{
        (3, 4): 3,
        (4, 8): 4,
        (5, 8): 3,
        (5, 16): 5,
        (6, 8): 3,
        (6, 16): 4,
        (6, 32): 6,
        (7, 8): 3,
        (7, 16): 4,
        (7, 32): 4,
    },
    **{
        (8, 16): 4,
        (8, 32): 4,
        (8, 64): 5,
        (9, 16): 3,
        (9, 32): 4,
        (9, 64): 4,
        (10, 32): 4,
        (10, 64): 4,
        (10, 128): 5,
    },
    **{(11, 16): 3, (11, 64): 4, (15, 16): 3},
}


def aliased(levels):
    """The length of the shortest product of columns that is constant, up to 5."""
    signs = np.where(levels, 1, -1)  # (runs, factors)
    lengths = range(1, min(5, signs.shape[1]) + 1)
    products = (
        (n, signs[:, list(some)].prod(1))
        for n in lengths
        for some in itertools.combinations(range(signs.shape[1]), n)
    )
    return next((n for n, product in products if abs(product.sum()) == len(signs)), 5)


@pytest.mark.parametrize(("size", "expected"), TABLE.items(), ids=str)
def test_a_fraction_is_of_the_resolution_that_the_textbook_has(size, expected):
    levels, resolution = fraction(*size)
    assert levels.shape == size[::-1] and len({tuple(row) for row in levels.tolist()}) == size[1]
    assert (levels.mean(0) == 0.5).all() and resolution == min(expected, 5) == aliased(levels)


def test_all_combinations_are_a_fraction_too():
    levels, _ = fraction(4, 16)
    assert {tuple(row) for row in levels.tolist()} == set(itertools.product([False, True], repeat=4))


def test_of_one_factor_two_runs_are_all():
    levels, resolution = fraction(1, 2)
    assert sorted(levels.ravel().tolist()) == [False, True] and resolution == 5


@pytest.mark.parametrize("runs", [4, 12, 64, 3])
def test_sizes_that_are_none(runs):
    with pytest.raises(
        BadInput, match=rf"power of two above the 5 factors and at most 2\^5, but got {runs}; one such is 8"
    ):
        fraction(5, runs)


def study(tmp_path, tiny_study, points, layer="weights = { each = ['full', 'binary'] }"):
    head, _, _ = tiny_study.replace("trials = 4", f"design = 'factorial'\npoints = {points}").partition(
        "[space.layer]"
    )
    (tmp_path / "f.toml").write_text(
        head.replace("fraction = [0.02, 0.04]", "fraction = 0.02") + "[space.layer]\n" + layer
    )
    return load_study(str(tmp_path / "f.toml"))


@pytest.mark.long
def test_a_fraction_of_a_spaces_points(tiny_study, tmp_path, capsys):
    study_spec = study(tmp_path, tiny_study, 8)
    planned = plan(study_spec)
    assert isinstance(planned.search, Design) and planned.study.trials == 8 and len(planned.groups) == 7
    quantized = [
        [group in cell.spec.layers for group in planned.groups] for cell in planned.search.cells.values()
    ]
    assert np.array(quantized).mean(0).tolist() == [0.5] * 7  # each layer group in half of the trials
    dry_run(study_spec, False, Resources())
    assert "8 of 128 points, of resolution 3: the effect of a factor" in capsys.readouterr().out
    dry_run(study_spec, True, Resources())
    shown = json.loads(capsys.readouterr().out)
    assert (shown["points_of_all"], shown["resolution"]) == (128, 3)


def test_what_has_no_fraction(tiny_study, tmp_path):
    with pytest.raises(BadInput, match="factors of 2 choices, but activation_bits has 3; leave points out"):
        plan(study(tmp_path, tiny_study, 8, "weights = 'binary'\nactivation_bits = [2, 4, 8]"))
    with pytest.raises(BadInput, match="say design = 'factorial', or leave it out"):
        checked(StudySpec, {"question": "?", "space": "bits", "points": 8}, "study")
    fields = {"question": "?", "space": "layers_bits", "design": "factorial"}
    with pytest.raises(
        BadInput, match=r"a design must have 100,000 points at most, but got [\d,]+; give points"
    ):
        Design(checked(StudySpec, fields, "study"), [f"block{i}.fc1" for i in range(12)])
