"""Scaling laws: how error falls with data volume D, with model size N, and what quantization adds to it.

Each law is a sum of positive terms, worked on as a log-sum-exp of its log terms (Hoffmann et al. 2022, arXiv 2203.15556,
approach 3). Coefficients (E, A, B, ...) are fitted as logarithms, exponents (alpha, beta, ...) as they are.

Predictors: N parameters of the model, D training images, P bits a weight, and quantized, 0 on the full-precision
curve and 1 on the quantized one, where a law describes both curves together.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Columns = dict[str, Array]
# A term: its coefficient, the logarithm of what the coefficient multiplies (S, n), and that logarithm's derivatives.
Term = tuple[str, Array, Columns]

EXPONENTS = {"alpha", "beta", "beta_q", "gamma_D"}
LARGEST_EXPONENT = 5.0


@dataclass(frozen=True)
class Law:
    """equation: as published; parameters and predictors: their names; terms: (parameters (S, 1), predictors (n,)) -> terms."""

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
    return "A", -p["alpha"] * x["N"], {"alpha": -x["N"]}  # A / N^alpha


def _effective_size(p: Columns, x: Columns) -> Term:
    bits = x["P"] / np.exp(p["gamma"])  # (S, n)
    effective = x["N"] + np.log(
        -np.expm1(-bits)
    )  # N_eff = N (1 - exp(-P / gamma)), Kumar et al. 2024, arXiv 2411.04330
    slope = p["alpha"] * bits * np.exp(-bits) / -np.expm1(-bits)
    return "A", -p["alpha"] * effective, {"alpha": -effective, "gamma": slope}


def _multiplied(p: Columns, x: Columns) -> Term:
    data = x["D"] + x["quantized"] * p["rho"]  # log(rho D) on the quantized curve, log D on the other
    return "B", -p["beta"] * data, {"beta": -data, "rho": -p["beta"] * x["quantized"]}


def _growing(p: Columns, x: Columns) -> Term:
    # delta(D) = k D^gamma_D at one N and one group size: Chen et al. 2025, arXiv 2505.14302
    return "k", p["gamma_D"] * x["D"] + _only(x["quantized"]), {"gamma_D": x["D"]}


_PAIR = ("D", "quantized")
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
    "gap_growing": Law(
        "full: E + B/D^beta; quantized: the same + k D^gamma_D",
        ("E", "B", "beta", "k", "gamma_D"),
        _PAIR,
        lambda p, x: [_floor(x), _power(p, x), _growing(p, x)],
    ),
}


def transformed(predictors: Columns) -> Columns:
    """log N and log D; P and quantized as they are."""
    return {name: np.log(value) if name in ("N", "D") else value for name, value in predictors.items()}


def log_loss(law: Law, theta: Array, x: Columns) -> tuple[Array, Array]:
    """The log losses (S, n) of S parameter vectors (S, k) at n points, and their gradients (S, n, k)."""
    terms = law.terms(_columns(law, theta), x)
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


def bounds(law: Law, x: Columns, loss: Array) -> tuple[Array, Array]:
    """The lowest and highest parameter vectors (k,) that a fit may reach: far beyond what points can tell apart."""
    reach = LARGEST_EXPONENT * max(
        float(np.abs(value).max()) for name, value in x.items() if name in ("N", "D")
    )
    least, most = np.log(loss.min()), np.log(loss.max())
    tiny = np.log(1e-6)
    limits = {
        **dict.fromkeys(EXPONENTS, (0.0, LARGEST_EXPONENT)),
        **dict.fromkeys(("E", "delta"), (least + tiny, most)),
        "rho": (tiny, -tiny),
        "gamma": (np.log(0.1), np.log(1000.0)),
    }
    low, high = zip(
        *(limits.get(name, (least + tiny - reach, most - tiny + reach)) for name in law.parameters),
        strict=True,
    )
    return np.array(low), np.array(high)


def starts(law: Law, x: Columns, loss: Array) -> Array:
    """A grid of starts (S, k): exponents, precisions and floors vary; each other term then makes up what the floor leaves."""
    grid = {**dict.fromkeys(EXPONENTS, (0.1, 0.35, 0.7, 1.5)), "E": (0.05, 0.5, 0.9)}
    grid |= {"gamma": tuple(np.log((0.5, 2.0, 8.0))), "rho": tuple(np.log((0.1, 0.5, 1.5)))}
    axes = np.meshgrid(*(grid.get(name, (0.0,)) for name in law.parameters), indexing="ij")
    theta = np.stack([axis.ravel() for axis in axes], axis=1)  # (S, k), with E as a share of the least loss
    share = theta[:, law.parameters.index("E")] if "E" in law.parameters else np.zeros(len(theta))
    for name, rest, _ in law.terms(_columns(law, theta), x):
        part = share * loss.min() if name == "E" else (1 - share) * np.exp(np.log(loss).mean())
        middle = np.array([row[np.isfinite(row)].mean() for row in np.atleast_2d(rest)])
        theta[:, law.parameters.index(name)] = np.log(part) - middle
    return np.clip(theta, *bounds(law, x, loss))


def _columns(law: Law, theta: Array) -> Columns:
    return {name: theta[:, i, None] for i, name in enumerate(law.parameters)}
