"""What the report page's script knows of each trial, for the panel of the pinned one."""

import json
from typing import Any

from ablate.config.objectives import COLUMNS, cell
from ablate.config.trial_spec import LayerSpec
from ablate.formatting import natural_sort_key
from ablate.reporting.plotly_front import shown_trials
from ablate.reporting.run_results import Finding
from ablate.runs.run import Run

FULL = {"weights": "full"}


def trials_data(run: Run, front: Finding) -> dict[str, Any]:
    """The data of report.js about trials.

    Args:
        run: The run.
        front: Its finding "front".

    Returns:
        `columns` name the `numbers` of each of the `trials`; `layers` of a trial indexes `kinds`, group by
        group; kind 0 is full precision. `first` is the trial that is pinned when the page opens.
    """
    if not front:
        return {"trials": [], "groups": []}
    names, rows = list(run.study.objectives), shown_trials(front.tables["trials"])
    specs = run.records.drop_duplicates("trial_id").set_index("trial_id")["spec"]
    groups = sorted({group for spec in specs for group in spec["layers"]}, key=natural_sort_key)
    kinds: dict[str, int] = {json.dumps(FULL): 0}
    with_weights = {folder.name for folder in (run.path / "weights").glob("*")}
    trials = []
    for row in rows.to_dict("records"):
        layers = specs[row["trial_id"]]["layers"]
        texts = [json.dumps(_kind(layers[group]) if group in layers else FULL) for group in groups]
        trial = {
            "id": row["trial_id"],
            "words": row["layers"],
            "numbers": [*(cell(name, row[name]) for name in names), str(row["seed"]), f"{row['fraction']:g}"],
            "layers": [kinds.setdefault(text, len(kinds)) for text in texts],
            "kept": row["trial_id"] in with_weights,
        }
        trials.append(trial)
    return {
        "columns": [*(COLUMNS[name] for name in names), "seed", "fraction of the data"],
        "groups": groups,
        "kinds": [json.loads(kind) for kind in kinds],
        "trials": trials,
        "first": _first(run, rows.reset_index(drop=True)),
    }


def _first(run: Run, trials: Any) -> int:
    """The place of the knee, else of the best trial in the first objective."""
    knees = trials.index[trials["knee"]]
    if len(knees):
        return int(knees[0])
    objective = run.study.objectives[0]
    values = trials[trials["front"]][objective]
    return int(values.idxmax() if run.study.directions[objective] == "max" else values.idxmin())


def _kind(layer: dict[str, Any]) -> dict[str, Any]:
    """A layer group's precision: its weights, its activation bits, and all that is not default."""
    if layer["weights"] == "full":
        return FULL
    defaults = LayerSpec().model_dump()
    others = [
        f"{key} {f'{value:.3g}' if isinstance(value, float) else value}"
        for key, value in layer.items()
        if key not in ("weights", "activation_bits") and value != defaults[key]
    ]
    kind = {"weights": layer["weights"], "activation_bits": layer["activation_bits"]}
    return {**kind, "more": ", ".join(others)} if others else kind
