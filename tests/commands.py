"""The command line in this process, which saves the seconds that an interpreter needs to import torch."""

import io
import os
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from unittest import mock

from ablate.cli.main import main


def run_ablate(folder, *words):
    """What `ablate WORDS` prints in a folder, and its exit code. The terminal has 200 columns."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2)]
    patches = mock.patch.object(sys, "argv", ["ablate", *words]), mock.patch.dict(os.environ, COLUMNS="200")
    with chdir(folder), redirect_stdout(streams[0]), redirect_stderr(streams[1]), patches[0], patches[1]:
        try:
            main()
        except SystemExit as end:
            code = end.code
    for stream in streams:
        stream.flush()
    printed = [stream.buffer.getvalue().decode() for stream in streams]
    return subprocess.CompletedProcess(words, code, *printed)
