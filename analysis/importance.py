"""Which parameter, and which layer group, matters for each objective: PED-ANOVA, and an additive model of the layers.

Both answers are a table and a note. What the records cannot tell is not in the table, and the note says why.
"""

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import optuna
import pandas as pd
from numpy.typing import NDArray
from optuna.distributions import CategoricalDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from scipy import stats

from ablate.analysis.paired import CONFIDENCE
from ablate.config.objectives import SIGN, Direction

TOP = 0.1  # share of the trials that are the good ones ...
TOP_TRIALS = 5  # ... and so many at the least, as Optuna advises
LEAST = 20  # trials, so that the good ones are no more than a quarter
SHUFFLES = 19  # the least that can leave 1 in 20 to chance
CHOICES = 10  # numbers of a parameter, up to which each is a choice of its own; more are cut into ...
QUARTERS = 4  # ... as many parts of equal size: on a finer grid a few good trials always look special
PRIOR = 0.1  # trials spread over the choices; Optuna's 1.0 makes of a choice that all of the best have 60 % of them
BY_PARAMETER = ("objective", "parameter", "importance", "chance", "trials")
BY_LAYER = ("objective", "group", "precision", "effect", "low", "high", "trials")


@dataclass(frozen=True)
class Importance:
    """A table, one row an objective and a parameter or layer, and what could not be said; "" where all could."""

    table: pd.DataFrame
    note: str


def by_parameter(records: pd.DataFrame, objectives: Mapping[str, Direction], seed: int = 0) -> Importance:
    """What each parameter has to do with being among the best tenth of the trials in an objective.

    `importance` is a share of 1: how far the parameter's values among the best trials differ from those among all trials
    [PED-ANOVA, arXiv 2304.10255; parameters that are not always in force: arXiv 2601.20800, theorem 4.2]. `chance`, on the
    same scale, is the largest of 19 shuffles of the objective: a parameter that has no effect is above it 1 time in 20, but
    one that goes together with a parameter that has seems to have it too. `trials`: where the parameter was in force. What
    spoils a trial but is not needed for the best ones shows less here than in `by_layer`. The shuffles come from the seed.

    records: as `load_run(RUN).records`; only complete ones with the objective count.
    """
    rows: list[dict[str, Any]] = []
    notes: dict[str, list[str]] = {}
    known: dict[tuple[int, ...], pd.DataFrame] = {}
    studies: dict[tuple[int, ...], optuna.Study] = {}
    for objective, direction in objectives.items():
        usable = _usable(records, objective)
        same = tuple(map(id, usable["spec"]))  # mostly, all objectives have the same trials
        points = known[same] if same in known else known.setdefault(same, parameters(usable))
        losses = usable[objective].to_numpy(dtype=float) * SIGN[direction]  # (n,)
        if reason := _refused(losses, points):
            notes.setdefault(reason, []).append(objective)
            continue
        rng = np.random.default_rng(seed)
        study = studies[same] if same in studies else studies.setdefault(same, _study(points))
        found = _ped_anova(study, list(points), losses)
        shuffled = [_ped_anova(study, list(points), rng.permutation(losses)) for _ in range(SHUFFLES)]
        total = sum(found.values()) or 1.0
        for name in sorted(found, key=lambda name: (-found[name], name)):
            chance = max(each[name] for each in shuffled)
            row = (objective, name, found[name] / total, chance / total, int(points[name].notna().sum()))
            rows.append(dict(zip(BY_PARAMETER, row, strict=True)))
    return Importance(pd.DataFrame(rows, columns=list(BY_PARAMETER)), _once(notes))


