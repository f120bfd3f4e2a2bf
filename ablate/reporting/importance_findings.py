"""What matters in a search: which parameters set its best trials apart, and what each layer group costs."""

from collections.abc import Sequence

from ablate.analysis import importance, layer_effects
from ablate.analysis.contrasts import excludes_zero
from ablate.config.objectives import SIGN
from ablate.reporting.run_results import Finding, RunResults

CONFOUNDED = (
    "the cells of the design are held against each other; "
    "over all of its trials, what changes together is not told apart"
)


def parameters(results: RunResults) -> Finding:
    """Which parameters set the best trials apart."""
    title = "Which parameter matters?"
    if _is_confounded(results):
        return Finding(title, notes=(CONFOUNDED,), applies=False)
    study = results.run.study
    result = importance.by_parameter(results.complete, study.directions, study.seed)
    clear = result.table[result.table["importance"] > result.table["chance"]]
    differing = clear.groupby("objective", sort=False)["parameter"]
    clauses = [f"{name}: {_first(list(names), 3)}" for name, names in differing]
    sentence = ""
    if clauses:
        differences = "; ".join(clauses)
        sentence = (
            "Beyond what chance shows in 1 of 20 tables, over all parameters together, "
            f"the best tenth of the trials differ in {differences}."
        )
    return Finding(title, sentence, (result.note,) if result.note else (), {"parameters": result.table})


def layers(results: RunResults) -> Finding:
    """What each precision of each layer group adds to each objective."""
    title = "What does each layer group cost?"
    if _is_confounded(results):
        return Finding(title, notes=(CONFOUNDED,), applies=False)
    first_objective = results.run.study.objectives[0]
    result = layer_effects.by_layer(results.complete, results.run.study.objectives)
    effects = result.table[result.table["objective"] == first_objective]
    loss = SIGN[results.directions[0]]  # the sign of an effect that costs
    costly = effects[excludes_zero(effects["low"], effects["high"]) & (effects["effect"] * loss > 0)]
    about = f"by an additive model of {len(results.complete)} trials"
    if result.covariates:
        about += f" that holds {_first(result.covariates, 5)} fixed"
    joint = f"95 % intervals, simultaneous over {len(effects)} effect{'s' if len(effects) > 1 else ''}"
    sentence = ""
    if len(costly):
        worst = costly.loc[(costly["effect"] * loss).idxmax()]
        unit, scale = (" points", 100) if first_objective == "accuracy" else ("", 1)
        low, effect, high = (f"{scale * worst[key]:+.3g}" for key in ("low", "effect", "high"))
        sentence = (
            f"{len(costly)} of {len(effects)} effects cost {first_objective}, by the largest estimate "
            f"{worst['group']} as {worst['precision']}: {effect}{unit} ({low} to {high}), {about} ({joint})."
        )
    elif len(effects):
        sentence = f"No layer group can be told to cost {first_objective}, {about} ({joint})."
    return Finding(title, sentence, (result.note,) if result.note else (), {"layers": result.table})


def _first(names: Sequence[str], most: int) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def _is_confounded(results: RunResults) -> bool:
    design = results.run.study.design
    return bool(design) and "factorial" not in design
