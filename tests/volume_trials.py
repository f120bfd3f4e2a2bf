"""Trials of two arms over the volume of data, for the tests of the analysis."""

import numpy as np
import pandas as pd

SIZES = np.array([200, 2000, 20_000])
X = np.log10(SIZES)
FULL = np.array([0.4, 0.55, 0.7])
SPREAD = np.array([-1.5, -1.0, -0.5, -0.1, 0.2, 0.6, 0.9, 1.4])  # of eight seeds; the mean is 0


def table(sizes=SIZES, **accuracies):
    """Records of arms whose accuracies are (S, K)."""
    rows = [
        {
            "arm": arm,
            "seed": seed,
            "images": size,
            "accuracy": float(value),
            "loss": 1 - float(value),
            "status": "complete",
        }
        for arm, values in accuracies.items()
        for seed, per_size in enumerate(values)
        for size, value in zip(sizes, per_size, strict=True)
    ]
    return pd.DataFrame(rows)


def straight(slopes, last):
    """Records of a binary arm whose gap has these slopes (S,) and these values (S,) at 20,000 images."""
    gap = np.asarray(last)[:, None] + np.asarray(slopes)[:, None] * (X - X[-1])  # (S, K)
    return table(full=np.tile(FULL, (len(gap), 1)), binary=FULL - gap)


def with_gap(gap, sizes=SIZES, noise=0.002, full=None):
    """Records of a binary arm with this mean gap (K,), in eight seeds whose noise differs by size."""
    full = np.linspace(0.4, 0.7, len(sizes)) if full is None else np.asarray(full)
    shift = np.array([np.roll(SPREAD, 3 * k) for k in range(len(sizes))]).T  # (S, K)
    return table(sizes, full=np.tile(full, (8, 1)), binary=full - np.asarray(gap) - noise * shift)
