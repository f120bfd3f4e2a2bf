"""The commands on existing runs. Heavy modules are imported where they are used."""

import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ablate.cli import completion
from ablate.cli.console import print_line, print_rows, relative_path
from ablate.cli.options import Json, LatestRun, OfTrial, RunFolder, UpToSize
from ablate.errors import AblateError, BadInput, WriteFailed, unknown
from ablate.paths import local_path

if TYPE_CHECKING:
    from ablate.runs.record import Record

app = typer.Typer()


@app.command()
def status(run: LatestRun = None, as_json: Json = False) -> None:
    """Show a run's progress, failures and front.

    The run may still be going on.

    Example: ablate status
    """
    from ablate.cli.status import outcome
    from ablate.runs.run import latest_run, load_run

    outcome(load_run(run) if run else latest_run(), as_json)


@app.command()
def report(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            parser=local_path,
            metavar="RUN...",
            help="Folders of runs; two or more are compared.",
            show_default="the newest in runs/",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=local_path,
            metavar="FILE",
            help="The page.",
            show_default="RUN/report.html; comparison.html for several runs",
        ),
    ] = None,
) -> None:
    """Write a run's results as one HTML page, or compare runs on one.

    The page opens offline. Its tables are written beside it as CSV. Runs may still be going on.

    Example: ablate report RUN
    """
    from ablate.reporting.html_report import report, tables_of
    from ablate.runs.run import latest_run, load_run

    if runs and len(runs) > 1:
        from ablate.reporting.html_comparison import compare

        compared, folder = compare([load_run(path) for path in runs], out)
        where = f"{relative_path(folder)}/"
        return print_line(f"The comparison is {relative_path(compared)}, its tables are in {where}")
    loaded = load_run(runs[0]) if runs else latest_run()
    page = report(loaded, out)
    tables = tables_of(loaded, page).name
    print_line(f"The report is {relative_path(page)}, its tables are beside it in {tables}/")
    if loaded.tested:
        print_line(loaded.tested)


@app.command()
def figures(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            parser=local_path,
            metavar="RUN...",
            help="Folders of runs.",
            show_default="the newest in runs/",
            autocompletion=completion.runs,
        ),
    ] = None,
) -> None:
    """Draw a run's figures as PDF and PNG.

    Its tables are written beside them as CSV.

    Example: ablate figures RUN
    """
    from ablate.reporting import figures
    from ablate.reporting.findings import findings, write_tables
    from ablate.runs.run import latest_run, load_run

    for run in [load_run(path) for path in runs] if runs else [latest_run()]:
        results = findings(run)
        try:
            written = write_tables(results, run.path / "tables")
            written += [path.with_name(f"{path.name}.pdf") for path in figures.draw(run, results)]
        except OSError as error:
            raise WriteFailed(f"{str(run.path)!r} cannot be written: {error.strerror or error}") from None
        for path in written:
            print_line(relative_path(path))
        for name, finding in results.items():
            if finding.sentence:
                print_line(f"{name}: {finding.sentence}")
        if run.records.empty:
            print_line(f"{relative_path(run.path)}: no trial is recorded yet")
        if run.tested:
            print_line(run.tested)


@app.command()
def rerun(
    run: RunFolder,
    trial: Annotated[str, typer.Option(metavar="ID", help="The trial's id, or the beginning of it.")],
    as_json: Json = False,
) -> None:
    """Train a recorded trial again and compare.

    The trial runs in this process, without Ray. Exits with 1 if the outcome differs from the record.

    Example: ablate rerun RUN --trial ID
    """
    record = _find_record(run, trial)
    from ablate.training.rerun import compare

    rows = compare(record)
    print_rows(rows, as_json)
    if record["status"] != "complete":
        ended = f"a {record['status']} trial ({record['error']})"
        raise AblateError(f"the record is that of {ended}, so there is no outcome to compare")
    different = {row["field"] for row in rows if not row["same"]}
    if not different:
        return
    reason = "other hardware, versions or threads change the last digits"
    if different == {"size_bytes"}:
        reason = "other versions of ablate or transformers describe the model in some bytes more or fewer"
    scales = {layer["activation_scale"] for layer in record["spec"]["layers"].values()}
    if record["evaluation_batch"] is None and "tensor" in scales:
        reason = 'with activation_scale = "tensor", older versions evaluated many images with one scale'
    raise AblateError(f"the outcome differs from the record; {reason}")


@app.command()
def export(
    run: RunFolder,
    to: Annotated[
        Path, typer.Option(parser=local_path, metavar="DIR", help="A new folder for the packed model.")
    ],
    trial: OfTrial = None,
    max_size_bytes: UpToSize = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="Also write model.onnx, for onnxruntime.")] = False,
    openvino: Annotated[
        bool, typer.Option("--openvino", help="Also write model.xml and model.bin, for OpenVINO.")
    ] = False,
) -> None:
    """Export the packed model of a trial of the front.

    Example: ablate export RUN --max-size-bytes 1000000 --to DIR
    """
    from ablate.quantization import packed_files
    from ablate.runs.run import load_run

    if onnx:
        from ablate.quantization.onnx_export import to_onnx
    if openvino:
        from ablate.quantization.openvino_export import to_openvino
    exported = load_run(run).export(to, trial, max_size_bytes)
    try:
        packed_files.read(to)
    except BadInput as error:
        shutil.rmtree(to)
        raise BadInput(f"trial {exported} of {str(run)!r} may have been copied in part: {error}") from None
    try:
        if onnx:
            to_onnx(to, to / "model.onnx")
        if openvino:
            to_openvino(to, to / "model.xml")
    except BaseException:
        shutil.rmtree(to)
        raise
    command = f"ablate bench {shlex.quote(str(to))}"
    print_line(f"Trial {exported} is in {relative_path(to.absolute())}; try `{command}`")


@app.command()
def monitor(
    export: Annotated[
        Path, typer.Option(parser=local_path, metavar="DIR", help="A folder for the two files.")
    ],
) -> None:
    """Write a Grafana dashboard and Prometheus alerts.

    They show the metrics of studies.

    Example: ablate monitor --export DIR
    """
    from ablate.execution.monitoring import monitor

    for path in monitor(export):
        print(relative_path(path.absolute()))


def _find_record(run: Path, trial: str) -> "Record":
    """The record of the only trial whose id is `trial` or begins with it."""
    from ablate.runs import ledger
    from ablate.runs.run import load_run

    records = {record["trial_id"]: record for record in ledger.read(load_run(run).path / "ledger.jsonl")}
    if trial in records:
        return records[trial]
    matches = [name for name in records if name.startswith(trial)]
    if not matches:
        raise unknown("trial", trial, records)
    if len(matches) > 1 or not trial:
        raise BadInput(f"--trial must name one trial, but {trial!r} begins {', '.join(matches)}")
    return records[matches[0]]