def by_layer(records: pd.DataFrame, objectives: Iterable[str]) -> Importance:
    """What each precision of each layer group adds to an objective, where groups add up: y = b + sum of effects + noise.

    Least squares. `effect` is against the group at full precision, or at the precision that most trials have where none
    has it at full; in the objective's own unit, with its t interval of 95 % (each on its own, not jointly). An effect that
    the trials cannot tell from others', because they always go together, is in the note and not in the table. What else
    varies between the trials, and what layers do together, is noise to this model: `low` and `high` take it as independent.
    `trials`: with this precision in this group.
    """
    rows: list[dict[str, Any]] = []
    notes: dict[str, list[str]] = {}
    for objective in objectives:
        usable = _usable(records, objective)
        terms, design = _indicators(_precisions(list(usable["spec"])))
        values = usable[objective].to_numpy(dtype=float)  # (n,)
        if reason := _unfit(values, terms, design):
            notes.setdefault(reason, []).append(objective)
            continue
        effects, half, told = _least_squares(design, values)
        for i, (group, precision) in enumerate(terms, 1):  # 0 is the intercept
            if told[i]:
                row = (
                    group,
                    precision,
                    effects[i],
                    effects[i] - half[i],
                    effects[i] + half[i],
                    int(design[:, i].sum()),
                )
                rows.append(dict(zip(BY_LAYER, (objective, *row), strict=True)))
        if untold := [f"{group} {precision}" for i, (group, precision) in enumerate(terms, 1) if not told[i]]:
            reason = f"the trials cannot tell apart the effects of {', '.join(untold)}"
            notes.setdefault(reason, []).append(objective)
    return Importance(pd.DataFrame(rows, columns=list(BY_LAYER)), _once(notes))


def parameters(records: pd.DataFrame) -> pd.DataFrame:
    """What varies between trials: (n, parameters), named as the axes of a search; None where one is not in force.

    `GROUP.weights` of each layer group, then the other fields of the layers. A field is one parameter, without GROUP, where
    all layer groups have it alike in each trial, as in a space with one axis for all. `recipe.FIELD`, and `fraction`.
    """
    specs = list(records["spec"])
    together, precisions = _together(specs), _precisions(specs).add_suffix(".weights")
    if len(precisions.columns) > 1 and (precisions.nunique(axis=1) == 1).all():
        precisions = precisions.iloc[:, :1].set_axis(["weights"], axis=1)
    rows = precisions.to_dict("records")
    for row, spec in zip(rows, specs, strict=True):
        for group, layer in spec["layers"].items():
            row |= {key if key in together else f"{group}.{key}": value for key, value in _in_force(layer)}
        row |= {f"recipe.{key}": _word(value) for key, value in spec["recipe"].items()} | {
            "fraction": spec["fraction"]
        }
    columns = {
        name: [row.get(name) for row in rows] for name in sorted({name for row in rows for name in row})
    }
    varying = {
        name: values for name, values in columns.items() if len({repr(v) for v in values} - {"None"}) > 1
    }
    return pd.DataFrame(varying, index=records.index, dtype=object)


def _once(notes: Mapping[str, list[str]]) -> str:
    """Each reason once, with the objectives that it is the reason for."""
    return "; ".join(f"{', '.join(objectives)}: {reason}" for reason, objectives in notes.items())


def _usable(records: pd.DataFrame, objective: str) -> pd.DataFrame:
    complete = records[records["status"] == "complete"]
    return complete[np.isfinite(complete[objective].astype(float))].reset_index(drop=True)


