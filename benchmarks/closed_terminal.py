"""Closes the terminal of real studies after their first trial, and counts the trials that are recorded.

    python benchmarks/closed_terminal.py            # 20 studies of 4 trials, one after the other

The processes of a study then get SIGHUP, and what it prints EIO. Needs pip install --editable '.[test]'.
"""

import argparse
import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import tempfile
import termios
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from setting import machine, make_model

from ablate.runs.run import load_run

TRIALS = 4
LIMIT_SECONDS = 600


def outlived(folder: Path, model: Path) -> dict[str, Any]:
    """A study whose terminal is closed: its exit code, its state and its trials.

    Args:
        folder: A new folder for the run.
        model: A tiny ViT.
    """
    study = ["study", "--model", str(model), "--epochs", "1", "--trials", str(TRIALS), "--out", str(folder)]
    terminal, theirs = pty.openpty()
    driver = subprocess.Popen(
        [sys.executable, "-m", "ablate", *study],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: _take(theirs),
    )
    os.close(theirs)
    os.set_blocking(terminal, False)
    _await_first_record(folder / "ledger.jsonl", terminal, driver)
    at_once = (folder / "ledger.jsonl").read_bytes().count(b"\n")
    os.close(terminal)
    code = driver.wait(LIMIT_SECONDS)
    run = load_run(folder)
    complete = int((run.records["status"] == "complete").sum())
    ended = {"exit_code": code, "status": run.state["status"], "complete": complete}
    return {"recorded_when_closed": at_once} | ended


def _take(terminal: int) -> None:
    """In the child: take the terminal, whose end ends a process that does not ignore SIGHUP."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)


def _await_first_record(ledger: Path, terminal: int, driver: subprocess.Popen[bytes]) -> None:
    limit = time.monotonic() + LIMIT_SECONDS
    while not (ledger.exists() and b"\n" in ledger.read_bytes()):
        with suppress(BlockingIOError):
            os.read(terminal, 1 << 16)  # else it fills up, and the study waits
        if driver.poll() is not None or time.monotonic() > limit:
            raise SystemExit(f"the study recorded nothing; exit code {driver.poll()}")
        time.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--studies", type=int, default=20)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "closed_terminal.json"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(Path(folder))
        studies = []
        for number in range(options.studies):
            studies.append(outlived(Path(folder) / f"run{number}", model))
            print(studies[-1], flush=True)
    whole = {"exit_code": 0, "complete": TRIALS}
    n = sum(all(study[key] == value for key, value in whole.items()) for study in studies)
    result = machine("ablate-vit", "ray", "torch") | {"trials": TRIALS, "outlived": n, "studies": studies}
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{n} of {len(studies)} studies ended with all trials recorded")


if __name__ == "__main__":
    main()
