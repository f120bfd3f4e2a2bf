"""Repeats the real trials that `benchmarks/search.py` compares samplers on, and makes one file of all.

    ablate study search_table --out random                       # its cost: studies/search_table.toml
    ablate study search_table --sampler nsga2 --objectives accuracy,size_bytes --seed 1 --out front
    python benchmarks/make_search_table.py repeat random --points 25   # 2 more seeds each: 12 minutes
    python benchmarks/make_search_table.py repeat front --points 25    # 22 of these 100 are not yet run
    python benchmarks/make_search_table.py repeat random --float32 --points 12 --seeds 0 1000 2000   # 84 min
    python benchmarks/make_search_table.py table random front                # results/search_table.parquet

repeat: trains points spread evenly over the order by accuracy with further seeds, in this process, into
RUN/repeats.jsonl; goes on where it was stopped. With --float32 they are others than those repeated in
bfloat16, which a CPU without it would take hours for: give their own seed (0) again. Those in results/ ran on
an EPYC with AVX2, torch 2.14.1. table: a row a complete trial, its axes as `axis.NAME`, its seed, whether it
was trained in bfloat16, and what came of it; the provenance of each run and the digests of its ledgers in the
file's metadata.
"""

import argparse
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ablate.config.canonical import effective
from ablate.config.trial_spec import TrialSpec
from ablate.data import datasets
from ablate.models import checkpoints, layer_groups
from ablate.runs import ledger
from ablate.runs.run import Run, load_run
from ablate.search.parameter_space import Points
from ablate.training.run_trial import run_trial

RESULTS = Path(__file__).parent / "results"
COLUMNS = ("seed", "accuracy", "loss", "size_bytes", "bitops", "train_seconds")


def repeat(runs: list[Run], points: int, seeds: list[int], float32: bool) -> None:
    """Trains `points` of the runs' points, the least accurate first, each of `seeds` added to theirs."""
    done = [record["spec"] for run in runs for record in complete(run.path / "repeats.jsonl")]
    elsewhere = {point(spec) for spec in done if float32 and spec["recipe"]["bf16"]}
    found = [
        (record["accuracy"], i, record)
        for i, run in enumerate(runs)
        for record in complete(run.path / "ledger.jsonl")
        if point(record["spec"]) not in elsewhere
    ]
    found.sort(key=lambda row: row[:2])
    chosen = [found[round(k * (len(found) - 1) / max(1, points - 1))] for k in range(points)]
    for _, i, record in chosen:
        for seed in seeds:
            recipe = record["spec"]["recipe"] | ({"bf16": False} if float32 else {})
            spec = TrialSpec.model_validate(
                record["spec"] | {"seed": record["seed"] + seed, "recipe": recipe}
            )
            if spec.model_dump() not in done:
                repeated = run_trial(spec)
                ledger.append(runs[i].path / "repeats.jsonl", repeated)
                print(
                    record["trial_id"], record["accuracy"], repeated["seed"], repeated["accuracy"], flush=True
                )


def point(spec: dict[str, Any]) -> str:
    """What two trials have in common that differ in seed and in the precision of training alone."""
    return json.dumps(spec | {"seed": 0, "recipe": spec["recipe"] | {"bf16": True}}, sort_keys=True)


def complete(path: Path) -> Iterator[dict[str, Any]]:
    yield from (
        record for record in (ledger.read(path) if path.exists() else []) if record["status"] == "complete"
    )


def rows(run: Run) -> Iterator[dict[str, Any]]:
    """The run's trials and their repeats, a row each."""
    study = run.study
    groups = [*layer_groups.groups(checkpoints.load(study.model, datasets.load(study.data).classes))]
    points = Points(study, groups)
    for name in ("ledger.jsonl", "repeats.jsonl"):
        for record in complete(run.path / name):
            axes = points.point(effective(TrialSpec.model_validate(record["spec"])))
            row = {f"axis.{axis}": value for axis, value in axes.items()} | {
                key: record[key] for key in COLUMNS
            }
            yield row | {"bf16": record["spec"]["recipe"]["bf16"]}


def table(runs: list[Run], out: Path) -> None:
    """Write the rows of all runs, with where they are from."""
    found = pa.Table.from_pandas(
        pd.DataFrame([row for run in runs for row in rows(run)]), preserve_index=False
    )
    about = [
        {
            "provenance": json.loads((run.path / "provenance.json").read_text()),
            "study": (run.path / "study.toml").read_text(),
            "sha256": {
                path.name: hashlib.sha256(path.read_bytes()).hexdigest()
                for path in sorted(run.path.glob("*.jsonl"))
            },
        }
        for run in runs
    ]
    metadata = {**(found.schema.metadata or {}), b"ablate": json.dumps(about).encode()}
    out.parent.mkdir(exist_ok=True)
    pq.write_table(found.replace_schema_metadata(metadata), out, compression="zstd")
    print(f"{out}: {found.num_rows} trials, {out.stat().st_size:,} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=["repeat", "table"])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--points", type=int, default=25, help="to repeat")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[1000, 2000], help="added to the seed of each"
    )
    parser.add_argument("--float32", action="store_true", help="train in float32, not in bfloat16")
    parser.add_argument("--out", type=Path, default=RESULTS / "search_table.parquet")
    options = parser.parse_args()
    runs = [load_run(path) for path in options.runs]
    if options.part == "repeat":
        repeat(runs, options.points, options.seeds, options.float32)
    else:
        table(runs, options.out)


if __name__ == "__main__":
    main()
