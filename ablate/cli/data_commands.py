"""The commands on built-in spaces, studies and models, on their files, and on datasets."""

from typing import Annotated

import typer

from ablate.cli import completion
from ablate.cli.console import print_json, print_line, print_rows
from ablate.cli.options import Json
from ablate.config import builtin
from ablate.config.search_space import load_space
from ablate.config.study_spec import load_study
from ablate.errors import unknown

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


@app.command()
def schema(
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help="study or space.", autocompletion=completion.schemas)
    ] = "study",
) -> None:
    """Print the JSON Schema of study files.

    An editor completes and checks TOML files with it.

    Example: ablate schema study > study.schema.json
    """
    from ablate.config.json_schema import space_schema, study_schema

    schemas = {"study": study_schema, "space": space_schema}
    if kind not in schemas:
        raise unknown("kind of file", kind, schemas)
    print_json(schemas[kind]())


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
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A dataset that `ablate data ls` lists.",
            autocompletion=completion.datasets,
        ),
    ],
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
