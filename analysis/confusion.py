"""Which classes are taken for which, and which images show it."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special
from statsmodels.stats.contingency_tables import mcnemar

from ablate.analysis.over_seeds import holm

LEVEL = 0.05


def confusions(
    predicted: Mapping[str, tuple[NDArray[Any], NDArray[Any]]], classes: Sequence[str]
) -> pd.DataFrame:
    """A row a model, label and prediction that occurs: `count`, and `share` of the label's images (on the diagonal, recall).

    predicted: by the model's name, predictions (N,) and labels (N,), as indices of the classes. At most N rows a model, in
    the order of the classes.
    """
    names, rows = np.array(classes, dtype=object), []
    for model, (guesses, labels) in predicted.items():
        pairs, counts = np.unique(
            np.column_stack([labels, guesses]).astype(int), axis=0, return_counts=True
        )  # (rows, 2)
        shares = counts / np.bincount(labels.astype(int))[pairs[:, 0]]
        columns = {
            "label": names[pairs[:, 0]],
            "predicted": names[pairs[:, 1]],
            "count": counts,
            "share": shares,
        }
        rows.append(pd.DataFrame({"model": model, **columns}))
    return pd.concat(rows, ignore_index=True)


def differences(table: pd.DataFrame) -> pd.DataFrame:
    """Every further model's counts less those of the first: a row a model, label and prediction that differs: `difference`.

    table: as `confusions` gives it, of one set of images; rows of 0 may be there or not.
    """
    cell = ["label", "predicted"]
    counts = {model: rows.set_index(cell)["count"] for model, rows in table.groupby("model", sort=False)}
    first, *others = counts
    less = {model: counts[model].sub(counts[first], fill_value=0).astype(int) for model in others}
    rows = [
        found[found != 0].rename("difference").reset_index().assign(model=model)
        for model, found in less.items()
    ]
    return pd.concat(rows or [pd.DataFrame(columns=[*cell, "difference"])], ignore_index=True).reindex(
        columns=["model", *cell, "difference"]
    )


def most_confused(table: pd.DataFrame, classes: Sequence[str], most: int) -> list[str]:
    """At most so many of the classes, in their order: those that are taken for others, and others for them, most often.

    table: as `confusions` gives it; the counts of all its models are added.
    """
    wrong = table[table["label"] != table["predicted"]]
    counts = pd.concat(
        [wrong.groupby(column)["count"].sum() for column in ("label", "predicted")], axis=1
    ).sum(axis=1)
    chosen = set(
        counts.reindex(list(classes), fill_value=0).sort_values(ascending=False, kind="stable").index[:most]
    )
    return [name for name in classes if name in chosen]


def changed(
    guesses: NDArray[Any], baseline: NDArray[Any], labels: NDArray[Any], classes: Sequence[str]
) -> pd.DataFrame:
    """Whether a model confuses two classes more often than a baseline does, on the same images: a row a pair of classes.

    guesses, baseline, labels: (N,), indices of the classes. confused, baseline_confused: images of either class taken for
    the other. p: exact McNemar over the images that one of them confuses and the other does not; holm: over all pairs;
    sure: holm below 5 %. That tells two models apart on images like these; those of other seeds may differ elsewhere.
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
    table = pd.DataFrame(rows, columns=["class", "other", "images", "confused", "baseline_confused", "p"])
    table["holm"] = holm(table["p"])
    return table.assign(sure=table["holm"] < LEVEL)


def repeated(changes: pd.DataFrame) -> pd.DataFrame:
    """The rows of `changed` for several models and seeds, and whether a pair is sure on every seed, always in one direction.

    changes: columns of `changed`, model and seed. Adds `repeated`.
    """
    way = np.sign(changes["confused"] - changes["baseline_confused"]).where(changes["sure"], 0)
    pairs = way.groupby([changes[column] for column in ("model", "class", "other")])
    return changes.assign(repeated=pairs.transform("sum").abs() == pairs.transform("size"))


def examples(logits: NDArray[Any], labels: NDArray[Any], classes: Sequence[str]) -> pd.DataFrame:
    """Of each class the first image that is classified rightly and the first that is not, in the order of the dataset.

    logits: (N, classes); labels: (N,). A row an image: right, image (its index), label, predicted, confidence (softmax).
    """
    guesses, confidence = logits.argmax(axis=1), special.softmax(logits.astype(float), axis=1).max(axis=1)
    rows = []
    for right in (True, False):
        for label in range(len(classes)):
            for image in np.flatnonzero((labels == label) & ((guesses == label) == right))[:1]:
                rows.append((right, image, classes[label], classes[guesses[image]], confidence[image]))
    return pd.DataFrame(rows, columns=["right", "image", "label", "predicted", "confidence"])
