"""A file from a URL, with progress on stderr and a time limit of its own."""

import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

TIMEOUT_S = 10  # without an answer


def download(url: str, to: Path) -> None:
    """Stream a URL into a file. Raises OSError when nothing answers for TIMEOUT_S, or less comes than was promised."""
    request = urllib.request.Request(url, headers={"User-Agent": "ablate-vit"})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer, to.open("wb") as file:
        total = int(answer.headers.get("Content-Length") or 0)
        with progress(to.name, total) as show:
            while chunk := answer.read(1 << 20):
                file.write(chunk)
                show(file.tell())
        if total and file.tell() != total:
            raise OSError(f"the download of {url} ended after {file.tell():,} of {total:,} bytes")


@contextmanager
def progress(text: str, total: int) -> Iterator[Callable[[int], Any]]:
    """Yields what shows how many bytes are done, on stderr: a bar on a terminal, a line every tenth on a pipe."""
    console = Console(stderr=True)
    if console.is_terminal:
        columns = (TextColumn(text), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(text, total=total or None)
            yield lambda done: bar.update(task, completed=min(done, total or done))
        return
    said = 0

    def line(done: int) -> None:
        nonlocal said
        if total and (tenth := 10 * min(done, total) // total) > said:
            said = tenth
            print(
                f"  {text}: {min(done, total) / 1e6:.0f} of {total / 1e6:.0f} MB", file=sys.stderr, flush=True
            )

    yield line
