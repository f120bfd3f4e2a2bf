"""The verbs on what there is: runs, packed models, datasets. Heavy modules are imported where they are used."""

import json
import shlex
import shutil
from pathlib import Path
from typing import Annotated

import typer

from ablate.config import builtin
from ablate.config.search_space import load_space
from ablate.config.study_spec import load_study
from ablate.errors import AblateError, BadInput, Unwritten, unknown
from ablate.hardware import cpus
from ablate.labels import one_line
from ablate.terminal import Json, console, console_on, short, table

app = typer.Typer()
data_app = typer.Typer(help="Datasets. Example: ablate data ls")
app.add_typer(data_app, name="data")


@app.command()
def ls(as_json: Json = False) -> None:
    """Search spaces, studies, models and datasets that are built in. Example: ablate ls"""
    from ablate.config import builtin
    from ablate.data import datasets

    rows = [{"kind": "space", "name": n, "description": load_space(n).description} for n in builtin.names("search_spaces")]
    rows += [{"kind": "study", "name": n, "description": load_study(n).question} for n in builtin.names("studies")]
    rows += [{"kind": "model", "name": n, "description": d} for n, d in (builtin.bundled("model") | builtin.KNOWN).items()]
    rows += [{"kind": "dataset", "name": n, "description": d} for n, d in datasets.known().items()]
    table(rows, as_json)


@app.command()
def report(
    run: Annotated[Path | None, typer.Argument(help="The run's folder; the newest below runs/ by default.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="The page; RUN/report.html by default.")] = None,
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
    from ablate.training.trial import compare

    rows = compare(record)
    table(rows, as_json)
    if record["status"] != "complete":
        ended = f"a {record['status']} trial ({record['error']})"
        raise AblateError(f"the record is that of {ended}, so there is no outcome to compare")
    layers = record["spec"]["layers"]
    if not all(row["same"] for row in rows):
        why = "other hardware, versions or threads change the last digits"
        if record["evaluation_batch"] is None and any(spec["activation_scale"] == "tensor" for spec in layers.values()):
            why = 'with activation_scale = "tensor" older versions evaluated many images at a time, with one scale'
        raise AblateError(f"the trial did not repeat its record; {why}")


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="The run's folder.")],
    to: Annotated[Path, typer.Option(help="A new folder for the packed model.")],
    trial: Annotated[str | None, typer.Option(help="The trial's id, or its first characters.")] = None,
    max_size_bytes: Annotated[int | None, typer.Option(help="The most accurate trial of the front up to this size.")] = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="Write model.onnx beside it, for onnxruntime.")] = False,
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
    from ablate import view
    from ablate.profiling import latency

    _set_threads(threads)
    rows = latency.bench(directory, seconds=seconds, compiled=compiled)
    if as_json:
        return print(json.dumps(rows, indent=1))
    console.print(view.bench(rows))


@app.command()
def table1(
    runs: Annotated[list[Path] | None, typer.Argument(metavar="[RUN...]", help="Runs whose accuracies to add.")] = None,
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
    found = table1.table1(loaded, seconds=seconds, batch=batch, tell=lambda name: note.print(f"{name} ...", highlight=False))
    if as_json:
        return print(json.dumps(found.plain(), indent=1))
    console.print(table1_render.terminal(found)) if form == "text" else print(table1_render.typeset(found, form), end="")


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


@data_app.command("ls")
def data_ls(as_json: Json = False) -> None:
    """Datasets by name, and where they are. Example: ablate data ls"""
    from ablate.data import datasets

    table([{"name": n, "where": datasets.where(n), "description": text} for n, text in datasets.known().items()], as_json)


@data_app.command("fetch")
def data_fetch(
    name: Annotated[str, typer.Argument(help="A dataset that `ablate data ls` names.")], as_json: Json = False
) -> None:
    """Download a dataset once, and check it. Example: ablate data fetch cifar10"""
    from ablate.data import cache, datasets

    if name not in builtin.bundled("dataset"):
        cache.fetch(name)
    found = datasets.load(name)
    row = {"name": name, "where": datasets.where(name), "sha256": found.digest, "classes": len(found.classes)}
    row |= {split: len(getattr(found, split)) for split in ("train", "validation", "test")}
    if as_json:
        return print(json.dumps([row], indent=1))
    images = f"{row['train']:,} training, {row['validation']:,} validation and {row['test']:,} test images"
    console.print(f"{name}: {images}, sha256 {found.digest[:12]}; {row['where']}", highlight=False, soft_wrap=True)


def _set_threads(threads: int | None) -> None:
    import torch

    if threads is not None:
        if not 1 <= threads <= cpus():
            raise BadInput(f"--threads must be 1 to {cpus()}, the CPUs here, but got {threads}")
        torch.set_num_threads(threads)
