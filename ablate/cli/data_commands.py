"""The commands on built-in spaces, studies and models, and on datasets."""

from typing import Annotated

import typer

from ablate.cli.console import print_json, print_line, print_rows
from ablate.cli.options import Json
from ablate.config import builtin
from ablate.config.search_space import load_space
from ablate.config.study_spec import load_study

app = typer.Typer()
data_app = typer.Typer(help="List and download datasets.\n\nExample: ablate data ls")
app.add_typer(data_app, name="data")


@app.command()
def ls(as_json: Json = False) -> None:
    """List spaces, studies, models and datasets.

    Example: ablate ls
    """
    from ablate.data import datasets

    described = {
        "space": {name: load_space(name).description for name in builtin.names("search_spaces")},
        "study": {name: load_study(name).question for name in builtin.names("studies")},
        "model": builtin.bundled("model") | builtin.KNOWN,
        "dataset": datasets.known(),
    }
    rows = [
        {"kind": kind, "name": name, "description": description}
        for kind, descriptions in described.items()
        for name, description in descriptions.items()
    ]
    print_rows(rows, as_json)


@data_app.command("ls")
def data_ls(as_json: Json = False) -> None:
    """List datasets and where they are.

    Example: ablate data ls
    """
    from ablate.data import datasets

    rows = [
        {"name": name, "where": datasets.where(name), "description": description}
        for name, description in datasets.known().items()
    ]
    print_rows(rows, as_json)


@data_app.command("fetch")
def data_fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A dataset that `ablate data ls` lists.")],
    as_json: Json = False,
) -> None:
    """Download a dataset and verify it.

    A dataset that is already there is only verified.

    Example: ablate data fetch cifar10
    """
    from ablate.data import datasets

    if name not in [each for each in datasets.known() if datasets.where(each) == "bundled"]:
        datasets.fetch(name)
    dataset, where = datasets.load(name), datasets.where(name)
    sizes = {split: len(getattr(dataset, split)) for split in ("train", "validation", "test")}
    if as_json:
        row = {"name": name, "where": where, "sha256": dataset.digest, "classes": len(dataset.classes)}
        return print_json([row | sizes])
    train, validation, test = sizes.values()
    images = f"{train:,} training, {validation:,} validation and {test:,} test images"
    print_line(f"{name}: {images}, sha256 {dataset.digest[:12]}; {where}")
