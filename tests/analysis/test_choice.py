"""The choice between scaling laws: AICc against closed forms, and laws that made the points."""

import numpy as np
import pytest
from scaling_cases import CURVE, IMAGES, PAIR, PUBLISHED, noisy, published, repeated

from ablate.analysis.aicc import aicc, log_likelihood, normalizer
from ablate.analysis.choice import choose
from ablate.analysis.curves import GAP_LAWS
from ablate.analysis.descent import huber
from ablate.analysis.scaling import fit
from ablate.analysis.scaling_problem import Refused


@pytest.mark.parametrize("delta", [1e-3, 0.05, 10])
def test_the_density_that_aicc_rests_on_integrates_to_one(delta):
    r = np.append(0, np.geomspace(1e-9, 1e5, 100_000))
    for phi in (1e-6, 1e-3, 1e-1):
        assert normalizer(phi, delta) == pytest.approx(
            2 * np.trapezoid(np.exp(-huber(r, delta) / phi), r), rel=1e-6
        )


def test_aicc_is_the_gaussian_and_the_laplace_one_at_either_end():
    found = fit(
        "power", repeated(CURVE, 2), noisy(np.tile(published("power"), 2), 0.05), huber_delta=100, samples=0
    )
    n, k = 16, 3  # B, beta and the dispersion
    variance = np.mean(found.residuals**2)
    assert aicc(found) == pytest.approx(
        n * np.log(2 * np.pi * variance) + n + 2 * k + 2 * k * (k + 1) / (n - k - 1)
    )
    size = np.mean(np.abs(found.residuals))
    assert log_likelihood(found.residuals, 1e-9) == pytest.approx(-n * np.log(2 * size) - n, rel=1e-6)


def test_aicc_is_refused_where_it_is_not_defined():
    loss = noisy(published("power")[:4], 0.02)
    with pytest.raises(Refused, match=r"`n > k \+ 1`, but got n=4 points and k=3"):
        aicc(fit("power", {"D": IMAGES[:4]}, loss, samples=0))
    found = choose(["power", "power_floor"], {"D": IMAGES[:4]}, loss)
    assert found.table["aicc"].isna().all() and found.table["held_out"].notna().all()
    assert sum("AICc needs" in sentence for sentence in found.undecided) == 2


@pytest.mark.long
@pytest.mark.parametrize(
    ("truth", "rivals"),
    [
        ("power_floor", ["power", "power_floor"]),
        ("gap_constant", ["gap_shared", "gap_constant", "gap_free"]),
        ("gap_floors", ["gap_shared", "gap_constant", "gap_free", "gap_floors", "gap_power"]),
        ("gap_power", ["gap_shared", "gap_constant", "gap_power"]),
        ("gap_shared", ["gap_shared", "gap_constant"]),
    ],
)
def test_the_law_that_made_the_points_is_chosen(truth, rivals):
    predictors = repeated(PUBLISHED[truth][0], 6)
    found = choose(rivals, predictors, noisy(np.tile(published(truth), 6), 0.01))
    assert found.best == truth
    assert found.table["delta_aicc"].idxmin() == truth and found.table["held_out"].notna().all()
    assert set(found.fits) == set(rivals) and found.closest == found.best


def test_what_cannot_be_told_apart_is_said():
    found = choose(
        ["multiplier", "gap_shared"], PAIR, noisy(published("multiplier"), 0.02)
    )  # one curve, two ways to write it
    assert found.best is None
    assert any(
        sentence.startswith("AICc cannot tell multiplier, gap_shared apart") for sentence in found.undecided
    )
    assert any(sentence.startswith("the largest D, held out, cannot tell") for sentence in found.undecided)


def test_two_floors_are_not_taken_for_one():
    """Full .25 + 3 D^-.5, quantized .28 + 4.5 D^-.5: gap_free has a gap of 0.1 points at 10^8, not of 3."""
    pair = repeated({"D": np.tile(np.geomspace(200, 2e6, 8), 2), "quantized": PAIR["quantized"]}, 8)
    seeds = np.repeat(np.arange(8), 16)
    loss = np.where(pair["quantized"], 0.28 + 4.5 * pair["D"] ** -0.5, 0.25 + 3 * pair["D"] ** -0.5)
    found = choose(GAP_LAWS, pair, noisy(loss, 0.01), blocks=seeds, huber_delta=0.02)
    assert found.best == "gap_floors" and found.table.loc["gap_free", "rejected"]
    low, high = found.fits["gap_floors"].predict({"D": [1e8, 1e8], "quantized": [0, 1]})
    assert 100 * (high - low) == pytest.approx(3.0, abs=0.3)


def bent(seeds, sd=0.01):
    """Points of no law here: the error falls, rises and falls again."""
    predictors = repeated(CURVE, seeds)
    loss = np.tile([0.8, 0.5, 0.45, 0.6, 0.5, 0.3, 0.35, 0.2], seeds)
    return predictors, noisy(loss, sd), np.repeat(np.arange(seeds), 8)


def test_no_law_is_best_where_lack_of_fit_rejects_all():
    predictors, loss, seeds = bent(6)
    found = choose(["power", "power_floor"], predictors, loss, blocks=seeds, huber_delta=0.02)
    assert found.best is None and found.table["rejected"].all() and found.closest in found.fits
    assert (found.table["p_holm"] >= found.table["p"]).all()
    [told] = [said for said in found.undecided if said.startswith("lack of fit rejects power (F(")]
    assert "power_floor (F(" in told and told.endswith("p adjusted by Holm over 2 laws")


def test_a_rejected_law_is_not_chosen_whatever_its_aicc(monkeypatch):
    from ablate.analysis import choice

    predictors, seeds = repeated(CURVE, 6), np.repeat(np.arange(6), 8)
    loss = noisy(np.tile(published("power_floor"), 6), 0.005)
    monkeypatch.setattr(choice, "aicc", lambda fitted: float(len(fitted.theta)))  # prefers `power`
    found = choose(["power", "power_floor"], predictors, loss, blocks=seeds)
    assert found.table["aicc"].idxmin() == "power" and list(found.table["rejected"]) == [True, False]
    assert found.best == found.closest == "power_floor"


def test_that_lack_of_fit_cannot_be_tested_is_said():
    found = choose(["power", "power_floor"], CURVE, noisy(published("power_floor"), 0.01))
    assert not found.table["rejected"].any() and found.table["p"].isna().all()
    assert any("lack of fit cannot be tested for power, power_floor" in said for said in found.undecided)


def test_a_refused_rival_is_named_and_the_others_are_compared():
    found = choose(["power", "power_floor", "chinchilla"], CURVE, noisy(published("power_floor"), 0.001))
    assert found.best == "power_floor" and set(found.fits) == {"power", "power_floor"}
    assert any(
        sentence.startswith("chinchilla: ") and "missing: N" in sentence for sentence in found.undecided
    )


def test_holding_out_is_refused_where_too_little_is_left():
    found = choose(
        ["power", "power_floor"],
        {"D": IMAGES[[0, 3, 6] * 4]},
        noisy(published("power_floor")[[0, 3, 6] * 4], 0.01),
    )
    assert any("power_floor: without the largest D, " in sentence for sentence in found.undecided)
    assert np.isnan(found.table.loc["power_floor", "held_out"]) and found.table["aicc"].notna().all()


def test_a_choice_of_nothing_is_refused():
    with pytest.raises(Refused, match="two laws or more"):
        choose(["power"], CURVE, published("power"))
    with pytest.raises(Refused, match=r"no law can be fitted: power: losses must be above 0"):
        choose(["power", "power_floor"], CURVE, np.zeros(8))
