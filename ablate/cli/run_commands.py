"""The commands on runs that there are. Heavy modules are imported where they are used."""

import shlex
import shutil
from pathlib import Path
from typing import Annotated

import typer

from ablate.cli.console import Json, console, short, table
from ablate.errors import AblateError, BadInput, Unwritten, unknown
from ablate.labels import one_line

app = typer.Typer()


@app.command()
def report(
    run: Annotated[
        Path | None, typer.Argument(help="The run's folder; the newest below runs/ by default.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The page; RUN/report.html by default.")
    ] = None,
) -> None:
    """One page of what a run shows, also while it runs, and each table beside it as CSV. Example: ablate report RUN"""
    from ablate.reporting.html_report import report, tables_of
    from ablate.runs.run import latest_run, load_run

    loaded = load_run(run) if run else latest_run()
    page = report(loaded, out)
    told = f"The report is {short(page)}, its tables are beside it in {tables_of(loaded, page).name}/"
    console.print(told, highlight=False, soft_wrap=True)


@app.command()
def monitor(
    export: Annotated[Path, typer.Option(help="A folder for the two files.")],
) -> None:
    """A Grafana dashboard and Prometheus alert rules for the metrics of studies. Example: ablate monitor --export DIR"""
    from ablate.execution.monitoring import monitor

    for path in monitor(export):
        print(short(path.absolute()))


@app.command()
def figures(
    runs: Annotated[
        list[Path] | None, typer.Argument(metavar="[RUN ...]", help="Folders of runs; the latest by default.")
    ] = None,
) -> None:
    """Draw what a run shows, as PDF and PNG, and write its tables. Example: ablate figures RUN"""
    from ablate.reporting import figures
    from ablate.reporting.findings import findings, write_tables
    from ablate.runs.run import latest_run, load_run

    for run in [load_run(path) for path in runs] if runs else [latest_run()]:
        found = findings(run)
        try:
            written = write_tables(found, run.path / "tables")
            written += [path.with_name(f"{path.name}.pdf") for path in figures.draw(run, found)]
        except OSError as error:
            raise Unwritten(f"{str(run.path)!r} cannot be written: {error.strerror or error}") from None
        for path in written:
            print(short(path))
        for name, finding in found.items():
            if finding.sentence:
                console.print(one_line(f"{name}: {finding.sentence}"), highlight=False, soft_wrap=True)


@app.command()
def rerun(
    run: Annotated[Path, typer.Argument(help="The run's folder.")],
    trial: Annotated[str, typer.Option(help="The trial's id, or its first characters.")],
    as_json: Json = False,
) -> None:
    """Repeat a recorded trial here, without Ray, and compare. Example: ablate rerun RUN --trial ID"""
    from ablate.runs import ledger
    from ablate.runs.run import load_run

    records = {record["trial_id"]: record for record in ledger.read(load_run(run).path / "ledger.jsonl")}
    found = [name for name in records if name.startswith(trial)]
    if len(found) > 1 and trial not in found:
        raise BadInput(f"--trial must name one trial, but {trial!r} begins {', '.join(found)}")
    if not found:
        raise unknown("trial", trial, records)
    record = records[trial if trial in found else found[0]]
    from ablate.training.rerun import compare

    rows = compare(record)
    table(rows, as_json)
    if record["status"] != "complete":
        ended = f"a {record['status']} trial ({record['error']})"
        raise AblateError(f"the record is that of {ended}, so there is no outcome to compare")
    layers = record["spec"]["layers"]
    if not all(row["same"] for row in rows):
        why = "other hardware, versions or threads change the last digits"
        if record["evaluation_batch"] is None and any(
            spec["activation_scale"] == "tensor" for spec in layers.values()
        ):
            why = 'with activation_scale = "tensor" older versions evaluated many images at a time, with one scale'
        raise AblateError(f"the trial did not repeat its record; {why}")


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="The run's folder.")],
    to: Annotated[Path, typer.Option(help="A new folder for the packed model.")],
    trial: Annotated[str | None, typer.Option(help="The trial's id, or its first characters.")] = None,
    max_size_bytes: Annotated[
        int | None, typer.Option(help="The most accurate trial of the front up to this size.")
    ] = None,
    onnx: Annotated[
        bool, typer.Option("--onnx", help="Write model.onnx beside it, for onnxruntime.")
    ] = False,
) -> None:
    """Write the packed model of a trial of the front. Example: ablate export RUN --max-size-bytes 1000000 --to DIR"""
    from ablate.runs.run import load_run

    if onnx:
        from ablate.quantization.onnx_export import to_onnx
    exported = load_run(run).export(to, trial, max_size_bytes)
    if onnx:
        try:
            to_onnx(to, to / "model.onnx")
        except BaseException:
            shutil.rmtree(to)
            raise
    console.print(
        f"Trial {exported} is in {short(to.absolute())}; try `ablate bench {shlex.quote(str(to))}`",
        highlight=False,
        soft_wrap=True,
    )
