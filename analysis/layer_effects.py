"""What each precision of each layer group adds to an objective, by an additive model."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from ablate.analysis.covariates import covariates
from ablate.analysis.importance import joined, usable_records
from ablate.analysis.parameters import precisions
from ablate.analysis.significance import holm
from ablate.analysis.t_interval import ROUNDING, simultaneous, t_interval

COLUMNS = ("objective", "group", "precision", "effect", "low", "high", "holm", "contrasts", "trials")
Term = tuple[str, str]  # layer group, precision


@dataclass(frozen=True)
class LayerEffects:
    """The effects of the layer groups.

    Attributes:
        table: a row per objective, layer group and precision.
        note: what the records cannot tell, and why; "" where they tell everything.
        covariates: the other parameters that vary, which the model holds fixed.
    """

    table: pd.DataFrame
    note: str
    covariates: tuple[str, ...]


def by_layer(records: pd.DataFrame, objectives: Iterable[str]) -> LayerEffects:
    """What each precision of each layer group adds to an objective.

    The model is additive and fitted by least squares: y = b + sum of effects + covariates + noise.
    Covariates are all other parameters that vary, such as activation bits, beta, the recipe and the fraction
    (`covariates.covariates`): what goes with a layer group is not laid at its door. Interactions are noise to
    this model, and the intervals take that noise as independent.

    Args:
        records: as `load_run(RUN).records`. Only complete trials that have the objective count.
        objectives: their names.

    Returns:
        A row per objective, group and precision. `effect` is relative to the group at full precision, or at
        its most frequent precision where it is never full, in the unit of the objective. `low`, `high`: t
        intervals that hold together with 95 % over the `contrasts` effects of the objective. `holm`: p value
        against 0, adjusted over them. `trials`: with this precision in this group. Effects that the trials
        cannot tell apart, because these precisions always occur together or with a value of another
        parameter, are in the note instead.
    """
    rows: list[dict[str, Any]] = []
    reasons: dict[str, list[str]] = {}
    held: dict[str, None] = {}
    cache: dict[tuple[int, ...], tuple[list[Term], list[str], NDArray[np.float64]]] = {}
    for objective in objectives:
        usable = usable_records(records, objective)
        values = usable[objective].to_numpy(dtype=float)  # (n,)
        key = tuple(map(id, usable["spec"]))  # most objectives have the same trials
        if key not in cache:
            cache[key] = _design(usable)
        terms, others, design = cache[key]
        if reason := _unusable(values, terms, design):
            reasons.setdefault(reason, []).append(objective)
            continue
        held |= dict.fromkeys(others)
        effects, estimable = _fit(terms, design, values)
        rows += [{"objective": objective, **row} for row in effects.to_dict("records")]
        if not estimable.all():
            confounded = dict.fromkeys(np.array([*map(" ".join, terms), *others])[~estimable])
            reason = f"the trials cannot tell apart the effects of {', '.join(confounded)}"
            reasons.setdefault(reason, []).append(objective)
    return LayerEffects(pd.DataFrame(rows, columns=list(COLUMNS)), joined(reasons), tuple(held))


def _design(records: pd.DataFrame) -> tuple[list[Term], list[str], NDArray[np.float64]]:
    """The effects of layers, the covariate of each further column, and the matrix (n, 1 + effects)."""
    terms, indicators = _indicators(precisions(list(records["spec"])))
    others = covariates(records) if terms else []
    names = [name for name, _ in others]
    return terms, names, np.column_stack([indicators, *(column for _, column in others)])


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
    """Why values (n,) and a design (n, 1 + effects) give no additive model; "" where they do."""
    if not terms:
        return f"no layer group has two precisions in the {len(values)} complete trials"
    if np.ptp(values) == 0:
        return f"it is the same in all {len(values)} complete trials"
    if len(values) == np.linalg.matrix_rank(design):
        effects = design.shape[1] - 1
        enough = f"{effects + 2} that differ are enough for {effects} effects"
        return f"{len(values)} complete trials leave nothing to estimate the noise from; {enough}"
    return ""


def _fit(
    terms: Sequence[Term], design: NDArray[np.float64], values: NDArray[np.float64]
) -> tuple[pd.DataFrame, NDArray[np.bool_]]:
    """A row per layer's effect that the design can estimate, and which effects, also of covariates, it can.

    An effect can be estimated if no null vector of the design moves it. Not by statsmodels' OLS, which gives
    the same numbers but warns of designs that cannot estimate every effect.
    """
    smallest = np.finfo(float).eps * max(design.shape)  # singular value; that of `matrix_rank`
    inverse = np.linalg.pinv(design, rcond=smallest)  # (1 + effects, n)
    effects, freedom = inverse @ values, len(values) - int(np.linalg.matrix_rank(design))
    variance = ((values - design @ effects) ** 2).sum() / freedom
    # An objective that is a sum over layers, such as bytes, leaves nothing but rounding.
    errors = np.sqrt(variance * (inverse**2).sum(axis=1)) + ROUNDING * np.abs(values).max()
    estimable = np.abs(inverse @ design - np.eye(len(inverse))).max(axis=1) < 1e-9
    shown = np.flatnonzero(estimable[1 : 1 + len(terms)])
    center, error = effects[1 + shown], errors[1 + shown]
    low, high = t_interval(center, error, freedom, simultaneous(len(shown)))
    table = pd.DataFrame([terms[int(i)] for i in shown], columns=["group", "precision"]).assign(
        effect=center,
        low=low,
        high=high,
        holm=holm(2 * special.stdtr(freedom, -np.abs(center / error))),
        contrasts=len(shown),
        trials=design[:, 1 + shown].sum(axis=0).astype(int),
    )
    return table, estimable[1:]
