"""How often the test of lack of fit rejects laws that hold.

    python benchmarks/lack_of_fit.py [--studies 500]

Simulated studies: the laws fitted to results/data_volume and results/data_volume_epochs are the truth; the
noise of the log error is Gaussian with the covariance of the seeds there, over sizes and, for a gap law, both
arms (a tenth of it moved to the diagonal, because eight seeds cannot give ten dimensions). Prints a table and
writes results/lack-of-fit.json; four minutes of one core.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ablate.analysis.curves import ARM_LAWS, GAP_LAWS, HUBER_DELTA
from ablate.analysis.descent import Problem
from ablate.analysis.lack_of_fit import LEVEL, lack_of_fit
from ablate.analysis.law_bounds import bounds
from ablate.analysis.laws import LAWS, log_loss, transformed
from ablate.analysis.scaling import fit
from ablate.runs.provenance import provenance

HERE = Path(__file__).parent
RUNS = ("data_volume", "data_volume_epochs")


def designs() -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Run, arm or pair, and its trials: the baseline is the full-precision arm of the same augmentation."""
    for run in RUNS:
        table = pd.read_csv(HERE.parent / "results" / run / "design.csv")
        rows = table[table["role"] == "seed"].assign(error=1 - table["test_accuracy"])
        for arm, trials in rows.groupby("step", sort=False):
            yield run, arm, trials.assign(quantized=0)
            if trials["arm"].iloc[0] != "full":
                baseline = "full, not augmented" if arm.endswith("not augmented") else "full"
                full = rows[rows["step"] == baseline].assign(quantized=0)
                yield run, f"{arm} and {baseline}", pd.concat([full, trials.assign(quantized=1)])


def rejections(law: str, trials: pd.DataFrame, studies: int) -> dict[str, float]:
    """The share of studies in which each test rejects the law that made their points."""
    table = trials.pivot(index="seed", columns=["quantized", "images"], values="error")  # (S, settings)
    quantized, images = (table.columns.get_level_values(i).to_numpy(dtype=float) for i in (0, 1))
    once = {"D": images, "quantized": quantized}
    seeds, logs = len(table), np.log(table.to_numpy())
    predictors = {name: np.tile(values, seeds) for name, values in once.items()}
    fitted = fit(law, predictors, np.exp(logs).ravel(), huber_delta=HUBER_DELTA, samples=0)
    covariance = np.cov(logs.T)
    covariance = 0.9 * covariance + 0.1 * np.diag(np.diag(covariance))
    x = transformed({name: predictors[name] for name in LAWS[law].predictors})
    truth = log_loss(LAWS[law], fitted.theta[None], x)[0][0]
    limits = bounds(LAWS[law], x, np.exp(truth))
    random, blocks = np.random.default_rng(0), np.repeat(np.arange(seeds), len(images))
    rejected = np.zeros(2)
    for _ in range(studies):
        noise = random.multivariate_normal(np.zeros(len(images)), covariance, seeds).ravel()
        problem = Problem(LAWS[law], x, truth + noise, HUBER_DELTA, *limits)
        tests = lack_of_fit(problem, fitted.theta, blocks), lack_of_fit(problem, fitted.theta)
        rejected += [test is not None and test.p < LEVEL for test in tests]
    return dict(zip(("blocks", "classical"), (rejected / studies).tolist(), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=500)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for run, name, trials in designs():
        for law in GAP_LAWS if trials["quantized"].any() else ARM_LAWS:
            rows.append({"run": run, "of": name, "law": law, **rejections(law, trials, options.studies)})
            print(*rows[-1].values(), sep="; ", flush=True)
    about = {"level": LEVEL, "seeds": 0, "provenance": provenance()}
    result = {**vars(options), **about, "rejected": "share of studies", "rows": rows}
    (HERE / "results" / "lack-of-fit.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