def _in_force(layer: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """A quantized layer's fields but its weights. Integer weights have no beta."""
    for key, value in layer.items():
        if (
            key != "weights"
            and layer["weights"] != "full"
            and not (layer["weights"].startswith("int") and key.startswith("beta"))
        ):
            yield key, _word(value)


def _word(value: Any) -> Any:
    return "none" if value is None else value


def _together(specs: list[dict[str, Any]]) -> set[str]:
    """The fields that have one value in all quantized layers of a trial, whichever the trial."""
    every, apart = set(), set()
    for spec in specs:
        fields = {(key, repr(value)) for layer in spec["layers"].values() for key, value in _in_force(layer)}
        seen = Counter(key for key, _ in fields)
        every |= set(seen)
        apart |= {key for key, values in seen.items() if values > 1}
    return every - apart


def _precisions(specs: list[dict[str, Any]]) -> pd.DataFrame:
    """Each layer group's weights: (n, groups)."""
    groups = sorted({group for spec in specs for group in spec["layers"]})
    rows = [[spec["layers"].get(group, {"weights": "full"})["weights"] for group in groups] for spec in specs]
    return pd.DataFrame(rows, columns=groups, dtype=object)


def _refused(losses: NDArray[np.float64], points: pd.DataFrame) -> str:
    """Why there can be no importance; "" where there can."""
    if len(losses) < LEAST:
        return f"{len(losses)} complete trials are too few; {LEAST} or more are needed"
    if points.empty:
        return f"nothing varies in the {len(losses)} complete trials"
    if (losses <= np.sort(losses)[_top(len(losses)) - 1]).all():
        return "the best trials are no better than the rest"
    return ""


def _top(n: int) -> int:
    return max(TOP_TRIALS, int(np.ceil(TOP * n)))


class _Choices(CategoricalDistribution):
    """Choices that are equal to themselves alone, are not copied, and know the place of a value.

    Optuna compares them trial by trial, value by value.
    """

    def __init__(self, choices: list[Any]) -> None:
        super().__init__(choices)
        self._places = {choice: place for place, choice in enumerate(choices)}

    def to_internal_repr(self, param_value_in_external_repr: Any) -> float:
        return self._places[param_value_in_external_repr]

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __deepcopy__(self, memo: object) -> Self:
        return self


def _study(points: pd.DataFrame) -> optuna.Study:
    """The points as Optuna knows them, in their order; what came of them is told when importance is asked for."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    points = points.apply(_in_parts)
    axes = {
        name: _Choices(sorted(set(points[name].dropna()), key=lambda v: (isinstance(v, str), v)))
        for name in points
    }
    study = optuna.create_study()
    for row in points.to_dict("records"):
        known = {name: value for name, value in row.items() if value is not None}
        study.add_trial(
            optuna.create_trial(params=known, distributions={name: axes[name] for name in known}, value=0.0)
        )
    return study


def _in_parts(values: "pd.Series[Any]") -> "pd.Series[Any]":
    """A parameter of many numbers as the quarter of the trials that it lies in; any other as it is."""
    known = values.dropna()
    if known.nunique() <= CHOICES or known.map(lambda value: isinstance(value, str)).any():
        return values
    cut = pd.qcut(known.astype(float), QUARTERS, labels=False, duplicates="drop")
    quarters = dict(zip(known.index, cut.tolist(), strict=True))
    return pd.Series([quarters.get(i) for i in values.index], index=values.index, dtype=object)


def _ped_anova(study: optuna.Study, names: list[str], losses: NDArray[np.float64]) -> dict[str, float]:
    """How far each parameter's values in the best trials are from those in all: the Pearson divergence."""
    evaluator = PedAnovaImportanceEvaluator(target_quantile=_top(len(losses)) / len(losses))
    evaluator._prior_weight = PRIOR
    asked: dict[str, Any] = {
        "params": names,
        "target": lambda trial: losses[trial.number],
        "normalize": False,
    }
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # normalize is experimental; less is better; a value is in force in one trial only
        return get_param_importances(study, evaluator=evaluator, **asked)


def _indicators(precisions: pd.DataFrame) -> tuple[list[tuple[str, str]], NDArray[np.float64]]:
    """The additive model's terms (group, precision), and its design matrix (n, 1 + terms): a column of ones comes first."""
    terms: list[tuple[str, str]] = []
    columns = [np.ones(len(precisions))]
    for group, values in precisions.items():
        counts = values.value_counts().sort_index()
        base = "full" if "full" in counts else counts.idxmax()
        kinds = [kind for kind in counts.index if kind != base]
        terms += [(str(group), kind) for kind in kinds]
        columns += [(values == kind).to_numpy(dtype=float) for kind in kinds]
    return terms, np.column_stack(columns)


def _unfit(values: NDArray[np.float64], terms: list[tuple[str, str]], design: NDArray[np.float64]) -> str:
    """Why there can be no additive model; "" where there can."""
    if not terms:
        return f"no layer group has two precisions in the {len(values)} complete trials"
    if np.ptp(values) == 0:
        return f"it is the same in all {len(values)} complete trials"
    if len(values) == np.linalg.matrix_rank(design):
        needed = f"{len(terms) + 2} that differ are enough for {len(terms)} effects"
        return f"{len(values)} complete trials leave nothing to judge the noise by; {needed}"
    return ""


def _least_squares(
    design: NDArray[np.float64], values: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Coefficients, half their t intervals, and which of them the design can tell: those that no null vector moves."""
    inverse = np.linalg.pinv(design)  # (p, n)
    effects, freedom = inverse @ values, len(values) - np.linalg.matrix_rank(design)
    variance = ((values - design @ effects) ** 2).sum() / freedom
    half = stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * np.sqrt(variance * (inverse**2).sum(axis=1))
    return effects, half, np.abs(inverse @ design - np.eye(len(inverse))).max(axis=1) < 1e-9
