"""What a shell completes: the names of studies, spaces, models, datasets and runs. Imports no torch."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from ablate.config import builtin
from ablate.config.samplers import SAMPLERS


def _completing(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """What typer calls with the beginning of a word. Without a name, the shell completes files."""
    return lambda incomplete: [name for name in names() if name.startswith(incomplete)]


def _datasets() -> list[str]:
    from ablate.data import datasets

    prefixes = (re.split("[A-Z]", name)[0] for name in datasets.known())  # of imagefolder:PATH
    return [prefix for prefix in prefixes if prefix]


def _runs() -> list[str]:
    """The runs below runs/, the newest first."""
    folders = [file.parent for file in Path("runs").glob("*/study.toml")]
    return [str(folder) for folder in sorted(folders, key=lambda folder: -folder.stat().st_mtime)]


studies = _completing(lambda: builtin.names("studies"))
spaces = _completing(lambda: builtin.names("search_spaces"))
models = _completing(lambda: [*builtin.bundled("model"), *builtin.KNOWN])
datasets = _completing(_datasets)
samplers = _completing(lambda: SAMPLERS)
runs = _completing(_runs)
schemas = _completing(lambda: ("study", "space"))
