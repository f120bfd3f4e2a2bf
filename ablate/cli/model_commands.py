"""The commands on models: latency of packed models, predictions, and the paper's Table 1."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ablate.cli import completion
from ablate.cli.console import console, make_console, print_json, print_rows
from ablate.cli.options import Json, Threads
from ablate.errors import BadInput, write_error
from ablate.hardware import cpus
from ablate.paths import local_path

FIGURE_RULE = "a figure must be a file that can be written, but"

app = typer.Typer()

PackedModel = Annotated[
    str,
    typer.Argument(
        metavar="DIR|USER/NAME", help="A packed model: its folder, or its name on the Hugging Face hub."
    ),
]


def _figure_name(path: Path) -> Path:
    """A figure's path without its ending. Raises BadInput where it is a folder: before the measurement."""
    try:
        is_folder = path.is_dir()
    except OSError as error:
        raise BadInput(f"{FIGURE_RULE} {str(path)!r}: {error.strerror}; give another") from None
    if is_folder:
        raise BadInput(f"{FIGURE_RULE} {str(path)!r} is a folder; give {str(path / 'bench')!r}")
    return path.with_suffix("") if path.suffix.lower() in (".pdf", ".png") else path


@app.command()
def bench(
    directory: PackedModel,
    seconds: Annotated[
        float, typer.Option(metavar="SECONDS", help="Time to spend on each measurement.")
    ] = 1.0,
    threads: Threads = None,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Also measure under torch.compile, which takes minutes.")
    ] = False,
    peers: Annotated[
        bool, typer.Option("--peers", help="Also measure onnxruntime, OpenVINO and torchao, if installed.")
    ] = False,
    batches: Annotated[
        list[int], typer.Option("--batch", metavar="N", help="Images a call; may be repeated.")
    ] = [1, 8, 32],  # noqa: B006  typer copies it
    figure: Annotated[
        Path | None,
        typer.Option(
            parser=local_path, metavar="NAME", help="Also draw the latencies, as NAME.pdf and NAME.png."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare a packed model with full precision.

    Measures the size, memory and latency of both.

    Example: ablate bench DIR --peers --figure bench
    """
    from ablate.cli import result_tables
    from ablate.profiling import bench

    _set_threads(threads)
    name = figure and _figure_name(figure)
    rows = bench.bench(directory, batches, seconds, compiled, peers)
    if as_json:
        print_json(rows)
    else:
        console.print(result_tables.bench(rows))
    if name:
        _draw_bench(rows, name)


def _draw_bench(rows: list[dict[str, Any]], path: Path) -> None:
    from ablate.paper_figures import fig_bench

    try:
        fig_bench.draw(rows, path)
    except OSError as error:
        raise write_error(error, f"{FIGURE_RULE} {str(path)!r}: {error.strerror}; give another") from None


@app.command()
def predict(
    directory: PackedModel,
    images: Annotated[list[Path], typer.Argument(parser=local_path, metavar="IMAGE...", help="Image files.")],
    exact: Annotated[
        bool,
        typer.Option(
            "--exact", help="Compute what the evaluation did, without rounding to bfloat16; slower."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Classify image files with a packed model.

    Example: ablate predict DIR cat.png
    """
    from ablate.engine.predict import predict

    predictions = zip(images, predict(directory, images, exact=exact), strict=True)
    rows = [
        {"image": str(path), "class": name, "confidence": round(confidence, 4)}
        for path, (name, confidence) in predictions
    ]
    print_rows(rows, as_json)


@app.command()
def table1(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            parser=local_path,
            metavar="RUN...",
            help="Runs whose accuracies to add.",
            autocompletion=completion.runs,
        ),
    ] = None,
    seconds: Annotated[
        float, typer.Option(metavar="SECONDS", help="Time to spend on each latency; 0 measures none.")
    ] = 1.0,
    batch: Annotated[int, typer.Option(metavar="N", help="Images per call, for the latencies.")] = 1,
    threads: Threads = None,
    form: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="text, csv, markdown or latex (booktabs).")
    ] = "text",
    as_json: Json = False,
) -> None:
    """Reproduce the paper's Table 1.

    The paper's own numbers stand beside what is counted and measured here.

    Example: ablate table1 --format markdown
    """
    from ablate.reporting import table1, table1_render
    from ablate.runs.run import load_run

    table1_render.check_format(form)
    if as_json and form != "text":
        raise BadInput(f"--json is a format of its own, but --format is {form!r}; give one of them")
    loaded = [load_run(run) for run in dict.fromkeys(run.absolute() for run in runs or [])]
    _set_threads(threads)
    stderr = make_console(stderr=True)
    table = table1.table1(loaded, seconds=seconds, batch=batch, tell=lambda name: stderr.print(f"{name} ..."))
    if as_json:
        print_json(table.plain())
    elif form == "text":
        console.print(table1_render.terminal(table))
    else:
        print(table1_render.typeset(table, form), end="")


def _set_threads(threads: int | None) -> None:
    if threads is None:
        return
    if not 1 <= threads <= cpus():
        raise BadInput(f"--threads must be 1 to {cpus()}, the number of CPUs here, but got {threads}")
    import torch

    torch.set_num_threads(threads)
