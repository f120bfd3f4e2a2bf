"""Which study, and how it searches. Options that most commands share are in `options`."""

from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer

from ablate.cli import completion
from ablate.config.objectives import OBJECTIVES
from ablate.config.samplers import SAMPLERS

# Panels of the help of `study`.
SEARCH = "Search"
BOUNDS = "Bounds and early stopping"

Study = Annotated[
    str,
    typer.Argument(
        metavar="STUDY",
        help="A built-in study's name, or the path of a TOML file.",
        autocompletion=completion.studies,
    ),
]


@dataclass(frozen=True)
class SearchOptions:
    """How a study searches. None keeps the study's own value, and so does False."""

    trials: Annotated[
        int | None,
        typer.Option(metavar="N", help="Number of trials, the anchors included.", rich_help_panel=SEARCH),
    ] = None
    hours: Annotated[
        float | None,
        typer.Option(
            metavar="HOURS", help="Start no trial, nor confirmation, after this time.", rich_help_panel=SEARCH
        ),
    ] = None
    epochs: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Epochs of every trial after its full_epochs, instead of the study's epochs or image_views.",
            rich_help_panel=SEARCH,
        ),
    ] = None
    seed: Annotated[
        int | None,
        typer.Option(metavar="N", help="Seed of the search and of every trial.", rich_help_panel=SEARCH),
    ] = None
    objectives: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help=f"Comma-separated: {', '.join(OBJECTIVES)}, or your own MODULE:NAME.",
            rich_help_panel=SEARCH,
        ),
    ] = None
    sampler: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"What proposes trials: {', '.join(SAMPLERS)}, or your own MODULE:NAME.",
            rich_help_panel=SEARCH,
            autocompletion=completion.samplers,
        ),
    ] = None
    confirm: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="After the search, repeat each trial of the front on N further seeds and test it.",
            rich_help_panel=SEARCH,
        ),
    ] = None
    final: Annotated[
        bool,
        typer.Option(
            "--final",
            help="Test on half B of the test images, which is held back, and not on half A.",
            rich_help_panel=SEARCH,
        ),
    ] = False
    early_stopping: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="At each rung, only the best 1/N of the trials continue; 0 disables it.",
            rich_help_panel=BOUNDS,
        ),
    ] = None
    early_stopping_over: Annotated[
        str | None,
        typer.Option(
            metavar="AXIS",
            help="What grows from rung to rung: epochs, or the fraction of the training images.",
            rich_help_panel=BOUNDS,
        ),
    ] = None
    max_size_bytes: Annotated[
        int | None,
        typer.Option(
            metavar="BYTES", help="Train no model that is larger when packed.", rich_help_panel=BOUNDS
        ),
    ] = None
    max_bitops: Annotated[
        float | None,
        typer.Option(
            metavar="N",
            help="Train no model with more bit operations an image, such as 2e9.",
            rich_help_panel=BOUNDS,
        ),
    ] = None
    max_latency_ms: Annotated[
        float | None,
        typer.Option(
            metavar="MS",
            help="Train no model whose layers together take longer at batch size 1.",
            rich_help_panel=BOUNDS,
        ),
    ] = None
    min_accuracy: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Keep less accurate trials off the front; from 0 to 1.",
            rich_help_panel=BOUNDS,
        ),
    ] = None

    def overrides(self) -> dict[str, Any]:
        """The options that were given, except epochs, by the field of StudySpec that each replaces."""
        given = {name: value for name, value in asdict(self).items() if value is not None}
        if not self.final:
            given.pop("final", None)
        given.pop("epochs", None)
        reduction, over = given.pop("early_stopping", None), given.pop("early_stopping_over", None)
        rule = {
            name: value for name, value in (("reduction", reduction), ("over", over)) if value is not None
        }
        if rule:
            given["early_stopping"] = "none" if rule == {"reduction": 0} else rule
        if self.objectives is not None:
            given["objectives"] = tuple(name.strip() for name in self.objectives.split(","))
        return given
