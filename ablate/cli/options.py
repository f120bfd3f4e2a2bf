"""Options that several commands share.

Typer reads options from a signature and takes no dataclasses. With `expand_options`, a parameter
that is annotated with a dataclass becomes one option for each of its fields.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ablate.cli import completion
from ablate.config.trial_spec import checked
from ablate.paths import local_path
from ablate.tracking.destination import destination

if TYPE_CHECKING:
    from ablate.execution.ray_cluster import Resources

# Panels of a command's help.
WHAT = "What to study"
RAY = "Ray"

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check the study and estimate its cost; train and record nothing.")
]
RunFolder = Annotated[
    Path,
    typer.Argument(
        parser=local_path, metavar="RUN", help="The run's folder.", autocompletion=completion.runs
    ),
]
LatestRun = Annotated[
    Path | None,
    typer.Argument(
        parser=local_path,
        metavar="RUN",
        help="The run's folder.",
        show_default="the newest in runs/",
        autocompletion=completion.runs,
    ),
]
OutFolder = Annotated[
    Path | None,
    typer.Option(
        parser=local_path, metavar="DIR", help="The run's folder.", show_default="a new one in runs/"
    ),
]
SetField = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Set any field of the study, as recipe.weight_decay=0.1; may be repeated.",
    ),
]
TrialId = typer.Option(metavar="ID", help="The trial's id, or the beginning of it.")
Threads = Annotated[int | None, typer.Option(metavar="N", help="CPU threads.", show_default="all CPUs")]
MaxFailed = Annotated[
    float,
    typer.Option(
        min=0, max=1, metavar="SHARE", help="Exit with 1 if more than this share of the trials failed."
    ),
]


OfTrial = Annotated[str | None, typer.Option(metavar="ID", help="The trial's id, or the beginning of it.")]
UpToSize = Annotated[
    int | None,
    typer.Option(min=1, max=10**18, metavar="BYTES", help="Take the most accurate trial up to this size."),
]


def tracker(text: str) -> str:
    """A tracker's name and place, which may be wrong. Raises BadInput."""
    destination(text)
    return text


TRACKER = "mlflow[:URI], tensorboard[:DIR] or wandb[:[ENTITY/]PROJECT]"
Track = Annotated[
    list[str] | None,
    typer.Option(
        parser=tracker,
        metavar="TRACKER",
        help=f"Show the trials also in {TRACKER}; may be repeated.",
    ),
]


@dataclass(frozen=True)
class SubjectOptions:
    """The search space, the model and the dataset of a study. None keeps the study's own."""

    space: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Search space: built-in or TOML.",
            rich_help_panel=WHAT,
            autocompletion=completion.spaces,
        ),
    ] = None
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|DIR",
            help="Model: built-in, on the Hugging Face hub, or a save_pretrained folder.",
            rich_help_panel=WHAT,
            autocompletion=completion.models,
        ),
    ] = None
    data: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A name, imagefolder:PATH, hf:NAME, hf:PATH or MODULE:NAME.",
            rich_help_panel=WHAT,
            autocompletion=completion.datasets,
        ),
    ] = None

    def overrides(self) -> dict[str, Any]:
        """The options that were given, by the field of StudySpec that each replaces."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class RayOptions:
    """Where trials run and what each of them may use: the fields of `Resources`."""

    address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Ray cluster to join.",
            show_default="start Ray on this machine",
            rich_help_panel=RAY,
        ),
    ] = None
    cpus_per_trial: Annotated[
        int, typer.Option(metavar="N", help="CPUs and threads per trial.", rich_help_panel=RAY)
    ] = 1
    gpus_per_trial: Annotated[
        float | None,
        typer.Option(
            metavar="N",
            help="GPUs per trial; 0.5 lets two trials share one.",
            show_default="1 if there is a GPU, else 0",
            rich_help_panel=RAY,
        ),
    ] = None
    concurrency: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Trials to run at a time.", show_default="as many as fit", rich_help_panel=RAY
        ),
    ] = None
    minutes_per_trial: Annotated[
        float,
        typer.Option(
            metavar="MINUTES",
            help="Time limit per trial; a trial that exceeds it is recorded as failed.",
            rich_help_panel=RAY,
        ),
    ] = 120
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|URI",
            help="Shared folder for checkpoints; interrupted trials continue from their last one.",
            rich_help_panel=RAY,
        ),
    ] = None
    dashboard_host: Annotated[
        str,
        typer.Option(
            metavar="HOST",
            help="Address that the Ray dashboard listens on; 0.0.0.0 exposes it to the network.",
            rich_help_panel=RAY,
        ),
    ] = "127.0.0.1"

    def resources(self) -> "Resources":
        """The options as checked `Resources`. Imports Ray.

        Raises:
            BadInput: An option is invalid, or no Ray answers at the address.
        """
        from ablate.execution.ray_cluster import Resources, check_address

        resources = checked(Resources, asdict(self), "options")
        check_address(resources.address)
        return resources


def expand_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replace each dataclass in a command's signature by one option for each of its fields.

    Args:
        command: A function whose options are parameters, or fields of a parameter's dataclass.

    Returns:
        A function for `app.command()` that takes every option by its own name.
    """
    parameters: list[inspect.Parameter] = []
    groups: dict[str, Any] = {}
    for name, parameter in inspect.signature(command).parameters.items():
        group = parameter.annotation
        if not is_dataclass(group):
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        groups[name] = group
        parameters += [
            inspect.Parameter(
                field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.type
            )
            for field in fields(group)
        ]

    @functools.wraps(command)
    def expanded(**options: Any) -> None:
        for name, group in groups.items():
            options[name] = group(**{field.name: options.pop(field.name) for field in fields(group)})
        command(**options)

    expanded.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return expanded
