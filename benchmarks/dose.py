"""How good a backbone has to be before quantization hurts: the gap to full precision against its top-1.

    python benchmarks/dose.py [RUN ...]    # results/dose/* -> benchmarks/results/dose.*

Each run is `ablate study dose` on one backbone. A gap is full precision's test accuracy minus an arm's, at
the same length of fine-tuning and the same seed, each by its own tuned learning rate. Its interval is a 95 %
t interval over the seeds; one backbone is one pre-training, so that no interval says what another
pre-training would give. Top-1 is that of the 9,961 validation images of the pre-training: of the card of a
bundled backbone, or of the training.json that make_backbone.py wrote, beside the run.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from setting import machine

from ablate import load_run
from ablate.analysis.paired import by_seed
from ablate.analysis.t_interval import mean_interval
from ablate.config.builtin import ASSETS
from ablate.paper_figures.palette import colours
from ablate.paper_figures.style import figure, legend, markers
from ablate.reporting.run_results import RunResults
from ablate.runs.run import Run

matplotlib.use("Agg")
HERE = Path(__file__).parent
RUNS, RESULT = HERE.parent / "results" / "dose", HERE / "results" / "dose"
COLUMNS = ["backbone", "top1", "arm", "epochs", "n", "accuracy", "gap", "low", "high", "learning_rate"]


def top1(run: Run) -> float:
    """The backbone's validation top-1, a share."""
    if (file := run.path / "training.json").exists():
        return float(json.loads(file.read_text())["top1"])
    card = (ASSETS / run.study.model / "README.md").read_text(encoding="utf-8").splitlines()[0]
    found = re.search(r"top-1 ([\d.]+) %", card)
    assert found, f"the card of {run.study.model} says no top-1"
    return float(found[1]) / 100


def gaps(run: Run) -> pd.DataFrame:
    """Rows of COLUMNS: each arm at each length, with the gap in points to full precision, seed by seed."""
    table = RunResults(run).design
    assert table is not None, f"{run.path} has no trials"
    values = 100 * by_seed(table, "test_accuracy")
    first = table[table["role"] == "seed"].drop_duplicates("cell").set_index("cell")
    rows = []
    for cell in values:
        arm, epochs = re.fullmatch(r"(.*), recipe\.epochs (\d+)", cell).groups()  # type: ignore[union-attr]
        gap = (values[f"full, recipe.epochs {epochs}"] - values[cell]).dropna()
        interval = mean_interval(gap) if arm != "full" else (0.0, 0.0, 0.0)
        accuracy, rate = values[cell].mean(), first.loc[cell, "learning_rate"]
        rows.append((run.path.name, top1(run), arm, int(epochs), len(gap), accuracy, *interval, rate))
    return pd.DataFrame(rows, columns=COLUMNS)


def draw(table: pd.DataFrame, path: Path) -> None:
    """The gap against top-1: a panel a length, a line an arm."""
    lengths = sorted(table["epochs"].unique())
    arms = [arm for arm in dict.fromkeys(table["arm"]) if arm != "full"]
    shapes, tints = markers(arms), colours(arms)
    with figure(path, 2.9, 2, ncols=len(lengths), sharey=True, squeeze=False) as grid:
        lines: dict[str, Any] = {}
        for axes, epochs in zip(grid[0], lengths, strict=True):
            for arm in arms:
                rows = table[(table["arm"] == arm) & (table["epochs"] == epochs)].sort_values("top1")
                ends = [rows["gap"] - rows["low"], rows["high"] - rows["gap"]]
                style = {"color": tints[arm], "marker": shapes[arm], "markersize": 4, "linewidth": 1}
                lines[arm] = axes.errorbar(100 * rows["top1"], rows["gap"], ends, **style)
            axes.axhline(0, color="grey", linewidth=0.6)
            axes.set(xlabel="top-1 of the backbone (%)", title=f"{epochs} epochs on 2,000 images")
        grid[0][0].set_ylabel("gap to full precision (points)")
        legend(grid[0][0].figure, lines, fontsize=7, loc="outside lower center", ncols=len(arms))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="*", metavar="RUN", help="default: all in results/dose")
    parser.add_argument("--out", type=Path, default=RESULT, metavar="FILE", help="without its ending")
    options = parser.parse_args()
    runs = [load_run(path) for path in options.runs or sorted(RUNS.iterdir())]
    table = pd.concat([gaps(run) for run in runs], ignore_index=True)
    table = table.sort_values(["epochs", "top1"], kind="stable")
    table.round(4).to_csv(options.out.with_suffix(".csv"), index=False)
    said = machine("ablate-vit", "numpy", "pandas", "scipy", "matplotlib")
    trained = {run.path.name: sorted({*run.records["device"]}) for run in runs}
    options.out.with_suffix(".json").write_text(
        json.dumps({"made on": said, "trained on": trained}, indent=1) + "\n"
    )
    draw(table, options.out)
    print(table.round({"accuracy": 1, "gap": 1, "low": 1, "high": 1}).to_string(index=False))


if __name__ == "__main__":
    main()
