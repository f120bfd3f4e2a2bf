"""The commands on what is built in and on datasets."""

import json
from typing import Annotated

import typer

from ablate.cli.console import Json, console, table
from ablate.config import builtin
from ablate.config.search_space import load_space
from ablate.config.study_spec import load_study

app = typer.Typer()
data_app = typer.Typer(help="Datasets. Example: ablate data ls")
app.add_typer(data_app, name="data")


@app.command()
def ls(as_json: Json = False) -> None:
    """Search spaces, studies, models and datasets that are built in. Example: ablate ls"""
    from ablate.data import datasets

    rows = [
        {"kind": "space", "name": n, "description": load_space(n).description}
        for n in builtin.names("search_spaces")
    ]
    rows += [
        {"kind": "study", "name": n, "description": load_study(n).question} for n in builtin.names("studies")
    ]
    rows += [
        {"kind": "model", "name": n, "description": d}
        for n, d in (builtin.bundled("model") | builtin.KNOWN).items()
    ]
    rows += [{"kind": "dataset", "name": n, "description": d} for n, d in datasets.known().items()]
    table(rows, as_json)


@data_app.command("ls")
def data_ls(as_json: Json = False) -> None:
    """Datasets by name, and where they are. Example: ablate data ls"""
    from ablate.data import datasets

    table(
        [
            {"name": n, "where": datasets.where(n), "description": text}
            for n, text in datasets.known().items()
        ],
        as_json,
    )


@data_app.command("fetch")
def data_fetch(
    name: Annotated[str, typer.Argument(help="A dataset that `ablate data ls` names.")], as_json: Json = False
) -> None:
    """Download a dataset once, and check it. Example: ablate data fetch cifar10"""
    from ablate.data import datasets

    if name not in builtin.bundled("dataset"):
        datasets.fetch(name)
    found = datasets.load(name)
    row = {"name": name, "where": datasets.where(name), "sha256": found.digest, "classes": len(found.classes)}
    row |= {split: len(getattr(found, split)) for split in ("train", "validation", "test")}
    if as_json:
        return print(json.dumps([row], indent=1))
    images = f"{row['train']:,} training, {row['validation']:,} validation and {row['test']:,} test images"
    console.print(
        f"{name}: {images}, sha256 {found.digest[:12]}; {row['where']}", highlight=False, soft_wrap=True
    )
