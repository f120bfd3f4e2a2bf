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


def confusions(predicted: Mapping[str, tuple[NDArray[Any], NDArray[Any]]], classes: Sequence[str]) -> pd.DataFrame:
    """A row a model, label and prediction: `count`, and `share` of the label's images (the recall where both agree).

    predicted: by the model's name, predictions (N,) and labels (N,), as indices of the classes.
    """
    rows = []
    for model, (guesses, labels) in predicted.items():
        counts = np.zeros((len(classes), len(classes)), int)
        np.add.at(counts, (labels, guesses), 1)
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        rows += [
            (model, classes[i], classes[j], counts[i, j], shares[i, j])
            for i in range(len(classes))
            for j in range(len(classes))
        ]
    return pd.DataFrame(rows, columns=["model", "label", "predicted", "count", "share"])


def differences(table: pd.DataFrame) -> pd.DataFrame:
    """Every further model's counts less those of the first: a row a model, label and prediction, with `difference`.

    table: as `confusions` gives it, of one set of images.
    """
    first, cell = table["model"].iloc[0], ["label", "predicted"]
    counts = table[table["model"] == first].set_index(cell)["count"]
    rows = table[table["model"] != first].reset_index(drop=True)
    less = counts.reindex(pd.MultiIndex.from_frame(rows[cell])).to_numpy()
    return rows[["model", *cell]].assign(difference=rows["count"] - less)


def changed(guesses: NDArray[Any], baseline: NDArray[Any], labels: NDArray[Any], classes: Sequence[str]) -> pd.DataFrame:
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
        table = [[(ours & theirs).sum(), (ours & ~theirs).sum()], [(~ours & theirs).sum(), (~ours & ~theirs).sum()]]
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
