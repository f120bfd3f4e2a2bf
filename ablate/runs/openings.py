"""Which runs opened half B of some test images: a line each in a file in the user's cache folder.

A run's ledger says what that run tested. This file says what other runs of this user tested before, because
settings that are chosen after a look at half B make its numbers optimistic. It only informs: a line that is
lost or cannot be written changes no run.
"""

import hashlib
import json
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from ablate.config.study_spec import StudySpec
from ablate.data.cache import cache
from ablate.data.dataset import Dataset
from ablate.errors import BadInput
from ablate.labels import one_line
from ablate.runs import lines

FILE = "openings.jsonl"
# Fields of a study that change no trial's settings: a run that is extended, or repeated, opens nothing new.
APART: Any = {
    **dict.fromkeys(("name", "question", "source", "cost", "expected", "command", "described"), True),
    **dict.fromkeys(("trials", "hours"), True),
    "space": {"name", "description"},
}


def add(study: StudySpec, dataset: Dataset, run: Path) -> None:
    """Note that a run has opened half B. A second note of a run is left out.

    Args:
        study: The run's study, as it was planned.
        dataset: Its data.
        run: The run's folder.
    """
    opening = {"half_b_sha256": dataset.digest_of_b, "settings": _settings(study), "run": str(run)}
    if any(opening.items() <= earlier.items() for earlier in _openings(dataset)):
        return
    opening["opened_at"] = datetime.now().astimezone().isoformat(timespec="seconds")
    with suppress(OSError, BadInput):  # the second where the cache folder is below an unknown ~user
        cache().mkdir(parents=True, exist_ok=True)
        with (cache() / FILE).open("ab") as file:
            file.write(lines.encode(opening))


def notice(study: StudySpec, dataset: Dataset) -> str:
    """Say that studies of other settings opened half B before; "" where none did.

    Args:
        study: The study, as it is planned.
        dataset: Its data.

    Returns:
        A line that names the last of them, and when.
    """
    settings = _settings(study)
    others = [opening for opening in _openings(dataset) if opening.get("settings") != settings]
    if not others:
        return ""
    last = others[-1]
    when, more = str(last.get("opened_at"))[:10], f" and {len(others) - 1} before it" if others[1:] else ""
    return one_line(
        f"Half B of these test images was opened before, by {last.get('run')} on {when}{more}. If anything "
        "was chosen since with those numbers in view, its accuracy on half B is optimistic."
    )


def _openings(dataset: Dataset) -> list[dict[str, Any]]:
    """What is noted of the dataset's half B, the oldest first."""
    try:
        content = (cache() / FILE).read_bytes()
    except (OSError, BadInput):
        return []
    openings = []
    for line in content.splitlines():
        with suppress(ValueError):
            openings.append(lines.decode(line))
    return [each for each in openings if each.get("half_b_sha256") == dataset.digest_of_b]


def _settings(study: StudySpec) -> str:
    text = json.dumps(study.model_dump(exclude=APART), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
