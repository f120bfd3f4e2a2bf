"""The commands that show a run elsewhere: trackers, Optuna, the hub. Heavy modules are imported in them."""

import re
import shlex
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from ablate.cli.console import print_line, relative_path
from ablate.cli.options import TRACKER, OfTrial, RunFolder, UpToSize, tracker
from ablate.errors import AblateError, BadInput, short_repr
from ablate.labels import without_secrets
from ablate.paths import local_path

app = typer.Typer()


@app.command()
def track(
    run: RunFolder,
    to: Annotated[str, typer.Option(parser=tracker, metavar="TRACKER", help=f"Where to: {TRACKER}.")],
) -> None:
    """Show a run's trials in a tracker.

    What the tracker has already is not sent again. The trials of a run that is still going on follow as they
    end.

    Example: ablate track RUN --to mlflow:http://127.0.0.1:5000
    """
    from ablate.runs.run import load_run
    from ablate.tracking import follower
    from ablate.tracking.destination import installed

    loaded, where = load_run(run), installed(to)
    try:
        sent, hint = follower.track(loaded, where, is_over=lambda: not loaded.alive)
    except BadInput:
        raise
    except Exception as error:  # each client has its own
        raise AblateError(f"tracking to {where} failed: {follower.reason_of(error, where)}") from None
    print_line(
        f"{len(sent)} of {len(load_run(run).records)} trials were sent to {where}, which has all now: {hint}"
    )


@app.command("optuna")
def optuna_storage(
    run: RunFolder,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|URL",
            help="Optuna's journal file, or the URL of a database.",
            show_default="RUN/optuna.journal",
        ),
    ] = None,
) -> None:
    """Write a run as a study of Optuna, for optuna-dashboard.

    What the storage has already is not written again. The trials of a run that is still going on follow as
    they end.

    Example: ablate optuna RUN
    """
    from ablate.runs.run import load_run
    from ablate.search.optuna_mirror import mirror

    loaded = load_run(run)
    storage = relative_path(loaded.path / "optuna.journal") if to is None else to
    command = f"optuna-dashboard {shlex.quote(without_secrets(storage))}"
    if loaded.alive:
        print_line(f"Following the run; see it with `{command}`")
    added, total = mirror(loaded, storage, is_over=lambda: not loaded.alive, wait=time.sleep)
    print_line(f"{added} trials were added, of {total} that may be on the front; see them with `{command}`")


@app.command()
def push(
    source: Annotated[
        Path,
        typer.Argument(parser=local_path, metavar="RUN|DIR", help="A run's folder, or a packed model's."),
    ],
    to: Annotated[
        str, typer.Option(metavar="USER/NAME|./DIR", help="The repository, or a new folder to write it to.")
    ],
    trial: OfTrial = None,
    max_size_bytes: UpToSize = None,
    licence: Annotated[
        str | None, typer.Option("--license", metavar="ID", help="As the hub names it, such as apache-2.0.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Create a private repository.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only write the repository, to a new folder NAME.")
    ] = False,
) -> None:
    """Publish a packed model on the Hugging Face hub.

    The repository has the packed model and a card with the question, the front, the layers and where they
    come from.

    Example: ablate push RUN --max-size-bytes 1000000 --to USER/NAME --license apache-2.0
    """
    from ablate.integrations.hub import check_login, upload
    from ablate.models.hub import is_hub_name
    from ablate.reporting.repository import write_repository

    if licence is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", licence):
        rule = "--license must be an identifier of the hub, such as apache-2.0 or cc-by-4.0"
        raise BadInput(f"{rule}, but got {short_repr(licence)}")
    is_name = is_hub_name(to) and "@" not in to
    if not is_name and not to.startswith((".", "/", "~")):
        raise BadInput(f"--to must be USER/NAME, or a folder such as ./NAME, but got {short_repr(to)}")
    options: Any = {"trial": trial, "max_size_bytes": max_size_bytes, "licence": licence}
    if dry_run or not is_name:
        folder = Path(to.rpartition("/")[2]) if is_name else local_path(to)
        write_repository(source, folder, to if is_name else folder.name, **options)
        print_line(f"The repository is in {relative_path(folder.absolute())}; nothing was uploaded")
        return
    check_login(to)
    with tempfile.TemporaryDirectory(prefix="ablate-push-") as temporary:
        write_repository(source, folder := Path(temporary) / "repository", to, **options)
        print_line(upload(folder, to, private))
