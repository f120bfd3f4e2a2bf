"""Scaling laws written as they are published, with points to fit them to."""

import numpy as np

IMAGES = np.geomspace(200, 20000, 8)
CURVE = {"D": IMAGES}
PAIR = {"D": np.tile(IMAGES, 2), "quantized": np.repeat([0, 1], 8)}
SIZES = dict(
    zip("ND", map(np.ravel, np.meshgrid(np.geomspace(1e5, 1e8, 6), np.geomspace(200, 2e6, 6))), strict=True)
)
_GRID = np.meshgrid(np.geomspace(1e5, 1e8, 5), np.geomspace(200, 2e6, 5), [1, 2, 4, 8])
GRID = dict(
    zip("DT", map(np.ravel, np.meshgrid(np.geomspace(200, 20000, 5), np.geomspace(2e3, 2e5, 5))), strict=True)
)
BITS = dict(zip("NDP", map(np.ravel, _GRID), strict=True))

# law: its predictors, true parameters, and its formula as published
PUBLISHED = {
    "power": (CURVE, {"B": 3.0, "beta": 0.3}, lambda D, B, beta: B / D**beta),
    "power_floor": (CURVE, {"E": 0.15, "B": 5.0, "beta": 0.4}, lambda D, E, B, beta: E + B / D**beta),
    # Hoffmann et al. 2022, re-estimated by Besiroglu et al. 2024; E and A scaled to this range
    "chinchilla": (
        SIZES,
        {"E": 0.3, "A": 48.0, "B": 21.0, "alpha": 0.3478, "beta": 0.3658},
        lambda N, D, E, A, B, alpha, beta: E + A / N**alpha + B / D**beta,
    ),
    "precision": (
        BITS,
        {"E": 0.3, "A": 48.0, "B": 21.0, "alpha": 0.35, "beta": 0.37, "gamma": 2.5},
        lambda N, D, P, E, A, B, alpha, beta, gamma: (
            E + A / (N * (1 - np.exp(-P / gamma))) ** alpha + B / D**beta
        ),
    ),
    "images": (GRID, {"E": 0.15, "B": 5.0, "beta": 0.4}, lambda D, T, E, B, beta: E + B / D**beta),
    "updates": (GRID, {"E": 0.15, "A": 20.0, "alpha": 0.5}, lambda D, T, E, A, alpha: E + A / T**alpha),
    "images_and_updates": (
        GRID,
        {"E": 0.15, "A": 20.0, "B": 5.0, "alpha": 0.5, "beta": 0.4},
        lambda D, T, E, A, B, alpha, beta: E + A / T**alpha + B / D**beta,
    ),
    "images_times_updates": (
        GRID,
        {"E": 0.15, "B": 50.0, "beta": 0.3, "alpha": 0.4},
        lambda D, T, E, B, beta, alpha: E + B / (D**beta * T**alpha),
    ),
    "multiplier": (
        PAIR,
        {"E": 0.1, "B": 5.0, "beta": 0.4, "rho": 0.3},
        lambda D, quantized, E, B, beta, rho: E + B / (np.where(quantized, rho, 1) * D) ** beta,
    ),
    "gap_shared": (
        PAIR,
        {"E": 0.1, "B": 5.0, "beta": 0.4, "B_q": 8.0},
        lambda D, quantized, E, B, beta, B_q: E + np.where(quantized, B_q, B) / D**beta,
    ),
    "gap_constant": (
        PAIR,
        {"E": 0.1, "B": 5.0, "beta": 0.4, "delta": 0.07},
        lambda D, quantized, E, B, beta, delta: E + B / D**beta + quantized * delta,
    ),
    "gap_free": (
        PAIR,
        {"E": 0.1, "B": 5.0, "beta": 0.4, "B_q": 4.0, "beta_q": 0.25},
        lambda D, quantized, E, B, beta, B_q, beta_q: E + np.where(quantized, B_q / D**beta_q, B / D**beta),
    ),
    "gap_floors": (
        PAIR,
        {"E": 0.1, "B": 5.0, "beta": 0.4, "E_q": 0.14, "B_q": 4.0, "beta_q": 0.25},
        lambda D, quantized, E, B, beta, E_q, B_q, beta_q: np.where(
            quantized, E_q + B_q / D**beta_q, E + B / D**beta
        ),
    ),
    "gap_power": (
        PAIR,
        {"E": 0.1, "B": 5.0, "beta": 0.4, "k": 0.01, "gamma_D": 0.25},
        lambda D, quantized, E, B, beta, k, gamma_D: E + B / D**beta + quantized * k * D**gamma_D,
    ),
}


def published(law, predictors=None, **changed):
    own, parameters, formula = PUBLISHED[law]
    return formula(**(own if predictors is None else predictors), **(parameters | changed))


def noisy(loss, sd, seed=0):
    return loss * np.exp(np.random.default_rng(seed).normal(0, sd, np.shape(loss)))


def repeated(predictors, times):
    return {name: np.tile(values, times) for name, values in predictors.items()}
