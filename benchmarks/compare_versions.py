"""Compares two checkouts of this repository on the same runs: trial ids, tables, and repeated trials.

    git worktree add ../before <commit>
    python benchmarks/compare_versions.py ../before .                            # every run in results/
    python benchmarks/compare_versions.py ../before . --runs results/ladder --trials 1

The tables are those that `figures` and `report` write. Each version reads its own copy of each run. Exits
with 1 where anything differs. `--trials N` trains each run's N shortest complete trials again with both
versions, on this machine, and compares their records except for times. Needs pip install --editable
'.[test]'.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from setting import machine

UNLIKE = ("train_seconds", "started_at", "latency_ms")  # of a record, from one training to the next
IDS = """
import importlib, json, sys
from types import SimpleNamespace
def first(*names):
    for name in names:
        try: return importlib.import_module(name)
        except ImportError: pass
trial = first("ablate.training.trial", "ablate.trial")
data = first("ablate.data.datasets", "ablate.data")
spec = first("ablate.config.trial_spec", "ablate.spec")
load = data.load
digests = first("ablate.data.dataset", "ablate.data.datasets", "ablate.data").DIGESTS
cifar10 = SimpleNamespace(digest=digests["cifar10"], classes=data.CIFAR10, notes=(), mirrored=())
data.load = lambda name, *more, **how: cifar10 if name == "cifar10" else load(name, *more, **how)
ids = {}
for line in open(sys.argv[1], encoding="utf-8"):
    record = json.loads(line)
    try: ids[record["trial_id"]] = trial.trial_id(spec.TrialSpec.model_validate(record["spec"]))
    except Exception as error: ids[record["trial_id"]] = str(error)
print(json.dumps(ids))
"""
TRAIN = """
import importlib, json, sys
from ablate import run_trial
try: spec = importlib.import_module("ablate.config.trial_spec")
except ImportError: spec = importlib.import_module("ablate.spec")
print(json.dumps(run_trial(spec.TrialSpec.model_validate(json.loads(sys.argv[1])))))
"""


def run(version: Path, folder: Path, *arguments: str) -> str:
    """What Python prints with this version's package."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(version)},
    )
    if done.returncode:
        raise SystemExit(f"{version}: {' '.join(arguments[:4])}: {done.stderr[-500:]}")
    return done.stdout


def tables(version: Path, source: Path, folder: Path) -> dict[str, str]:
    """The CSV files that `figures` and `report` write of a copy of a run."""
    shutil.copytree(source, folder / "run")
    run(version, folder, "-m", "ablate", "figures", "run")
    run(version, folder, "-m", "ablate", "report", "run", "--out", "page.html")
    return {
        str(path.relative_to(folder)): path.read_text(encoding="utf-8")
        for path in sorted(folder.rglob("*.csv"))
    }


def shortest(ledger: Path, count: int) -> list[dict[str, Any]]:
    """The complete records whose training took the fewest seconds."""
    records = [json.loads(line) for line in ledger.read_text(encoding="utf-8").splitlines()]
    complete = [record for record in records if record["status"] == "complete" and record["train_seconds"]]
    return sorted(complete, key=lambda record: record["train_seconds"])[:count]


def compare(source: Path, versions: list[Path], trials: int) -> dict[str, Any]:
    """What differs between the versions on one run, by kind."""
    ledger = source / "ledger.jsonl"
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name) / str(i) for i in range(len(versions))]
        for folder in folders:
            folder.mkdir()
        ids = [json.loads(run(version, folders[0], "-c", IDS, str(ledger.resolve()))) for version in versions]
        written = [tables(version, source, folder) for version, folder in zip(versions, folders, strict=True)]
        found: dict[str, Any] = {
            "records": len(ids[0]),
            "ids_that_differ": [key for key in ids[0] if ids[0][key] != ids[1][key]],
            "ids_that_are_new": [key for key, name in ids[1].items() if name != key and " " not in name],
            "models_that_are_not_here": len([name for name in ids[1].values() if " " in name]),
            "tables": len(written[0]),
            "tables_that_differ": [
                key for key in {*written[0], *written[1]} if written[0].get(key) != written[1].get(key)
            ],
            "trials_that_differ": {},
        }
        for record in shortest(ledger, trials):
            spec = json.dumps(record["spec"])
            one, other = (json.loads(run(version, folders[0], "-c", TRAIN, spec)) for version in versions)
            fields = sorted(key for key in {*one, *other} - {*UNLIKE} if one.get(key) != other.get(key))
            found["trials_that_differ"] |= {record["trial_id"]: fields} if fields else {}
        return found | {"trials": len(shortest(ledger, trials))}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--runs", type=Path, nargs="*", help="folders of runs; by default all in results/")
    parser.add_argument("--trials", type=int, default=0, help="to train again, of each run")
    parser.add_argument("--out", type=Path, help="a JSON file for the result")
    options = parser.parse_args()
    runs = options.runs or sorted(path.parent for path in Path("results").rglob("ledger.jsonl"))
    result = machine("ablate-vit", "torch", "pandas", "scipy", "optuna")
    for path in runs:
        result[str(path)] = found = compare(
            path, [options.before.resolve(), options.after.resolve()], options.trials
        )
        print(path, json.dumps(found), flush=True)
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    same = ("ids_that_differ", "tables_that_differ", "trials_that_differ")
    sys.exit(any(found[key] for found in result.values() if isinstance(found, dict) for key in same))


if __name__ == "__main__":
    main()
