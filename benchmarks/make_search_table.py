"""The real trials that `benchmarks/search.py` judges samplers by: repeats of them, and all of them as one compact file.

    ablate study search_table --out random                                   # studies/search_table.toml says what they cost
    ablate study search_table --sampler nsga2 --objectives accuracy,size_bytes --seed 1 --out front
    python benchmarks/make_search_table.py repeat random front               # 50 points, 2 further seeds each: 20 minutes
    python benchmarks/make_search_table.py table random front                # results/search_table.parquet

repeat: trains points spread evenly over the order by accuracy with further seeds, in this process, into
RUN/repeats.jsonl; goes on where it was stopped. table: a row a complete trial, its axes as `axis.NAME`, its seed and what
came of it; the provenance of each run and the digests of its ledgers in the file's metadata.
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

from ablate import data, layers, ledger, models
from ablate.effective import effective
from ablate.points import Points
from ablate.run import Run, load_run
from ablate.spec import TrialSpec
from ablate.trial import run_trial

RESULTS = Path(__file__).parent / "results"
COLUMNS = ("seed", "accuracy", "loss", "size_bytes", "bitops", "train_seconds")


def repeat(runs: list[Run], points: int, seeds: int) -> None:
    """Train `points` of the runs' points, from the least to the most accurate, with further seeds each."""
    found = [(record["accuracy"], i, record) for i, run in enumerate(runs) for record in complete(run.path / "ledger.jsonl")]
    found.sort(key=lambda row: row[:2])
    chosen = [found[round(k * (len(found) - 1) / max(1, points - 1))] for k in range(points)]
    for _, i, record in chosen:
        path = runs[i].path / "repeats.jsonl"
        done = {json.dumps(row["spec"], sort_keys=True) for row in (ledger.read(path) if path.exists() else [])}
        for seed in range(1, seeds + 1):
            spec = TrialSpec.model_validate(record["spec"] | {"seed": record["seed"] + 1000 * seed})
            if json.dumps(spec.model_dump(), sort_keys=True) not in done:
                again = run_trial(spec)
                ledger.append(path, again)
                print(record["trial_id"], record["accuracy"], again["seed"], again["accuracy"], flush=True)


def complete(path: Path) -> Iterator[dict[str, Any]]:
    yield from (record for record in (ledger.read(path) if path.exists() else []) if record["status"] == "complete")


def rows(run: Run) -> Iterator[dict[str, Any]]:
    """The run's trials and their repeats, a row each."""
    study = run.study
    groups = [*layers.groups(models.load(study.model, data.load(study.data).classes))]
    points = Points(study, groups)
    for name in ("ledger.jsonl", "repeats.jsonl"):
        for record in complete(run.path / name):
            point = points.point(effective(TrialSpec.model_validate(record["spec"])))
            yield {f"axis.{axis}": value for axis, value in point.items()} | {key: record[key] for key in COLUMNS}


def table(runs: list[Run], out: Path) -> None:
    """Write the rows of all runs, with where they are from."""
    found = pa.Table.from_pandas(pd.DataFrame([row for run in runs for row in rows(run)]), preserve_index=False)
    about = [
        {
            "provenance": json.loads((run.path / "provenance.json").read_text()),
            "study": (run.path / "study.toml").read_text(),
            "sha256": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(run.path.glob("*.jsonl"))},
        }
        for run in runs
    ]
    metadata = {**(found.schema.metadata or {}), b"ablate": json.dumps(about).encode()}
    out.parent.mkdir(exist_ok=True)
    pq.write_table(found.replace_schema_metadata(metadata), out, compression="zstd")
    print(f"{out}: {found.num_rows} trials, {out.stat().st_size:,} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["repeat", "table"])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--points", type=int, default=50, help="to repeat")
    parser.add_argument("--seeds", type=int, default=2, help="further seeds of each")
    parser.add_argument("--out", type=Path, default=RESULTS / "search_table.parquet")
    asked = parser.parse_args()
    runs = [load_run(path) for path in asked.runs]
    if asked.part == "repeat":
        repeat(runs, asked.points, asked.seeds)
    else:
        table(runs, asked.out)


if __name__ == "__main__":
    main()
