"""A mixed model of the gap: a second estimate of its slope."""

import warnings

import numpy as np
from statsmodels.regression.mixed_linear_model import MixedLM

from ablate.analysis.pairs import Pairs
from ablate.analysis.t_interval import ROUNDING, Estimate, Floats

MIN_VARIANCE = 0.01  # times the variance of the noise; a random effect below it is on its bound of 0


def mixed_model(pairs: Pairs, notes: list[str]) -> tuple[Estimate | None, str]:
    """The slope of the gap by a linear mixed model (REML, z interval).

    Intercept and slope are random over seeds. Where that does not converge or leaves a variance on its bound
    of 0, as where seeds hardly differ, only the intercept is random. Where the intercept's variance is 0 too,
    the model is an ordinary regression.

    Args:
        pairs: the paired trials of S seeds and K sizes.
        notes: a note is added where not both effects are random.

    Returns:
        The slope per decade of images, None where no model can be fitted; and what is random: "intercept and
        slope", "intercept", "nothing", or "" without a model.
    """
    x = np.log10(pairs.images)
    design = np.tile(np.column_stack([np.ones(len(x)), x - x.mean()]), (len(pairs.seeds), 1))  # (S * K, 2)
    slope, problem = _fit(pairs, design, design)
    if slope and not problem:
        return slope, "intercept and slope"
    slope, still = _fit(pairs, design, design[:, :1])
    if slope is None:
        notes.append(f"there is no mixed model: with a random intercept, {still}")
        return None, ""
    kind = "has only a random intercept"
    if still:
        kind = "is an ordinary regression, because seeds differ by no more than noise"
    notes.append(f"the mixed model {kind}: with a random slope, {problem}")
    return slope, "nothing" if still else "intercept"


def _fit(pairs: Pairs, design: Floats, random: Floats) -> tuple[Estimate | None, str]:
    """The slope where these columns (S * K, r) are random over seeds, and what is wrong with it, or ""."""
    groups = np.repeat(np.arange(len(pairs.seeds)), len(pairs.images))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the checks below replace them
        try:  # Powell's method needs no gradient, which does not exist at a bound
            fit = MixedLM(100 * pairs.gap.ravel(), design, groups, exog_re=random).fit(method="powell")
            value, low, high = (float(number) / 100 for number in (fit.params[1], *fit.conf_int()[1]))
            slope = Estimate(value, low, high, float(fit.pvalues[1]))
        except Exception as error:  # the other tests stand without this one
            return None, f"it fails ({error})"
    if not (fit.converged and np.isfinite(slope).all()):
        return None, "it does not converge"
    if fit.scale < (100 * ROUNDING) ** 2:
        return None, "it leaves no noise to estimate an interval from"
    least = float(np.linalg.eigvalsh(fit.cov_re).min())
    on_bound = least < MIN_VARIANCE * fit.scale
    return slope, "a variance is 0 or too close to 0 to tell" if on_bound else ""
