"""What the tuned choices of a design leave open."""

from collections.abc import Sequence

import pandas as pd

SHOWN = 4  # cells that a note names


def tuning_notes(table: pd.DataFrame) -> tuple[str, ...]:
    """Say which tuned choices lie on an edge, which are within noise, and which rest on nothing.

    Args:
        table: The table of a design, a row a trial.

    Returns:
        The notes; none where nothing is tuned.
    """
    if "edge" not in table:
        return ()
    tunings = table[table["role"] == "tune"]
    sizes = tunings.groupby("cell")["cell"].transform("size")
    tunings = tunings[sizes > tunings["seed"].nunique()]  # a grid also trains cells with nothing to choose
    cells = tunings.groupby("cell", sort=False)
    choices = table[table["role"] == "seed"].drop_duplicates("cell").set_index("cell")
    choices = choices.loc[list(cells.groups)]
    notes, count = [], f"of {len(choices)} tuned cells"
    ended, known = cells["status"].count() == cells.size(), cells["accuracy"].count() > 0
    if nothing := [str(name) for name in choices.index if ended[name] and not known[name]]:
        taken = "which take the first of their choices"
        notes.append(f"every tuning trial failed in {len(nothing)} {count}, {taken}: {_named(nothing)}")
    edges = choices["edge"][choices["edge"].fillna("") != ""]
    if len(edges):
        on_edges = [f"{name} ({edge})" for name, edge in edges.items()]
        notes.append(
            f"the tuned choice lies on the edge of what was tried in {len(edges)} {count}, "
            f"so that a better one may lie beyond: {_named(on_edges)}"
        )
    chosen = choices[choices["lead"].notna()]
    seeds = tunings[tunings["cell"].isin(chosen.index)]["seed"].nunique()
    if seeds == 1:
        notes.append("with one tuning seed nothing says how sure the tuned choices are")
    elif len(unsure := chosen[chosen["lead_low"] <= 0]):
        lead = f"the 95 % interval of its lead over the second best, on {seeds} tuning seeds, includes 0"
        given = "intervals over the paired seeds take the choices as given"
        cells_within = f"{len(unsure)} {count}: {_named([str(name) for name in unsure.index])}"
        notes.append(f"the tuned choice is within noise ({lead}) in {cells_within}; {given}")
    return tuple(notes)


def _named(cells: Sequence[str]) -> str:
    more = f" and {len(cells) - SHOWN} more" if len(cells) > SHOWN else ""
    return "; ".join(cells[:SHOWN]) + more  # a cell's name may have commas
