"""The standard streams: what cannot be shown ends nothing that runs."""

import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from ablate.cli.streams import GuardedStream, guard_streams

LINES = """
import sys
from ablate.cli.console import console
from ablate.cli.streams import guard_streams, outlive_terminal
output = guard_streams()
outlive_terminal(as_json=False)
for i in range(3):
    print("line", i)
    console.print("größe 猫")
    print("note", i, file=sys.stderr)
sys.exit(3 if output.lost else 0)
"""


def run(redirection="", **environment):
    """What a process writes to standard error, its streams redirected by the shell."""
    command = f"{sys.executable} -c '{LINES}' {redirection}"
    how = {"shell": True, "executable": "/bin/bash", "capture_output": True, "text": True}
    return subprocess.run(command, env=os.environ | environment, **how)


def test_a_reader_that_is_gone():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", LINES], stdout=writer, stderr=-1, text=True)
    os.close(writer)
    told, *notes = done.stderr.splitlines()
    assert (done.returncode, told) == (0, "standard output is dropped and the study goes on: Broken pipe")
    assert notes == ["note 0", "note 1", "note 2"]


@pytest.mark.parametrize("where", ["> /dev/full", ">&-"])
def test_a_full_disk_and_a_closed_stream(where):
    done = run(where)
    told = ["standard output is dropped and the study goes on: No space left on device"]
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert done.stderr.splitlines() == told * ("full" in where) + ["note 0", "note 1", "note 2"]


def test_no_standard_error():
    done = run("2>&-")
    assert (done.returncode, done.stdout.count("line"), done.stderr) == (0, 3, "")


def test_letters_that_an_encoding_lacks_are_replaced():
    done = run(PYTHONIOENCODING="ascii:strict", PYTHONUTF8="0")
    assert done.returncode == 0 and done.stdout.count("gr\\xf6\xdfe \\u732b".replace("\xdf", "\\xdf")) == 3


class Failing:
    """A stream without a file that fails when it is written, or flushed."""

    encoding = "utf-8"

    def __init__(self, error, when):
        self.error, self.when = error, when

    def write(self, text):
        if self.when == "write":
            raise self.error

    def flush(self):
        if self.when == "flush":
            raise self.error

    def fileno(self):
        raise ValueError("no file")


@pytest.mark.parametrize("when", ["write", "flush"])
@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (BrokenPipeError(32, "Broken pipe"), None),
        (OSError(5, "Input/output error"), None),
        (OSError(28, "No space left on device"), "No space left on device"),
        (ValueError("I/O operation on closed file"), "I/O operation on closed file"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_result_that_is_lost_is_told_unless_its_reader_is_gone(when, error, lost, logged):
    stream = GuardedStream(Failing(error, when), "standard output")
    for _ in range(2):
        print("a result", file=stream, flush=True)
    assert stream.lost == lost and logged() == ""  # the command says it, with its exit code


@pytest.mark.parametrize(("sink", "code"), [("/dev/full", 1), ("/dev/null", 0)])
def test_a_command_whose_result_is_lost_has_failed(sink, code):
    with Path(sink).open("w") as file:
        done = subprocess.run([sys.executable, "-m", "ablate", "ls"], stdout=file, stderr=-1, text=True)
    told = "ablate: standard output cannot be written: No space left on device\n"
    assert done.returncode == code and done.stderr == (told if code else "")


def test_guarding_twice_wraps_once(tmp_path):
    with (tmp_path / "out").open("w") as out, redirect_stdout(out), redirect_stderr(out):
        guard_streams()
        assert guard_streams().stream is out and sys.stderr.stream is out
