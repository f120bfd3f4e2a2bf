"""The folder of a repository on the Hugging Face hub: a packed model with its card."""

import shutil
import tempfile
from pathlib import Path

from ablate.errors import BadInput, write_error
from ablate.files import new_folder
from ablate.paths import local_path
from ablate.quantization.packed_files import files, holds_packed, read
from ablate.quantization.packed_header import preprocess_of
from ablate.quantization.packed_loading import load_packed
from ablate.quantization.packing import pack
from ablate.reporting.figures import draw
from ablate.reporting.model_card import model_card
from ablate.runs.run import load_run

PICTURES = {
    "pareto.png": "front.png",
    "layers.png": "layers.png",
}  # by `draw`, by the card


def write_repository(
    source: str | Path,
    to: Path,
    name: str,
    *,
    trial: str | None = None,
    max_size_bytes: int | None = None,
    licence: str | None = None,
) -> None:
    """Write a packed model with its card and pictures to a new folder.

    Args:
        source: The folder of a run, or of a packed model.
        to: The new folder.
        name: USER/NAME, or what the card calls the model.
        trial: Of a run, the trial's id, or its first characters.
        max_size_bytes: In place of `trial`: the most accurate one up to this size.
        licence: As the hub names it; None: not stated.

    Raises:
        BadInput: The source is neither a run nor a packed model, the run keeps no such trial, or `to` exists
            or cannot be made.
        WriteFailed: The disk is full, or fails.
    """
    if to.exists():
        raise BadInput(f"--to must be a new folder, but {str(to)!r} exists; give another")
    with tempfile.TemporaryDirectory(prefix="ablate-push-") as temporary:
        folder, packed, run, chosen = Path(temporary) / "repository", local_path(source), None, ""
        folder.mkdir()
        if not holds_packed(packed):
            run, packed = load_run(source), Path(temporary) / "packed"
            chosen = run.export(packed, trial, max_size_bytes)
        elif trial is not None or max_size_bytes is not None:
            raise BadInput(
                f"--trial and --max-size-bytes are for a run, but {str(source)!r} is a packed model"
            )
        _copy_packed(packed, folder)
        header, size_bytes = read(folder)[0], sum(file.stat().st_size for file in files(folder))
        text, findings = model_card(name, header, size_bytes, licence, run, chosen)
        if run is not None:
            draw(run, {"front": findings["front"]}, Path(temporary))
            for drawn, picture in PICTURES.items():
                if (Path(temporary) / drawn).exists():
                    shutil.copyfile(Path(temporary) / drawn, folder / picture)
            if (folder / "layers.png").exists():
                layers = "![Precision of each layer group in the trials of the front](layers.png)\n"
                text = text.replace("(front.png)\n", f"(front.png)\n\n{layers}", 1)
        (folder / "README.md").write_text(text, encoding="utf-8")
        try:
            with new_folder(to) as part:
                for file in folder.iterdir():
                    shutil.copyfile(file, part / file.name)
        except OSError as error:
            rule = f"--to must be a new folder, but {str(to)!r} cannot be written"
            raise write_error(error, f"{rule}: {error.strerror}; give another") from None


def _copy_packed(packed: Path, folder: Path) -> None:
    """Copy the two files of a packed model; those of an earlier format are written as they are now."""
    header, _ = read(packed)
    if header.format == 1:
        pack(load_packed(packed), folder, preprocess=preprocess_of(header.preprocess), dtype=header.dtype)
        return
    for file in files(packed):
        shutil.copyfile(file, folder / file.name)
