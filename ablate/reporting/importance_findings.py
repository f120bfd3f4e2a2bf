"""What matters in a search: which parameters set its best trials apart, and what each layer group costs."""

from ablate.analysis import importance, layer_effects
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
    clauses = []
    for name, rows in clear.groupby("objective", sort=False):
        more = f" and {len(rows) - 3} more" if len(rows) > 3 else ""
        clauses.append(f"{name}: {', '.join(rows['parameter'].head(3))}{more}")
    sentence = ""
    if clauses:
        differences = "; ".join(clauses)
        sentence = f"Beyond chance (1 in 20 for each), the best tenth of the trials differ in {differences}."
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
    costly = effects[(effects["low"] * loss > 0) & (effects["high"] * loss > 0)]
    sentence = ""
    if len(costly):
        worst = costly.loc[(costly["effect"] * loss).idxmax()]
        unit, scale = (" points", 100) if first_objective == "accuracy" else ("", 1)
        low, effect, high = (f"{scale * worst[key]:+.3g}" for key in ("low", "effect", "high"))
        sentence = (
            f"The dearest in {first_objective} is {worst['group']} as {worst['precision']}: {effect}{unit} "
            f"({low} to {high}, 95 %, on its own), by an additive model of {len(results.complete)} trials."
        )
    return Finding(title, sentence, (result.note,) if result.note else (), {"layers": result.table})


def _is_confounded(results: RunResults) -> bool:
    design = results.run.study.design
    return bool(design) and "factorial" not in design
