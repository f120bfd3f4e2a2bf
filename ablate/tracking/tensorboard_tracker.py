"""A run as TensorBoard's event files: a folder for each trial, and one for the study's figures and tables."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablate.files import write_atomic
from ablate.tracking.trial_entry import RunEntry, TrialEntry

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

STUDY = "study"  # the folder of figures and tables
MAX_ROWS = 100  # of a table


class TensorboardTracker:
    """Writes event files, each in one step: a trial is there whole or not at all.

    Args:
        folder: Where runs are; "" is `tensorboard` in the run's own folder.
        run: The run.
    """

    def __init__(self, folder: str, run: RunEntry) -> None:
        own = Path(folder) / f"{run.path.name}-{run.identity[:6]}"
        self.run, self.folder = run, own if folder else run.path / "tensorboard"

    @property
    def hint(self) -> str:
        return f"tensorboard --logdir {self.folder}"

    def known(self) -> set[str]:
        return {file.parent.name for file in self.folder.glob("*/events.out.tfevents.*")}

    def add(self, trial: TrialEntry) -> None:
        def write(writer: "SummaryWriter") -> None:
            from torch.utils.tensorboard.summary import hparams

            assert writer.file_writer is not None
            for summary in hparams(dict(trial.parameters), dict(trial.outcome)):
                writer.file_writer.add_summary(summary, walltime=trial.started)
            for epoch, row in trial.curve.items():
                for name, value in row.items():
                    writer.add_scalar(name, value, epoch, trial.started)
            for name, value in trial.outcome.items():
                writer.add_scalar(name, value, walltime=trial.started)
            # Scalars are float32, so the text has the numbers in full.
            table = [*trial.text.items(), *trial.outcome.items(), *trial.parameters.items()]
            writer.add_text("record", _markdown(("field", "value"), table), walltime=trial.started)

        self._write(trial.name, write)

    def finish(self, status: str, figures: Sequence[Path], tables: Sequence[Path]) -> None:
        def write(writer: "SummaryWriter") -> None:
            import numpy as np
            from PIL import Image

            from ablate.reporting.csv_tables import read_csv

            writer.add_text("question", f"{self.run.question} ({status})")
            for file in figures:
                with Image.open(file) as image:
                    pixels = np.asarray(image.convert("RGB"))
                writer.add_image(f"figures/{file.stem}", pixels, dataformats="HWC")
            for file in tables:
                table = read_csv(file)
                rows = table.head(MAX_ROWS).itertuples(index=False)
                more = f"\n\n{MAX_ROWS} of {len(table):,} rows" if len(table) > MAX_ROWS else ""
                writer.add_text(f"tables/{file.stem}", _markdown(list(table), rows) + more)

        self._write(STUDY, write)

    def _write(self, name: str, write: Callable[["SummaryWriter"], None]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        with tempfile.TemporaryDirectory() as draft:
            with SummaryWriter(draft) as writer:
                write(writer)
            (file,) = Path(draft).iterdir()
            write_atomic(self.folder / name / "events.out.tfevents.0.ablate", file.read_bytes())


def _markdown(head: Sequence[Any], rows: Any) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in row)} |" for row in lines
    )
