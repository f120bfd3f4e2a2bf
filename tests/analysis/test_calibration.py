"""The expected calibration error, against a loop over the bins as the paper writes it."""

import numpy as np
import pytest

from ablate.analysis.calibration import calibration_error


def by_loop(probabilities, labels, bins):
    """Equation 3 of arXiv 1706.04599."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    total = 0.0
    for m in range(1, bins + 1):
        members = ((m - 1) / bins < confidence) & (confidence <= m / bins)
        if members.any():
            total += members.sum() / len(labels) * abs(right[members].mean() - confidence[members].mean())
    return total


def test_it_is_the_papers_equation():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(scale=2, size=(500, 10)), rng.integers(10, size=500)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    for bins in (1, 10, 15):
        assert calibration_error(logits, labels, bins) == pytest.approx(by_loop(probabilities, labels, bins))


def test_certain_and_right_is_0_and_certain_and_wrong_is_1():
    logits = np.array([[200.0, 0.0], [0.0, 200.0]], np.float32)
    assert calibration_error(logits, np.array([0, 1])) == 0
    assert calibration_error(logits, np.array([1, 0])) == 1
