"""Two processes on one run's folder: one writes, the other is refused in a line or reads whole records.

    python benchmarks/two_at_once.py          # 200 rounds of bare processes, 3 of each pair of commands
    python benchmarks/two_at_once.py --rounds 36 --repeats 0    # in short, as a test runs it

Bare processes claim, lock, write and read behind a barrier, without Ray. Commands are `ablate study`,
`resume`, `status` and `report`. Counted are writers at once, refusals, lines of the ledger that are lost,
doubled or cannot be read, owners named that live no more, and files left over: all of these but the refusals
must be 0. Needs pip install --editable '.[test]'.
"""

import argparse
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from threading import Thread
from typing import Any

from setting import machine, make_model

from ablate.config.trial_spec import TrialSpec
from ablate.errors import BadInput
from ablate.files import write_atomic
from ablate.runs import ledger
from ablate.runs.claim import claimed, reclaimed
from ablate.runs.locks import owner
from ablate.runs.record import blank_record
from ablate.runs.run import load_run

KINDS = ("new", "empty", "default", "resume", "read", "nothing")  # what two processes do at once, in turn
LINES = 2  # that a writer adds
STUDY = """
question = "who writes?"
model = "{model}"
trials = {trials}
[recipe]
epochs = 1
bf16 = false
[space]
description = "which layer groups"
objectives = ["accuracy", "size_bytes"]
fraction = 0.02
[space.layer]
weights = {{ each = ["full", "binary", "ternary"] }}
"""
PAIRS = (
    "study study",
    "study resume",
    "study status",
    "study report",
    "resume resume",
    "resume status",
    "resume report",
)


def bare(folder: Path, rounds: int) -> dict[str, Any]:
    """Rounds of each kind in turn, by two processes that contend and one that reads meanwhile."""
    spawn = multiprocessing.get_context("spawn")
    barrier, queue = spawn.Barrier(3), spawn.Queue()
    processes = [
        spawn.Process(target=_contend, args=(role, rounds, folder, barrier, queue)) for role in range(3)
    ]
    for process in processes:
        process.start()
    found = sorted(queue.get() for _ in range(3 * rounds))
    for process in processes:
        process.join()
    pids = {process.pid for process in processes}
    result: dict[str, Any] = {}
    for n in range(rounds):
        outcomes = {role: (outcome, text) for number, role, outcome, text in found if number == n}
        counts = result.setdefault(KINDS[n % len(KINDS)], Counter(rounds=0, written=0, refused=0, faults=0))
        counts["rounds"] += 1
        counts["written"] += sum(outcome == "wrote" for outcome, _ in outcomes.values())
        counts["refused"] += sum(outcome == "refused" for outcome, _ in outcomes.values())
        counts["faults"] += len(faults := _faults(folder / str(n), KINDS[n % len(KINDS)], outcomes, pids))
        for fault in faults:
            print(f"round {n}: {fault}: {outcomes}", file=sys.stderr)
    return {kind: dict(counts) for kind, counts in result.items()}


def _contend(role: int, rounds: int, folder: Path, barrier: Any, queue: Any) -> None:
    for n in range(rounds):
        kind, path = KINDS[n % len(KINDS)], folder / str(n) / "runs" / "run"
        if role == 2:
            _prepare(kind, path)
        barrier.wait()
        os.chdir(folder / str(n))
        try:
            if role == 2 or (kind == "read" and role == 1):
                outcome = _look(path)
            elif kind in ("resume", "read"):
                with reclaimed(load_run(path)):
                    outcome = _write(path, n, role)
            else:
                with claimed(None if kind == "default" else path, "run") as mine:
                    if kind == "nothing" and role == 0:
                        raise BadInput("nothing begins")
                    outcome = _write(mine, n, role)
        except BadInput as error:
            outcome = ("refused", str(error))
        except Exception as error:
            outcome = ("failed", f"{type(error).__name__}: {error}")
        queue.put((n, role, *outcome))
        barrier.wait()


def _prepare(kind: str, path: Path) -> None:
    path.parent.parent.mkdir()
    if kind == "empty":
        path.mkdir(parents=True)
    if kind in ("resume", "read"):
        with claimed(path, "run"):
            _write(path, 0, 2)


def _write(path: Path, n: int, role: int) -> tuple[str, str]:
    """What a driver does, in a few lines; `inside` is there for as long as it does."""
    (path / "inside").touch(exist_ok=False)
    (path / "ledger.jsonl").touch()
    torn = ledger.recover(path / "ledger.jsonl")
    write_atomic(path / "study.toml", STUDY.format(model="vit-micro", trials=LINES).encode())
    for i in range(LINES):
        record = blank_record(TrialSpec(seed=i), f"{n}-{role}-{i}")
        ledger.append(path / "ledger.jsonl", record)
    (path / "state.json").write_text("{}")
    (path / "inside").unlink()
    return "wrote", f"{path}, {torn} bytes torn"


def _look(path: Path) -> tuple[str, str]:
    """What a reader does, a few times: it must neither fail nor be seen."""
    most = 0
    for _ in range(20):
        owner(path)
        if (path / "study.toml").exists():
            run = load_run(path)
            alive, read = run.alive, len(run.records)
            assert read >= most, f"{read} records after {most}, alive: {alive}"
            most = read
    return "read", str(most)


