"""The share of accuracy that each suspect keeps, by the recipes that count (docs/protocol.md).

python benchmarks/suspects.py recipes RUN     # a run of suspects_recipes: which recipes count
python benchmarks/suspects.py shares RUN      # a run of suspects -> RUN/tables/shares.csv and suspects.csv
python benchmarks/suspects.py crossed RUN     # a run of suspects_crossed: the interaction
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from ablate import load_run
from ablate.analysis.contrasts import contrasts
from ablate.analysis.paired import by_seed
from ablate.reporting.run_results import RunResults

CHANCE, PAPER = 10.0, (40.5 - 10) / (98.6 - 10)  # Table 1: a share of 0.344
CEILING, NEAR = 2.0, 0.03  # points below full precision's best; of a share
RECIPE = ["passes", "learning_rate", "augment"]


def trials(run: Path) -> pd.DataFrame:
    """A row a complete trial: arm, recipe, seed, validation and test accuracy in percent."""
    loaded = load_run(run)
    design = RunResults(loaded).design
    assert design is not None, f"{run} has no trials"
    done = design[design["status"] == "complete"].drop_duplicates("trial_id").set_index("trial_id")
    specs = loaded.records.set_index("trial_id")["spec"].loc[done.index]
    recipes = pd.DataFrame([spec["recipe"] for spec in specs], index=done.index)
    recipes["passes"] = recipes["epochs"] + recipes["full_epochs"]
    accuracies = 100 * done[["accuracy", "test_accuracy"]]
    return pd.concat([done[["step", "seed"]], recipes[RECIPE], accuracies], axis=1)


def counting(table: pd.DataFrame) -> pd.DataFrame:
    """The recipes by which full precision's validation accuracy is within CEILING of its best, and that."""
    full = table[table["step"] == "full"].groupby(RECIPE)["accuracy"].mean().reset_index()
    return full[full["accuracy"] >= full["accuracy"].max() - CEILING]


def shares(table: pd.DataFrame) -> pd.DataFrame:
    """A row a trial by a recipe that counts, with the share that it keeps of full precision's accuracy."""
    kept = table.merge(counting(table)[RECIPE], on=RECIPE)
    full = kept[kept["step"] == "full"].set_index([*RECIPE, "seed"])["test_accuracy"].rename("full")
    kept = kept.join(full, on=[*RECIPE, "seed"])
    kept["share"] = (kept["test_accuracy"] - CHANCE) / (kept["full"] - CHANCE)
    return kept.dropna(subset="share")


def distributions(kept: pd.DataFrame) -> pd.DataFrame:
    """A row an arm: its shares' ends, quartiles, and how many lie within NEAR of the paper's."""
    rows = []
    for step, group in kept.groupby("step", sort=False):
        ends = np.quantile(group["share"], [0, 0.25, 0.5, 0.75, 1])
        near = (group["share"] - PAPER).abs() <= NEAR
        rows.append([step, len(group), *ends, int(near.sum()), near.mean()])
    names = [
        "arm",
        "n",
        "smallest",
        "lower quartile",
        "median",
        "upper quartile",
        "largest",
        "near",
        "part near",
    ]
    return pd.DataFrame(rows, columns=names)


def interaction(run: Path) -> pd.DataFrame:
    """Initialisation, weights and their interaction, in points, paired over seeds."""
    design = RunResults(load_run(run)).design
    assert design is not None, f"{run} has no trials"
    cells = 100 * by_seed(design, "test_accuracy")
    full, full_anew, binary, anew = (
        cells[name] for name in ("full", "full, encoder at random", "binary", "binary, encoder at random")
    )
    family = {
        "random start, full": full_anew - full,
        "binary, from the checkpoint": binary - full,
        "interaction": (anew - binary) - (full_anew - full),
    }
    return contrasts([*family.values()]).set_axis([*family], axis=0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=("recipes", "shares", "crossed"))
    parser.add_argument("run", type=Path)
    options = parser.parse_args()
    if options.verb == "recipes":
        print(counting(trials(options.run)).round({"accuracy": 1}).to_string(index=False))
    elif options.verb == "crossed":
        print(interaction(options.run).round(2).to_string())
    else:
        kept = shares(trials(options.run))
        (tables := options.run / "tables").mkdir(exist_ok=True)
        kept.round(4).to_csv(tables / "shares.csv", index=False)
        (found := distributions(kept)).round(3).to_csv(tables / "suspects.csv", index=False)
        print(found.round(3).to_string(index=False))


if __name__ == "__main__":
    main()
