"""How long each arm has to be trained, and what data and updates change in a gap."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ablate.analysis.lengths import at_best_length, best_lengths, effects, learning, surface

SIZES, LENGTHS = (100, 1000, 10_000), (1000, 4000, 16_000)


def trials(accuracy, arms=("full", "binary"), seeds=4, noise=0.0):
    """A row a trial of a grid; `accuracy` takes the arm, the images and the views."""
    random = np.random.default_rng(0)
    rows = [
        (arm, images, views, seed, accuracy(arm, images, views) + noise * random.normal())
        for seed in range(seeds)
        for views in LENGTHS
        for arm in arms
        for images in SIZES
    ]
    return pd.DataFrame(rows, columns=["arm", "images", "views", "seed", "accuracy"])


def row(table, **at):
    return table.loc[np.logical_and.reduce([table[name] == value for name, value in at.items()])].iloc[0]


@pytest.mark.parametrize(
    ("means", "best", "censored"),
    [
        ((0.5, 0.6, 0.604), 16_000, False),
        ((0.5, 0.6, 0.606), 16_000, True),
        ((0.5, 0.6, 0.55), 4000, False),
        ((0.6, 0.6, 0.6), 1000, False),
        ((0.7, 0.5, 0.6), 1000, True),
    ],
)
def test_the_best_length_and_whether_an_arm_still_rises(means, best, censored):
    curve = dict(zip(LENGTHS, means, strict=True))
    found = best_lengths(trials(lambda arm, images, views: curve[views]), LENGTHS)
    assert (found["views"] == best).all() and (found["censored"] == censored).all() and len(found) == 6
    assert found["last_gain"].to_numpy() == pytest.approx(means[2] - means[1])


def test_one_length_says_nothing_of_the_next():
    one = trials(lambda *cell: 0.5).query("views == 1000")
    found = best_lengths(one, [1000])
    assert found["censored"].all() and found["last_gain"].isna().all()


def test_what_is_gained_is_that_of_a_factor_of_four():
    curve = {1000: 0.5, 4000: 0.598, 8000: 0.6, 16_000: 0.604}
    rows = trials(lambda arm, images, views: curve[views])
    longer = pd.concat([rows, rows[rows["views"] == 1000].assign(views=8000, accuracy=0.6)])
    found = best_lengths(longer, [16_000, 1000, 8000, 4000])
    assert found["last_gain"].to_numpy() == pytest.approx(0.006) and found["censored"].all()
    close = rows[rows["views"] > 1000].assign(views=lambda of: of["views"].replace(4000, 15_000))
    assert best_lengths(close, [15_000, 16_000])["censored"].all()


def test_a_size_whose_longest_training_is_not_known_is_censored():
    rows = trials(lambda arm, images, views: 0.5)
    lost = rows[~((rows["arm"] == "full") & (rows["images"] == 100) & (rows["views"] == 16_000))]
    found = best_lengths(lost, LENGTHS)
    unknown = row(found, arm="full", images=100)
    assert unknown["censored"] and np.isnan(unknown["views"]) and unknown["longest"] == 16_000
    assert found["censored"].sum() == 1 and len(at_best_length(rows, found)) == 5 * 4


def test_lengths_are_compared_on_the_seeds_that_have_all_of_them():
    rows = trials(lambda arm, images, views: 0.5 + 0.1 * (views == 4000))
    rows.loc[rows["seed"] == 3, "accuracy"] += 0.3
    lost = rows[~((rows["seed"] == 3) & (rows["views"] == 4000))]
    assert (best_lengths(lost, LENGTHS)["views"] == 4000).all()
    assert best_lengths(lost.query("seed == 9"), LENGTHS).empty


def test_the_trials_at_the_best_length():
    rows = trials(lambda arm, images, views: 0.5 + 0.1 * (views == (4000 if arm == "full" else 1000)))
    kept = at_best_length(rows, best_lengths(rows, LENGTHS))
    assert kept.groupby("arm")["views"].unique().map(list).to_dict() == {"full": [4000], "binary": [1000]}
    assert len(kept) == 2 * 3 * 4


def test_the_surface_is_that_of_paired_differences():
    rows = trials(lambda arm, images, views: 0.5 - 0.1 * (arm == "binary"), noise=0.02)
    found = row(surface(rows, {"full": ["binary"]}), images=1000, views=4000)
    of = rows.query("images == 1000 and views == 4000").pivot(index="seed", columns="arm", values="accuracy")
    gaps = of["full"] - of["binary"]
    half = stats.t.ppf(1 - 0.05 / 9 / 2, 3) * gaps.std() / 2
    assert [found["gap"], found["low"], found["high"]] == pytest.approx(
        [gaps.mean(), gaps.mean() - half, gaps.mean() + half]
    )
    assert found["n"] == 4 and found["baseline"] == "full"


def test_effects_are_slopes_a_decade():
    def accuracy(arm, images, views):
        return 0.8 - (arm != "full") * (0.3 - 0.02 * np.log10(images) - 0.05 * np.log10(views))

    rows = trials(accuracy, noise=1e-6)
    found = effects(rows, {"full": ["binary"]})
    assert found["per_decade"].to_numpy() == pytest.approx([-0.02, -0.05], abs=1e-5)
    assert (found["low"] < found["per_decade"]).all() and (found["high"] > found["per_decade"]).all()
    ragged = rows[~((rows["seed"] == 0) & (rows["views"] == 1000) & (rows["images"] == 100))]
    assert (effects(ragged, {"full": ["binary"]})["n"] == 3).all() and (found["cells"] == 9).all()
    lost = rows.query("arm == 'full' or images > 100 or views > 1000")
    assert (effects(lost, {"full": ["binary"]})[["n", "cells"]] == [4, 8]).all(axis=None)


@pytest.mark.parametrize("kept", ["views == 1000", "images == 100", "arm == 'full'", "seed > 99"])
def test_where_there_is_no_plane_there_are_no_effects(kept):
    found = effects(trials(lambda *cell: 0.5).query(kept), {"full": ["binary"]})
    assert (found["n"] == 0).all() and found["per_decade"].isna().all()


def test_learning_curves_are_means_with_intervals():
    rows = trials(lambda arm, images, views: 0.5, noise=0.02)
    found = row(learning(rows), arm="binary", images=100, views=1000)
    values = rows.query("arm == 'binary' and images == 100 and views == 1000")["accuracy"]
    half = stats.t.ppf(0.975, 3) * values.std() / 2
    assert found["accuracy"] == pytest.approx(values.mean()) and found["high"] == pytest.approx(
        values.mean() + half
    )
    assert learning(rows.query("seed == 0"))["low"].isna().all()