def _faults(
    folder: Path, kind: str, outcomes: dict[int, tuple[str, str]], pids: set[int | None]
) -> list[str]:
    """What must not be after a round."""
    wrote = [role for role, (outcome, _) in outcomes.items() if outcome == "wrote"]
    least, most = {"default": (2, 2), "resume": (1, 2), "read": (1, 1), "nothing": (0, 1)}.get(kind, (1, 1))
    faults = [f"{len(wrote)} wrote"] if not least <= len(wrote) <= most else []
    faults += [f"{role} {text}" for role, (outcome, text) in outcomes.items() if outcome == "failed"]
    lines = [
        record["trial_id"] for file in folder.glob("runs/*/ledger.jsonl") for record in ledger.read(file)
    ]
    begun = LINES * (len(wrote) + (kind in ("resume", "read")))
    faults += [f"{len(lines)} lines for {begun}"] if len(lines) != begun or len({*lines}) != begun else []
    named = {
        int(pid)
        for outcome, text in outcomes.values()
        if outcome == "refused"
        for pid in re.findall(r"process (\d+)", text)
    }
    faults += [f"process {pid} is none of ours" for pid in named - pids]
    left = sorted(str(file.relative_to(folder)) for file in folder.rglob("*"))
    usual = {".lock", "ledger.jsonl", "study.toml", "state.json"}
    faults += [f"left over: {name}" for name in left if "." in name and Path(name).name not in usual]
    faults += [f"left over: {left}"] if not wrote and kind == "nothing" and left else []
    return faults


def commands(folder: Path, repeats: int) -> dict[str, Any]:
    """Each pair of whole commands at once, while this process reads all the time."""
    for name, trials in (("three", 3), ("two", 2)):
        (folder / f"{name}.toml").write_text(STUDY.format(model=make_model(folder), trials=trials))
    begin = _start(folder, "study", "begun", "two.toml")
    assert begin.wait(600) == 0, begin.communicate()[1]
    result = {}
    for pair in PAIRS:
        counts = Counter(rounds=0, written=0, refused=0, looked=0, faults=0)
        for n in range(repeats):
            path = folder / f"{pair.replace(' ', '-')}-{n}"
            counts.update(_both(folder, path, *pair.split()))
        result[pair] = dict(counts)
        print(pair, result[pair], file=sys.stderr)
    return result


def _both(folder: Path, path: Path, first: str, second: str) -> Counter[str]:
    """Two commands on one folder. A study makes it; a resume goes on with a copy of a run."""
    if first == "resume":
        shutil.copytree(folder / "begun", path)
    looks, seen = Counter[str](), {"over": False}
    reader = Thread(target=_read_on, args=(path, looks, seen))
    reader.start()
    one = _start(folder, first, path.name)
    while (
        first == "study" and second != "study" and not (path / "study.toml").exists() and one.poll() is None
    ):
        time.sleep(0.05)
    two = _start(folder, second, path.name)
    outcomes = {0: _ended(one), 1: _ended(two)}
    while second in ("status", "report") and outcomes[1][0] == "wrote" and one.poll() is None:
        outcomes[1] = _ended(_start(folder, second, path.name))
    seen["over"] = True
    reader.join()
    ended = [outcomes[0][0], *([outcomes[1][0]] if second in ("study", "resume") else [])]
    faults = [f"{outcomes}"] if "failed" in (outcomes[0][0], outcomes[1][0]) or "wrote" not in ended else []
    records = ledger.read(path / "ledger.jsonl")
    ids = [record["trial_id"] for record in records]
    faults += [f"{ids}"] if len(ids) != 3 or len({*ids}) != 3 else []
    faults += [f"{file}" for file in path.rglob(".*") if file.name != ".lock"]
    pids = {str(one.pid), str(two.pid)}
    faults += [
        f"names {text}" for _, text in outcomes.values() if not pids >= {*re.findall(r"process (\d+)", text)}
    ]
    for fault in faults:
        print(f"{path.name}: {fault}", file=sys.stderr)
    return (
        Counter(rounds=1, written=ended.count("wrote"), refused=ended.count("refused"), faults=len(faults))
        + looks
    )


def _read_on(path: Path, looks: Counter[str], seen: dict[str, bool]) -> None:
    most = 0
    while not seen["over"]:
        if (path / "study.toml").exists():
            try:
                run = load_run(path)
                looks["looked"] += bool(run.alive) or True
                if (read := len(run.records)) < most:
                    raise ValueError(f"{read} records after {most}")
                most = read
            except Exception as error:
                print(f"{path.name}: {type(error).__name__}: {error}", file=sys.stderr)
                looks["faults"] += 1
        time.sleep(0.01)


def _start(folder: Path, verb: str, run: str, study: str = "three.toml") -> "subprocess.Popen[str]":
    options = {"study": [study, "--out", run], "resume": [run, "--trials", "3"]}.get(verb, [run])
    options += ["--concurrency", "1"] if verb in ("study", "resume") else []
    command = [sys.executable, "-m", "ablate", verb, *options]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def _ended(process: "subprocess.Popen[str]") -> tuple[str, str]:
    _, error = process.communicate(timeout=600)
    if process.returncode == 2 and error.startswith("ablate: ") and error.count("\n") == 1:
        return "refused", error
    return ("wrote", "") if process.returncode == 0 else ("failed", error)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=200, help="of bare processes")
    parser.add_argument("--repeats", type=int, default=3, help="of each pair of commands")
    parser.add_argument("--out", type=Path, help="a JSON file for the result")
    options = parser.parse_args()
    result = machine("ablate-vit", "ray")
    with tempfile.TemporaryDirectory() as name:
        for part, n in ((bare, options.rounds), (commands, options.repeats)):
            (folder := Path(name) / part.__name__).mkdir()
            started = time.monotonic()
            if n:
                result[part.__name__] = part(folder, n)
                result[part.__name__]["seconds"] = round(time.monotonic() - started, 1)
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
