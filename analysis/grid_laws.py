"""Which law the error of each arm follows over a grid of images and updates."""

from typing import Any, NamedTuple

import pandas as pd

from ablate.analysis.choice import choose
from ablate.analysis.curve_tables import parameters
from ablate.analysis.curves import HUBER_DELTA, with_intervals
from ablate.analysis.scaling_problem import Refused

LAWS = ("images_and_updates", "updates", "images", "images_times_updates")
MIN_VALUES = 3  # of images and of image views


class GridLaws(NamedTuple):
    """The laws of each arm.

    Attributes:
        laws: as `Curves.laws`, by images and views.
        choices: as `Curves.choices`; `held_out` is the error at the most images, fitted without them.
        notes: what the points cannot tell.
    """

    laws: pd.DataFrame
    choices: pd.DataFrame
    notes: tuple[str, ...]


def grid_laws(trials: pd.DataFrame) -> GridLaws:
    """Fit each arm's error over both axes of a grid.

    Args:
        trials: A row a paired trial: arm, images, views, seed, error in (0, 1].

    Returns:
        The fits; none for an arm with fewer than three numbers of images or of views.
    """
    laws: list[dict[str, Any]] = []
    choices, notes = [], list[str]()
    for arm, rows in trials.groupby("arm", sort=False):
        for axis, name in (("images", "training images"), ("views", "image views")):
            if (count := rows[axis].nunique()) < MIN_VALUES:
                notes.append(f"{arm}: a law needs {MIN_VALUES} numbers of {name} or more, but got {count}")
                break
        else:
            predictors = {"D": rows["images"], "T": rows["views"]}
            try:
                choice = choose(LAWS, predictors, rows["error"], blocks=rows["seed"], huber_delta=HUBER_DELTA)
            except Refused as refusal:
                notes.append(f"{arm}: {refusal}")
                continue
            laws += parameters(str(arm), with_intervals(choice.closest, predictors, rows), "grid", choice)
            choices.append(choice.table.reset_index().assign(arm=arm, best=choice.table.index == choice.best))
            notes += [f"{arm}: {doubt}" for doubt in choice.undecided]
    table = pd.concat(choices) if choices else pd.DataFrame()
    return GridLaws(pd.DataFrame(laws), table, tuple(notes))
