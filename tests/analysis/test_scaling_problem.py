"""Points and options that no scaling law can be fitted with are refused, in one line that says why."""

import numpy as np
import pytest
from scaling_cases import BITS, CURVE, IMAGES, published

from ablate.analysis.scaling import fit
from ablate.analysis.scaling_problem import Refused

REFUSED = [
    ("power", {"D": [1, 2, 3]}, [0.5, 0.0, 0.2], r"loss\[1\] is 0.0"),
    ("power", {"D": [1, 2, 3]}, [0.5, -0.1, 0.2], r"loss\[1\] is -0.1"),
    ("power", {"D": [1, 2, 3]}, [0.5, 0.3, np.nan], r"loss\[2\] is nan"),
    ("power", {"D": [1, 2, 3]}, [np.inf, 0.3, 0.2], r"loss\[0\] is inf"),
    ("power", {"D": [0, 2, 3]}, [0.5, 0.3, 0.2], r"D must be above 0 and finite, but D\[0\] is 0.0"),
    ("power", {"D": [1, np.nan, 3]}, [0.5, 0.3, 0.2], r"D\[1\] is nan"),
    ("power", {"D": [1, 2, 3]}, [0.5, 0.3], "a loss for each D, but got 3 D"),
    ("power", {"D": [[1, 2]]}, [[0.5, 0.3]], r"shape \(1, 2\)"),
    ("power", {"D": []}, [], "needs as many different D, but got 0"),
    ("power", {"D": [5, 5, 5]}, [0.5, 0.3, 0.2], "needs more than one D, but all 3 points have 5"),
    ("power", {"D": [1, 2, 3]}, [0.5, 0.5, 0.5], "the loss is 0.5 at all 3 points"),
    ("power_floor", {"D": [1, 2]}, [0.5, 0.3], "3 parameters and needs as many different D, but got 2"),
    (
        "power_floor",
        {"D": [1, 2, 1, 2]},
        [0.5, 0.3, 0.6, 0.2],
        "3 parameters and needs as many different D, but got 2",
    ),
    ("chinchilla", {"D": IMAGES}, published("power"), "needs N, D; missing: N"),
    (
        "chinchilla",
        {"D": IMAGES, "N": np.full(8, 1e6)},
        published("power"),
        "needs more than one N, but all 8 points have 1e",
    ),
    (
        "precision",
        BITS | {"P": np.full(100, 4)},
        published("precision"),
        "needs more than one P, but all 100 points have 4",
    ),
    (
        "multiplier",
        {"D": IMAGES, "quantized": np.ones(8)},
        published("power"),
        "needs more than one quantized",
    ),
    (
        "multiplier",
        {"D": IMAGES, "quantized": np.arange(8)},
        published("power"),
        r"quantized must be 0 or 1, but quantized\[2\]",
    ),
    ("linear", {"D": [1, 2, 3]}, [0.5, 0.3, 0.2], "unknown law 'linear'; known: power, "),
]


@pytest.mark.parametrize(("law", "predictors", "loss", "message"), REFUSED)
def test_points_that_cannot_carry_a_law_are_refused(law, predictors, loss, message):
    with pytest.raises(Refused, match=message) as refusal:
        fit(law, predictors, loss)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "options", [{"huber_delta": 0}, {"huber_delta": np.nan}, {"confidence": 1.0}, {"samples": -1}]
)
def test_options_that_mean_nothing_are_refused(options):
    with pytest.raises(Refused, match="must hold, but got"):
        fit("power", CURVE, published("power"), **options)
