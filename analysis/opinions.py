"""The same slope as others would have it: by a mixed model, and in logits, error ratios and loss."""

import warnings

import numpy as np
import pandas as pd
from scipy import special
from statsmodels.regression.mixed_linear_model import MixedLM

from ablate.analysis.over_seeds import Estimate, estimate
from ablate.analysis.volume import Pairs, trend


def mixed_model(pairs: Pairs, notes: list[str]) -> Estimate | None:
    """The slope by a linear mixed model of all gaps (REML, z interval); what it complains of goes to the notes."""
    x = np.log10(pairs.images)
    design = np.tile(np.column_stack([np.ones(len(x)), x - x.mean()]), (len(pairs.seeds), 1))  # (S * K, 2)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            groups = np.repeat(np.arange(len(pairs.seeds)), len(x))
            fit = MixedLM(100 * pairs.gap.ravel(), design, groups, exog_re=design).fit()
            value, low, high = (float(number) / 100 for number in (fit.params[1], *fit.conf_int()[1]))
            found = Estimate(value, low, high, float(fit.pvalues[1]))
        except Exception as error:  # a second-rate opinion must not take the first one with it
            notes.append(f"the mixed model failed: {error}")
            return None
    if not (fit.converged and np.isfinite(found).all()):
        notes.append("the mixed model did not converge")
        return None
    if said:
        notes.append(f"the mixed model warns: {str(said[0].message).splitlines()[0].rstrip('.')}")
    return found


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
    found = [(name, *(estimate(trend(pairs.images, g)) or none), *(estimate(g[:, -1]) or none)) for name, g in on.items()]
    return pd.DataFrame(found, columns=columns)
