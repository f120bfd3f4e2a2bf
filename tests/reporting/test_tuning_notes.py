"""What is said of tuned choices: edges, noise, and nothing to choose by."""

import numpy as np
import pandas as pd

from ablate.reporting.tuning_notes import tuning_notes


def table(choices, seeds=(3, 4, 5), accuracy=0.5):
    """A design's table: (cell, edge, lead, lead_low) of each choice, with two choices a cell."""
    rows = []
    for cell, edge, lead, low in choices:
        one = {"cell": cell, "edge": "", "lead": np.nan, "lead_low": np.nan}
        for seed in (*seeds, *seeds):
            status = "failed" if accuracy is None else "complete"
            rows.append(one | {"role": "tune", "seed": seed, "status": status, "accuracy": accuracy})
        rows.append(one | {"role": "seed", "seed": 0, "edge": edge, "lead": lead, "lead_low": low})
    return pd.DataFrame(rows)


def test_edges_and_noise_are_said():
    notes = tuning_notes(
        table([("AdamW", "upper", 0.02, 0.01), ("absmean", "", 0.02, -0.01), ("full", "", 0.02, 0.01)])
    )
    edge, noise = notes
    assert edge.startswith("the tuned choice lies on the edge of what was tried in 1 of 3 tuned cells")
    assert edge.endswith("beyond: AdamW (upper)")
    assert "on 3 tuning seeds, includes 0) in 1 of 3 tuned cells: absmean; intervals" in noise


def test_many_cells_are_counted_and_some_named():
    (edge,) = tuning_notes(table([(f"cell {i}", "lower", 0.2, 0.1) for i in range(9)]))
    assert "in 9 of 9 tuned cells" in edge and edge.endswith("cell 3 (lower) and 5 more")


def test_sure_choices_and_designs_without_tuning_have_no_note():
    assert tuning_notes(table([("a", "", 0.2, 0.1)])) == ()
    assert tuning_notes(pd.DataFrame({"cell": ["a"], "role": ["seed"]})) == ()


def test_one_seed_says_nothing():
    assert tuning_notes(table([("a", "", 0.2, -np.inf)], seeds=(3,))) == (
        "with one tuning seed nothing says how sure the tuned choices are",
    )


def test_where_every_trial_failed_the_first_choice_is_said_to_be_one():
    (note,) = tuning_notes(table([("a", "", np.nan, np.nan)], accuracy=None))
    assert note.startswith("every tuning trial failed in 1 of 1 tuned cells") and note.endswith(": a")


def test_a_tuning_under_way_has_no_note():
    unfinished = table([("a", "", np.nan, np.nan)])
    unfinished.loc[0, ["status", "accuracy"]] = None
    assert tuning_notes(unfinished) == ()
