"""The same slope as others would have it: by a mixed model, and in logits, error ratios and loss."""

import warnings

import numpy as np
import pandas as pd
from scipy import special
from statsmodels.regression.mixed_linear_model import MixedLM

from ablate.analysis.over_seeds import SAME, Estimate, Floats, estimate
from ablate.analysis.volume import Pairs, trend

BOUND = 0.01  # of the noise's variance: below it a random effect's is on its bound


def mixed_model(pairs: Pairs, notes: list[str]) -> tuple[Estimate | None, str]:
    """The slope by a linear mixed model of all gaps (REML, z interval), and what is random over seeds in it.

    Intercept and slope; the intercept alone where that does not converge or has a variance on its bound of 0, as where
    seeds hardly differ; "nothing" where the intercept's own is 0, and the model an ordinary regression. The notes say why.
    """
    x = np.log10(pairs.images)
    design = np.tile(np.column_stack([np.ones(len(x)), x - x.mean()]), (len(pairs.seeds), 1))  # (S * K, 2)
    both, doubt = _mixed(pairs, design, design)
    if both and not doubt:
        return both, "intercept and slope"
    alone, still = _mixed(pairs, design, design[:, :1])
    if alone is None:
        notes.append(f"there is no mixed model: with a random intercept {still}")
        return None, ""
    fitted = (
        "is an ordinary regression, for seeds differ by no more than noise"
        if still
        else "has a random intercept alone"
    )
    notes.append(f"the mixed model {fitted}: with a random slope {doubt}")
    return alone, "nothing" if still else "intercept"


def _mixed(pairs: Pairs, design: Floats, random: Floats) -> tuple[Estimate | None, str]:
    """The slope with these columns (S * K, r) random over seeds, and what is doubtful, or why there is none."""
    groups = np.repeat(np.arange(len(pairs.seeds)), len(pairs.images))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is judged below
        try:  # Powell needs no gradient, which is lost at a bound
            fit = MixedLM(100 * pairs.gap.ravel(), design, groups, exog_re=random).fit(method="powell")
            value, low, high = (float(number) / 100 for number in (fit.params[1], *fit.conf_int()[1]))
            found = Estimate(value, low, high, float(fit.pvalues[1]))
        except Exception as error:  # a third opinion must not take the first one with it
            return None, f"it fails ({error})"
    if not (fit.converged and np.isfinite(found).all()):
        return None, "it does not converge"
    if fit.scale < (100 * SAME) ** 2:
        return None, "it leaves no noise to measure by"
    least = float(np.linalg.eigvalsh(fit.cov_re).min())
    return found, "a variance is 0, or too near to it to tell" if least < BOUND * fit.scale else ""


def scales(pairs: Pairs, notes: list[str]) -> pd.DataFrame:
    """Slope and gap at the largest size on each scale on which they exist; above 0 where the arm is worse."""
    columns = ["scale", "slope", "slope_low", "slope_high", "slope_p", "gap", "gap_low", "gap_high", "gap_p"]
    seeds, sizes = pairs.gap.shape
    if seeds < 2 or sizes < 2:
        return pd.DataFrame(columns=columns)
    full, arm = pairs.accuracy
    on = {"accuracy": full - arm}
    if pairs.accuracy.min() > 0 and pairs.accuracy.max() < 1:
        on["logit"] = special.logit(full) - special.logit(arm)
        on["log error ratio"] = np.log((1 - arm) / (1 - full))
    else:
        notes.append("accuracies of 0 or 1 have no logit and no error ratio")
    if pairs.loss is not None:
        on["loss"] = pairs.loss[1] - pairs.loss[0]
    else:
        notes.append("trials without a finite loss: the gap in loss is left out")
    none = (np.nan,) * 4
    found = [
        (name, *(estimate(trend(pairs.images, g)) or none), *(estimate(g[:, -1]) or none))
        for name, g in on.items()
    ]
    return pd.DataFrame(found, columns=columns)
