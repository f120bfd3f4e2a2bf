"""A study whose terminal disappears goes on and ends."""

import contextlib
import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios

import pytest
from conftest import wait

from ablate import load_run


def on_terminal(terminal):
    """In the child: SIGHUP ends it unless it says otherwise, and comes when this terminal is closed."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)


@pytest.mark.slow
def test_a_study_outlives_its_terminal(tiny_study, tmp_path):
    """The terminal is closed after the first trial: its processes get SIGHUP, and its writes EIO."""
    (tmp_path / "tiny.toml").write_text(tiny_study)
    out = tmp_path / "run"
    terminal, theirs = pty.openpty()
    study = subprocess.Popen(
        [sys.executable, "-m", "ablate", "study", str(tmp_path / "tiny.toml"), "--out", str(out)],
        **dict.fromkeys(("stdin", "stdout", "stderr"), theirs),
        start_new_session=True,
        preexec_fn=lambda: on_terminal(theirs),
    )
    os.close(theirs)
    os.set_blocking(terminal, False)

    def recorded():
        with contextlib.suppress(BlockingIOError):
            os.read(terminal, 1 << 16)
        ledger = out / "ledger.jsonl"
        return ledger.exists() and b"\n" in ledger.read_bytes()

    wait(recorded)
    os.close(terminal)
    assert study.wait(timeout=600) == 0
    run = load_run(out)
    assert run.state["status"] in ("finished", "exhausted") and len(run.records) == run.state["trials"]
