"""Downloads with progress on standard error and a timeout of their own."""

import logging
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

log = logging.getLogger(__name__)
TIMEOUT_S = 10  # without an answer
CHUNK_BYTES = 1 << 20


def download(url: str, to: Path) -> None:
    """Stream a URL into a file.

    Args:
        url: What to download.
        to: The file to write.

    Raises:
        OSError: The server did not answer for TIMEOUT_S, or sent less than it had announced.
    """
    request = urllib.request.Request(url, headers={"User-Agent": "ablate-vit"})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response, to.open("wb") as file:
        total = int(response.headers.get("Content-Length") or 0)
        with progress(to.name, total) as show:
            while chunk := response.read(CHUNK_BYTES):
                file.write(chunk)
                show(file.tell())
        if total and file.tell() != total:
            raise OSError(f"the download of {url} ended after {file.tell():,} of {total:,} bytes")


@contextmanager
def progress(text: str, total: int) -> Iterator[Callable[[int], Any]]:
    """Show the progress of a download: a bar on a terminal, else a line of the log every tenth.

    Args:
        text: What is downloaded.
        total: Its size in bytes; 0 if unknown.

    Yields:
        A function that takes the number of bytes done so far.
    """
    console = Console(stderr=True)
    if console.is_terminal:
        columns = (TextColumn(text), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(text, total=total or None)
            yield lambda done: bar.update(task, completed=min(done, total or done))
        return
    last_tenth = 0

    def print_tenth(done: int) -> None:
        nonlocal last_tenth
        if total and (tenth := 10 * min(done, total) // total) > last_tenth:
            last_tenth = tenth
            log.info("  %s: %.0f of %.0f MB", text, min(done, total) / 1e6, total / 1e6)

    yield print_tenth
