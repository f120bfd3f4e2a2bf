"""The commands on packed models: their predictions, their latency, and Table 1."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ablate.cli.console import Json, console, console_on, table
from ablate.errors import BadInput
from ablate.hardware import cpus

app = typer.Typer()


@app.command()
def bench(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A packed model's folder.")],
    seconds: Annotated[float, typer.Option(help="Time to spend on each figure.")] = 1.0,
    threads: Annotated[int | None, typer.Option(help="CPU threads; all by default.")] = None,
    compiled: Annotated[
        bool, typer.Option("--compile", help="All of them under torch.compile as well, which takes minutes.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Size, memory and latency of a packed model beside its full-precision twin. Example: ablate bench DIR"""
    from ablate.cli import live_view
    from ablate.profiling import bench

    _set_threads(threads)
    rows = bench.bench(directory, seconds=seconds, compiled=compiled)
    if as_json:
        return print(json.dumps(rows, indent=1))
    console.print(live_view.bench(rows))


@app.command()
def table1(
    runs: Annotated[
        list[Path] | None, typer.Argument(metavar="[RUN...]", help="Runs whose accuracies to add.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="Time to spend on each latency; 0 measures none.")] = 1.0,
    batch: Annotated[int, typer.Option(help="Images a call, for the latencies.")] = 1,
    threads: Annotated[int | None, typer.Option(help="CPU threads; all by default.")] = None,
    form: Annotated[str, typer.Option("--format", help="text, csv, markdown or latex (booktabs).")] = "text",
    as_json: Json = False,
) -> None:
    """The paper's Table 1, with the paper's numbers beside. Example: ablate table1 --format markdown"""
    from ablate.reporting import table1, table1_render
    from ablate.runs.run import load_run

    table1_render.check_format(form)
    if as_json and form != "text":
        raise BadInput(f"--json is a form of its own, but --format is {form!r}; give one of them")
    loaded = [load_run(run) for run in dict.fromkeys(run.absolute() for run in runs or [])]
    _set_threads(threads)
    note = console_on(stderr=True)
    found = table1.table1(
        loaded, seconds=seconds, batch=batch, tell=lambda name: note.print(f"{name} ...", highlight=False)
    )
    if as_json:
        return print(json.dumps(found.plain(), indent=1))
    console.print(table1_render.terminal(found)) if form == "text" else print(
        table1_render.typeset(found, form), end=""
    )


@app.command()
def predict(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A packed model's folder.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    as_json: Json = False,
) -> None:
    """Name the class of image files with a packed model. Example: ablate predict DIR cat.png"""
    from ablate.engine.predict import predict

    rows = [
        {"image": str(path), "class": name, "confidence": round(p, 4)}
        for path, (name, p) in zip(images, predict(directory, images), strict=True)
    ]
    table(rows, as_json)


def _set_threads(threads: int | None) -> None:
    import torch

    if threads is not None:
        if not 1 <= threads <= cpus():
            raise BadInput(f"--threads must be 1 to {cpus()}, the CPUs here, but got {threads}")
        torch.set_num_threads(threads)
