"""Laws over a grid of images and updates: the one that made the points is found."""

import numpy as np
import pandas as pd
import pytest

from ablate.analysis import curves
from ablate.analysis.grid_laws import grid_laws

SIZES, LENGTHS = (600, 2000, 6000, 20_000), (5000, 20_000, 80_000)
TRUTHS = {
    "images_and_updates": lambda d, t: 0.1 + 40 / t**0.6 + 3 / d**0.4,
    "updates": lambda d, t: 0.1 + 40 / t**0.6,
    "images_times_updates": lambda d, t: 0.05 + 60 / (d**0.3 * t**0.35),
}


def trials(error, lengths=LENGTHS, noise=0.004):
    random = np.random.default_rng(0)
    rows = [
        ("binary", images, views, seed, error(images, views) * np.exp(noise * random.normal()))
        for seed in range(5)
        for views in lengths
        for images in SIZES
    ]
    return pd.DataFrame(rows, columns=["arm", "images", "views", "seed", "error"])


@pytest.mark.long
@pytest.mark.parametrize("law", TRUTHS)
def test_the_law_of_the_points_is_chosen(law, monkeypatch):
    monkeypatch.setattr(curves, "SAMPLES", 20)
    found = grid_laws(trials(TRUTHS[law]))
    assert set(found.laws["law"]) == {law} and not found.laws["rejected"].any()
    choices = found.choices.set_index("law")
    assert len(choices) == 4 and choices["held_out"].idxmin() == law and choices.loc["images", "rejected"]


def test_two_lengths_are_too_few():
    found = grid_laws(trials(TRUTHS["updates"], LENGTHS[:2]))
    assert found.laws.empty and found.choices.empty
    assert found.notes == ("binary: a law needs 3 numbers of image views or more, but got 2",)
