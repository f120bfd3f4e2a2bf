"""Which classes are predicted as which, and which images show it.

Everywhere: predictions and labels (N,) are indices into the classes.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special
from statsmodels.stats.contingency_tables import mcnemar

from ablate.analysis.significance import holm

ALPHA = 0.05
CELL = ["label", "predicted"]


def confusions(
    predicted: Mapping[str, tuple[NDArray[Any], NDArray[Any]]], classes: Sequence[str]
) -> pd.DataFrame:
    """The confusion matrix of each model, without the cells of 0.

    Args:
        predicted: predictions (N,) and labels (N,) by the model's name.
        classes: their names.

    Returns:
        A row per model, label and prediction that occurs, in the order of the classes: `count`, and `share`
        of the label's images (on the diagonal, recall).
    """
    names, rows = np.array(classes, dtype=object), []
    for model, (guesses, labels) in predicted.items():
        pairs = np.column_stack([labels, guesses]).astype(int)  # (N, 2)
        cells, counts = np.unique(pairs, axis=0, return_counts=True)  # (rows, 2), (rows,)
        columns = {
            "label": names[cells[:, 0]],
            "predicted": names[cells[:, 1]],
            "count": counts,
            "share": counts / np.bincount(labels.astype(int))[cells[:, 0]],
        }
        rows.append(pd.DataFrame({"model": model, **columns}))
    return pd.concat(rows, ignore_index=True)


def differences(table: pd.DataFrame) -> pd.DataFrame:
    """The counts of every further model minus those of the first.

    Args:
        table: from `confusions`, all models on the same images; rows of 0 are optional.

    Returns:
        A row per model, label and prediction with a `difference` other than 0.
    """
    counts = {model: rows.set_index(CELL)["count"] for model, rows in table.groupby("model", sort=False)}
    first, *others = counts
    rows = []
    for model in others:
        less = counts[model].sub(counts[first], fill_value=0).astype(int)
        rows.append(less[less != 0].rename("difference").reset_index().assign(model=model))
    none = pd.DataFrame(columns=[*CELL, "difference"])
    columns = ["model", *CELL, "difference"]
    return pd.concat(rows or [none], ignore_index=True).reindex(columns=columns)


def most_confused(table: pd.DataFrame, classes: Sequence[str], most: int) -> list[str]:
    """The classes that take part in the most errors, as label or as prediction.

    Args:
        table: from `confusions`; the counts of its models are added up.
        classes: their names.
        most: how many classes to return at most.

    Returns:
        Their names, in the order of `classes`.
    """
    wrong = table[table["label"] != table["predicted"]]
    errors = pd.concat([wrong.groupby(column)["count"].sum() for column in CELL], axis=1).sum(axis=1)
    errors = errors.reindex(list(classes), fill_value=0).sort_values(ascending=False, kind="stable")
    chosen = set(errors.index[:most])
    return [name for name in classes if name in chosen]


def changed(
    guesses: NDArray[Any], baseline: NDArray[Any], labels: NDArray[Any], classes: Sequence[str]
) -> pd.DataFrame:
    """Whether a model confuses two classes more or less often than a baseline on the same images.

    The test compares these two models on images like these. Models of other seeds may differ elsewhere.

    Args:
        guesses: (N,) predictions of the model.
        baseline: (N,) predictions of the baseline.
        labels: (N,).
        classes: their names.

    Returns:
        A row per pair of classes. `confused`, `baseline_confused`: images of either class predicted as the
        other. `p`: exact McNemar test over the images that only one of the two confuses, not adjusted;
        `repeated` adjusts it.
    """
    rows = []
    for i, j in combinations(range(len(classes)), 2):
        among = np.isin(labels, (i, j))
        other = i + j - labels[among]
        ours, theirs = guesses[among] == other, baseline[among] == other
        table = [
            [(ours & theirs).sum(), (ours & ~theirs).sum()],
            [(~ours & theirs).sum(), (~ours & ~theirs).sum()],
        ]
        p = mcnemar(table, exact=True).pvalue
        rows.append((classes[i], classes[j], among.sum(), ours.sum(), theirs.sum(), p))
    columns = ["class", "other", "images", "confused", "baseline_confused", "p"]
    return pd.DataFrame(rows, columns=columns)


def repeated(changes: pd.DataFrame) -> pd.DataFrame:
    """Which changes are sure, and which are so on every seed, always in the same direction.

    Args:
        changes: rows of `changed` with the columns model and seed, of all models and seeds that are shown.

    Returns:
        The rows with further columns. `holm`: p adjusted over all `contrasts` rows, of all models, seeds and
        pairs; `sure`: whether it is below 5 %. `holm_every_seed`: the p of a change on every seed, which is
        the largest of the seeds' p (Berger 1982), or 1 where their directions differ, adjusted over models
        and pairs; `repeated`: whether it is below 5 %.
    """
    changes = changes.assign(holm=holm(changes["p"]), contrasts=len(changes))
    changes["sure"] = changes["holm"] < ALPHA
    names = ["model", "class", "other"]
    direction = np.sign(changes["confused"] - changes["baseline_confused"])
    agree = direction.groupby([changes[name] for name in names]).transform("nunique") == 1
    largest = changes["p"].where(agree, 1.0).groupby([changes[name] for name in names]).max()
    adjusted = pd.Series(holm(largest), index=largest.index, name="holm_every_seed")
    changes = changes.join(adjusted, on=names)
    return changes.assign(repeated=changes["holm_every_seed"] < ALPHA)


def examples(logits: NDArray[Any], labels: NDArray[Any], classes: Sequence[str]) -> pd.DataFrame:
    """The first image of each class that is classified correctly, and the first that is not.

    Args:
        logits: (N, classes).
        labels: (N,).
        classes: their names.

    Returns:
        A row per image: `right`, `image` (its index), `label`, `predicted`, `confidence` (softmax).
    """
    guesses, confidence = logits.argmax(axis=1), special.softmax(logits.astype(float), axis=1).max(axis=1)
    rows = []
    for right in (True, False):
        for label in range(len(classes)):
            for image in np.flatnonzero((labels == label) & ((guesses == label) == right))[:1]:
                rows.append((right, image, classes[label], classes[guesses[image]], confidence[image]))
    return pd.DataFrame(rows, columns=["right", "image", *CELL, "confidence"])
