"""What is fitted to the trials of a study of data volume, and what is drawn of it."""

import numpy as np
import pandas as pd
import pytest

from ablate.analysis.curves import PROCESSED, curves

pytestmark = pytest.mark.long

SIZES = np.array([200, 630, 2000, 6330, 20_000])


@pytest.fixture(autouse=True)
def few_samples(monkeypatch):
    monkeypatch.setattr("ablate.analysis.curves.SAMPLES", 50)


def trials(error, seeds=6, sd=0.01, steps=lambda images: 313, full_epochs=0):
    """error: by arm, of the images (n,)."""
    random, rows = np.random.default_rng(0), []
    for arm, law in error.items():
        for seed in range(seeds):
            noise = np.exp(random.normal(0, sd, len(SIZES)))
            rows += [
                (arm, seed, images, steps(images), steps(images) * 64, full_epochs, value)
                for images, value in zip(SIZES, law(SIZES) * noise, strict=True)
            ]
    columns = ["arm", "seed", "images", "steps", "processed", "full_epochs", "error"]
    return pd.DataFrame(rows, columns=columns)


def falling(floor, scale):
    return lambda images: floor + scale / images**0.5


def zigzag(images):
    return np.array([0.7, 0.5, 0.55, 0.35, 0.45])


def passes(images):
    return images // 32


def test_a_law_that_holds_is_drawn_within_the_measured_range():
    found = curves(
        trials({"full": falling(0.2, 5), "binary": falling(0.25, 6)}), arms=["binary"], baseline="full"
    )
    for _, band in found.bands.groupby("arm"):
        assert (band["images"].min(), band["images"].max()) == pytest.approx((200, 20_000))
        assert set(band["law"]) == {"power_floor"}
    laws = found.laws[found.laws["law"] != "multiplier"]
    assert laws["chosen"].all() and not laws["rejected"].any()


def test_a_rejected_law_is_flagged_and_the_means_are_drawn():
    records = trials({"full": falling(0.2, 5), "binary": zigzag})
    found = curves(records, arms=["binary"], baseline="full")
    law = found.laws[found.laws["arm"] == "binary"].iloc[0]
    assert law["rejected"] and not law["chosen"] and law["p_holm"] < 0.05
    assert law["flags"].startswith("rejected by lack of fit (F(")
    if law["law"] == "power_floor":
        assert "E cannot be taken for a floor" in law["flags"]
    means = found.bands[found.bands["arm"] == "binary"]
    assert list(means["images"]) == list(SIZES) and set(means["law"]) == {""}
    assert (means["low"] < means["error"]).all() and (means["error"] < means["high"]).all()
    assert means["error"].to_numpy() == pytest.approx(zigzag(SIZES), rel=0.02)
    pair = found.laws[found.laws["arm"] == "binary and full"]
    assert pair["rejected"].all() and not pair["chosen"].any()
    assert any(note.startswith("binary: lack of fit rejects power (F(") for note in found.notes)


def test_published_laws_are_fitted_to_the_images_processed():
    records = trials({"full": falling(0.2, 5), "binary": falling(0.25, 5)}, steps=passes)
    found = curves(records, arms=["binary"], baseline="full")
    laws = found.laws[found.laws["data"] == PROCESSED]
    assert set(laws["law"]) == {"gap_constant", "gap_power"} and set(laws["arm"]) == {"binary and full"}
    delta = laws.set_index(["law", "parameter"]).loc[("gap_constant", "delta")]
    assert delta["value"] == pytest.approx(0.05, abs=0.01) and delta["low"] < delta["value"] < delta["high"]
    assert not any("published" in note for note in found.notes)
    assert any(note.startswith("the law of Dremov et al. 2025") for note in found.notes)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "every trial has 313 steps"),
        ({"steps": lambda images: 50 + 263 * (images > 2000)}, "50 or 313 steps, and 3 lengths"),
        ({"steps": passes, "full_epochs": 2}, "start from a full-precision phase"),
        ({"steps": lambda images: np.nan}, "is not recorded"),
    ],
)
def test_published_laws_are_not_fitted_without_three_lengths_of_training(options, reason):
    arms = ["binary", "ternary"]
    error = {"full": falling(0.2, 5), "binary": falling(0.25, 5), "ternary": falling(0.24, 5)}
    found = curves(trials(error, seeds=3, **options), arms=arms, baseline="full")
    assert PROCESSED not in set(found.laws["data"])
    [note] = [note for note in found.notes if "published laws" in note]
    assert reason in note and note.startswith("binary and full, ternary and full: ")


def test_an_arm_without_points_is_refused_in_a_note():
    records = trials({"full": falling(0.2, 5), "binary": falling(0.25, 5)})
    found = curves(records[records["arm"] == "full"], arms=["binary"], baseline="full")
    assert any(note.startswith("binary: no law can be fitted") for note in found.notes)
    assert set(found.bands["arm"]) == {"full"}
