"""The paper's Table 1 as printed, and beside it what is counted and what is measured here.

Liu & Fuh, "Fine-Tune the 1-Bit Vision Transformer on CIFAR-10", Table 1. Counts and latencies need no trained
weights: the models have random ones. Accuracies come from runs.
"""

from collections.abc import Callable, Sequence

import torch

from ablate import hardware
from ablate.profiling import macs
from ablate.profiling.latency import check_timing
from ablate.reporting.table1_arms import arms_of
from ablate.reporting.table1_cells import COUNTED, QUANTITIES, Cell, Row, Table1
from ablate.reporting.table1_models import entries, make_row, measure
from ablate.reporting.table1_published import PRINTED, notes
from ablate.runs.run import Run


def table1(
    runs: Sequence[Run] = (),
    *,
    seconds: float = 1.0,
    batch: int = 1,
    tell: Callable[[str], object] = lambda name: None,
) -> Table1:
    """Count and measure every model; an arm of a run takes the place of the model whose counts it has.

    Args:
        runs: Whose arms to add. An arm whose every seed failed has a note in place of a row.
        seconds: To spend on each latency; 0 measures none.
        batch: Images a call.
        tell: Called with the name of each row before it is made.

    Returns:
        The printed rows, each followed by ours.

    Raises:
        BadInput: A value is out of range, or a run has no complete trial.
    """
    check_timing(seconds, batch)
    of_runs = [arms_of(run) for run in runs]
    arms = [arm for arms, _ in of_runs for arm in arms]
    below = [note for _, notes in of_runs for note in notes]
    rows = []
    for entry in entries():
        tell(entry.name)
        model, preprocess = entry.build()
        cost = macs.count(model, preprocess.size)
        if cost not in [arm.cost for arm in arms]:
            rows.append(make_row(entry, cost, *measure(model, preprocess, seconds, batch)))
    for arm in arms:
        tell(arm.name)
        # The counts are in the records, so that without latencies there is no model to build.
        latencies = measure(*arm.build(), seconds, batch)[1] if seconds else {}
        rows.append(make_row(arm, arm.cost, arm.size_bytes, {**latencies, "accuracy": arm.accuracy}))
    about = {"device": hardware.device_name(), "threads": torch.get_num_threads(), "batch": batch}
    timed = f"{about['device']}, CPU threads: {about['threads']}, batch: {batch}" if seconds else ""
    below += dict.fromkeys(arm.instead for arm in arms if arm.instead)
    below += notes(runs=bool(runs), gpu=hardware.device().type == "cuda", timed=timed)
    return Table1(_ordered(rows), below, about)


def _ordered(rows: list[Row]) -> list[Row]:
    """The printed rows in their order, each followed by ours."""
    ordered = []
    for name, cells in PRINTED.items():
        printed = Row(f"{name}, as printed", name, _printed(cells))
        ordered += [printed, *(row for row in rows if row.beside == name)]
    return ordered


def _printed(texts: dict[str, str]) -> dict[str, Cell]:
    cells = {}
    for name, text in texts.items():
        value = float(text) * QUANTITIES[name][1]
        cells[name] = Cell(round(value) if name in COUNTED else value, "quoted", printed=text)
    return cells
