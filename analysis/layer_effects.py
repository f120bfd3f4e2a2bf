"""What each precision of each layer group adds to an objective, by an additive model."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ablate.analysis.importance import Importance, joined, usable_records
from ablate.analysis.parameters import precisions
from ablate.analysis.t_interval import t_interval

COLUMNS = ("objective", "group", "precision", "effect", "low", "high", "trials")
Term = tuple[str, str]  # layer group, precision


def by_layer(records: pd.DataFrame, objectives: Iterable[str]) -> Importance:
    """What each precision of each layer group adds to an objective.

    The model is additive and fitted by least squares: y = b + sum of effects + noise.
    Other differences between the trials and interactions between layers are noise to this model, and the
    intervals take that noise as independent.

    Args:
        records: as `load_run(RUN).records`. Only complete trials that have the objective count.
        objectives: their names.

    Returns:
        A row per objective, group and precision. `effect` is relative to the group at full precision, or at
        its most frequent precision where it is never full, in the unit of the objective. `low`, `high`: its
        95 % t interval, not a joint one. `trials`: with this precision in this group. Effects that the trials
        cannot tell apart, because these precisions always occur together, are in the note instead.
    """
    rows: list[dict[str, Any]] = []
    reasons: dict[str, list[str]] = {}
    for objective in objectives:
        usable = usable_records(records, objective)
        terms, design = _indicators(precisions(list(usable["spec"])))
        values = usable[objective].to_numpy(dtype=float)  # (n,)
        if reason := _unusable(values, terms, design):
            reasons.setdefault(reason, []).append(objective)
            continue
        effects, estimable = _fit(terms, design, values)
        rows += [{"objective": objective, **row} for row in effects[estimable].to_dict("records")]
        if not estimable.all():
            confounded = effects[~estimable]
            names = ", ".join(confounded["group"] + " " + confounded["precision"])
            reasons.setdefault(f"the trials cannot tell apart the effects of {names}", []).append(objective)
    return Importance(pd.DataFrame(rows, columns=list(COLUMNS)), joined(reasons))


def _indicators(table: pd.DataFrame) -> tuple[list[Term], NDArray[np.float64]]:
    """The terms of the model, and its design matrix (n, 1 + terms), whose first column is 1."""
    terms: list[Term] = []
    columns = [np.ones(len(table))]
    for group, values in table.items():
        counts = values.value_counts().sort_index()
        base = "full" if "full" in counts else counts.idxmax()
        kinds = [kind for kind in counts.index if kind != base]
        terms += [(str(group), kind) for kind in kinds]
        columns += [(values == kind).to_numpy(dtype=float) for kind in kinds]
    return terms, np.column_stack(columns)


def _unusable(values: NDArray[np.float64], terms: list[Term], design: NDArray[np.float64]) -> str:
    """Why values (n,) and a design (n, 1 + terms) give no additive model; "" where they do."""
    if not terms:
        return f"no layer group has two precisions in the {len(values)} complete trials"
    if np.ptp(values) == 0:
        return f"it is the same in all {len(values)} complete trials"
    if len(values) == np.linalg.matrix_rank(design):
        enough = f"{len(terms) + 2} that differ are enough for {len(terms)} effects"
        return f"{len(values)} complete trials leave nothing to estimate the noise from; {enough}"
    return ""


def _fit(
    terms: list[Term], design: NDArray[np.float64], values: NDArray[np.float64]
) -> tuple[pd.DataFrame, NDArray[np.bool_]]:
    """A row per term with its effect, and which effects the design can estimate: no null vector moves them.

    Not by statsmodels' OLS, which gives the same numbers but warns of designs that cannot estimate every
    effect.
    """
    inverse = np.linalg.pinv(design)  # (1 + terms, n)
    effects, freedom = inverse @ values, len(values) - int(np.linalg.matrix_rank(design))
    variance = ((values - design @ effects) ** 2).sum() / freedom
    low, high = t_interval(effects, np.sqrt(variance * (inverse**2).sum(axis=1)), freedom)
    estimable = np.abs(inverse @ design - np.eye(len(inverse))).max(axis=1) < 1e-9
    table = pd.DataFrame(terms, columns=["group", "precision"])
    counts = design[:, 1:].sum(axis=0).astype(int)
    return table.assign(effect=effects[1:], low=low[1:], high=high[1:], trials=counts), estimable[1:]
