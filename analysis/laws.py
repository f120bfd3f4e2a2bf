"""Scaling laws: how error falls with data volume D and model size N, and what quantization adds to it.

Each law is a sum of positive terms, computed as a log-sum-exp of its log terms (Hoffmann et al. 2022, arXiv
2203.15556, approach 3). Coefficients (E, A, B, ...) are fitted as logarithms, exponents (alpha, beta, ...) as
they are. So a parameter vector theta (k,) has the logarithms of coefficients.

Predictors: N parameters of the model, D training images, T image views in training, P bits per weight. Where
a law describes a full-precision and a quantized curve together, `quantized` is 0 on the first and 1 on the
second.

In the published laws of quantization-aware training D is the data processed, repetitions included. At one N,
one width and one group size they are `gap_constant` (Kumar et al. 2024, arXiv 2411.04330) and `gap_power`
(Chen et al. 2025, arXiv 2505.14302). The law of Dremov et al. 2025 (arXiv 2509.22935) is left out: it tells a
full-precision phase from the quantized phase after it, so trials of one model, one width and one phase cannot
fit its terms. They are not written down here either, because they were not checked against the paper.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Columns = dict[str, Array]
# A term: the name of its coefficient, the logarithm of its other factor (S, n), and that one's derivatives.
Term = tuple[str, Array, Columns]

EXPONENTS = {"alpha", "beta", "beta_q", "gamma_D"}
SIGNED = {"gamma_D"}  # the exponents that may be below 0; coefficients and the other exponents may not
FLOORS = ("E", "E_q")  # what is left of the error when the data have no end
LARGEST_EXPONENT = 5.0


@dataclass(frozen=True)
class Law:
    """A scaling law.

    Attributes:
        equation: as published.
        parameters: their names, in the order of theta.
        predictors: their names.
        terms: the terms of S parameter vectors at n points, from parameters (S, 1) and predictors (n,) by
            name.
    """

    equation: str
    parameters: tuple[str, ...]
    predictors: tuple[str, ...]
    terms: Callable[[Columns, Columns], list[Term]]


def _floor(x: Columns, name: str = "E", where: Array | None = None) -> Term:
    """A constant, at all points or where the mask is 1."""
    return name, np.zeros_like(x["D"]) if where is None else _only(where), {}


def _power(
    p: Columns, x: Columns, name: str = "B", exponent: str = "beta", where: Array | None = None
) -> Term:
    """name / D^exponent, at all points or where the mask is 1."""
    return name, -p[exponent] * x["D"] + (0 if where is None else _only(where)), {exponent: -x["D"]}


def _only(mask: Array) -> Array:
    """log of a mask of zeros and ones."""
    return np.where(mask == 1, 0.0, -np.inf)


def _size(p: Columns, x: Columns) -> Term:
    """A / N^alpha."""
    return "A", -p["alpha"] * x["N"], {"alpha": -x["N"]}


def _effective_size(p: Columns, x: Columns) -> Term:
    """A / N_eff^alpha, N_eff = N (1 - exp(-P / gamma)): Kumar et al. 2024, arXiv 2411.04330."""
    bits = x["P"] / np.exp(p["gamma"])  # (S, n)
    effective = x["N"] + np.log(-np.expm1(-bits))
    slope = p["alpha"] * bits * np.exp(-bits) / -np.expm1(-bits)
    return "A", -p["alpha"] * effective, {"alpha": -effective, "gamma": slope}


def _multiplied(p: Columns, x: Columns) -> Term:
    """B / (rho D)^beta on the quantized curve, B / D^beta on the other."""
    data = x["D"] + x["quantized"] * p["rho"]
    return "B", -p["beta"] * data, {"beta": -data, "rho": -p["beta"] * x["quantized"]}


def _power_gap(p: Columns, x: Columns) -> Term:
    """k D^gamma_D on the quantized curve: Chen et al. 2025, arXiv 2505.14302, at one N and one group size."""
    return "k", p["gamma_D"] * x["D"] + _only(x["quantized"]), {"gamma_D": x["D"]}


def _updates(p: Columns, x: Columns) -> Term:
    """A / T^alpha."""
    return "A", -p["alpha"] * x["T"], {"alpha": -x["T"]}


def _images_times_updates(p: Columns, x: Columns) -> Term:
    """B / (D^beta T^alpha)."""
    rest = -p["beta"] * x["D"] - p["alpha"] * x["T"]
    return "B", rest, {"beta": -x["D"], "alpha": -x["T"]}


_PAIR = ("D", "quantized")
_GRID = ("D", "T")
LAWS: dict[str, Law] = {
    "power": Law("B/D^beta", ("B", "beta"), ("D",), lambda p, x: [_power(p, x)]),
    "power_floor": Law("E + B/D^beta", ("E", "B", "beta"), ("D",), lambda p, x: [_floor(x), _power(p, x)]),
    "chinchilla": Law(
        "E + A/N^alpha + B/D^beta",
        ("E", "A", "B", "alpha", "beta"),
        ("N", "D"),
        lambda p, x: [_floor(x), _size(p, x), _power(p, x)],
    ),
    "precision": Law(
        "E + A/N_eff^alpha + B/D^beta, N_eff = N (1 - exp(-P/gamma))",
        ("E", "A", "B", "alpha", "beta", "gamma"),
        ("N", "D", "P"),
        lambda p, x: [_floor(x), _effective_size(p, x), _power(p, x)],
    ),
    # Of a grid of images and updates. Chinchilla's law with T in the place of N, and its rivals.
    "images": Law("E + B/D^beta", ("E", "B", "beta"), _GRID, lambda p, x: [_floor(x), _power(p, x)]),
    "updates": Law("E + A/T^alpha", ("E", "A", "alpha"), _GRID, lambda p, x: [_floor(x), _updates(p, x)]),
    "images_and_updates": Law(
        "E + A/T^alpha + B/D^beta",
        ("E", "A", "B", "alpha", "beta"),
        _GRID,
        lambda p, x: [_floor(x), _updates(p, x), _power(p, x)],
    ),
    "images_times_updates": Law(
        "E + B/(D^beta T^alpha)",
        ("E", "B", "beta", "alpha"),
        _GRID,
        lambda p, x: [_floor(x), _images_times_updates(p, x)],
    ),
    "multiplier": Law(
        "full: E + B/D^beta; quantized: the same at rho D",
        ("E", "B", "beta", "rho"),
        _PAIR,
        lambda p, x: [_floor(x), _multiplied(p, x)],
    ),
    "gap_shared": Law(  # the same curves as `multiplier`, with B_q = B / rho^beta
        "full: E + B/D^beta; quantized: E + B_q/D^beta",
        ("E", "B", "beta", "B_q"),
        _PAIR,
        lambda p, x: [
            _floor(x),
            _power(p, x, where=1 - x["quantized"]),
            _power(p, x, "B_q", where=x["quantized"]),
        ],
    ),
    "gap_constant": Law(  # Kumar et al. 2024: weights' precision enters beside the term in D, not in it
        "full: E + B/D^beta; quantized: the same + delta",
        ("E", "B", "beta", "delta"),
        _PAIR,
        lambda p, x: [_floor(x), _power(p, x), _floor(x, "delta", where=x["quantized"])],
    ),
    "gap_free": Law(
        "full: E + B/D^beta; quantized: E + B_q/D^beta_q",
        ("E", "B", "beta", "B_q", "beta_q"),
        _PAIR,
        lambda p, x: [
            _floor(x),
            _power(p, x, where=1 - x["quantized"]),
            _power(p, x, "B_q", "beta_q", x["quantized"]),
        ],
    ),
    "gap_floors": Law(
        "full: E + B/D^beta; quantized: E_q + B_q/D^beta_q",
        ("E", "B", "beta", "E_q", "B_q", "beta_q"),
        _PAIR,
        lambda p, x: [
            _floor(x, where=1 - x["quantized"]),
            _power(p, x, where=1 - x["quantized"]),
            _floor(x, "E_q", where=x["quantized"]),
            _power(p, x, "B_q", "beta_q", x["quantized"]),
        ],
    ),
    "gap_power": Law(
        "full: E + B/D^beta; quantized: the same + k D^gamma_D",
        ("E", "B", "beta", "k", "gamma_D"),
        _PAIR,
        lambda p, x: [_floor(x), _power(p, x), _power_gap(p, x)],
    ),
}


def natural(name: str, value: float) -> float:
    """A parameter on its natural scale.

    Args:
        name: of the parameter.
        value: as in theta; infinite where nothing bounds it.

    Returns:
        The exponent, or the coefficient. Where nothing bounds the parameter from below, that is 0, or -inf
        for an exponent of either sign.
    """
    if name in SIGNED:
        return float(value)
    return float(max(value, 0.0) if name in EXPONENTS else np.exp(value))


def transformed(predictors: Columns) -> Columns:
    """The predictors as the terms take them: log N, log D and log T, the others as they are."""
    return {name: np.log(value) if name in ("N", "D", "T") else value for name, value in predictors.items()}


def columns(law: Law, theta: Array) -> Columns:
    """The parameter vectors theta (S, k) as columns (S, 1) by name."""
    return {name: theta[:, i, None] for i, name in enumerate(law.parameters)}


def log_loss(law: Law, theta: Array, x: Columns) -> tuple[Array, Array]:
    """The logarithm of the loss that a law predicts.

    Args:
        law: the law, with k parameters and T terms.
        theta: (S, k) parameter vectors.
        x: predictors (n,) by name, as from `transformed`.

    Returns:
        Log losses (S, n), and their gradients (S, n, k).
    """
    terms = law.terms(columns(law, theta), x)
    index = {name: i for i, name in enumerate(law.parameters)}
    logs = [theta[:, index[name], None] + rest for name, rest, _ in terms]  # each (S, n)
    largest = np.max(logs, axis=0)
    shares = np.exp(np.array(logs) - largest)  # (T, S, n)
    total = shares.sum(axis=0)
    gradient = np.zeros((*total.shape, len(law.parameters)))
    for (name, _, slopes), share in zip(terms, shares / total, strict=True):
        gradient[..., index[name]] += share
        for parameter, slope in slopes.items():
            gradient[..., index[parameter]] += share * slope
    return largest + np.log(total), gradient
