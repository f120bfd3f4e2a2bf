"""How often the 95 % intervals of analysis.scaling hold the truth. What a fit costs is in analysis.py.

    python benchmarks/coverage_scaling.py [--studies 500] [--samples 1000]

Simulated studies: 5 data sizes over two decades, 8 seeds, Gaussian noise of the log error, full and quantized
curves; independent points. Prints a table and writes results/coverage-scaling.json; half an hour of one core.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from ablate.analysis.laws import LAWS
from ablate.analysis.scaling import fit
from ablate.runs.provenance import provenance

D = np.tile(np.geomspace(200, 20000, 5), 8)
PAIR = {"D": np.tile(D, 2), "quantized": np.repeat([0, 1], len(D))}
TRUTHS = {
    "power": ({"D": D}, {"B": 3.0, "beta": 0.3}, 3.0 / D**0.3),
    "power_floor": ({"D": D}, {"E": 0.15, "B": 5.0, "beta": 0.4}, 0.15 + 5.0 / D**0.4),
    "multiplier": (
        PAIR,
        {"E": 0.1, "B": 5.0, "beta": 0.4, "rho": 0.3},
        0.1 + 5.0 / (np.where(PAIR["quantized"], 0.3, 1) * PAIR["D"]) ** 0.4,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=500)
    parser.add_argument("--samples", type=int, default=1000)
    options = parser.parse_args()
    print(f"{'law':12} {'sd':>5} {'delta':>6}   bootstrap / profile coverage of each parameter, %")
    rows = []
    for law, (predictors, truth, loss) in TRUTHS.items():
        for sd, delta in ((0.02, 1e-3), (0.1, 1e-3), (0.02, 1.0), (0.1, 1.0)):
            hits = np.zeros((2, len(truth)))
            for seed in range(options.studies):
                noise = np.random.default_rng(seed).normal(0, sd, len(loss))
                found = fit(
                    law,
                    predictors,
                    loss * np.exp(noise),
                    huber_delta=delta,
                    samples=options.samples,
                    seed=seed,
                )
                for row, ends in enumerate((found.intervals, found.profile)):
                    hits[row] += [
                        ends[name][0] <= truth[name] <= ends[name][1] for name in LAWS[law].parameters
                    ]
            shares = dict(
                zip(LAWS[law].parameters, (100 * hits / options.studies).T.round(1).tolist(), strict=True)
            )
            print(f"{law:12} {sd:5} {delta:6}  {shares}", flush=True)
            rows.append({"law": law, "sd": sd, "huber_delta": delta, "held": shares})
    about = {"seeds": f"0 to {options.studies - 1}", "provenance": provenance()}
    result = {**vars(options), **about, "held": "percent, [bootstrap, profile likelihood]", "rows": rows}
    (Path(__file__).parent / "results" / "coverage-scaling.json").write_text(
        json.dumps(result, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
