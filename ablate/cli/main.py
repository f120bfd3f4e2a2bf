"""The command line: its commands, its standard streams and its exit codes.

Heavy modules are imported where they are used: `ablate --help` imports neither torch nor ray.
"""

import os
import sys
from importlib.metadata import version
from typing import Annotated, NoReturn

import typer
from pydantic import ValidationError

from ablate.cli import (
    data_commands,
    doctor_commands,
    model_commands,
    run_commands,
    sharing_commands,
    study_commands,
)
from ablate.cli.streams import guard_streams
from ablate.errors import DISK, AblateError, BadInput, Interrupted, missing, short_repr
from ablate.labels import one_line

SUCCESS, FAILURE, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130  # exit codes

app = typer.Typer(rich_markup_mode="rich", pretty_exceptions_enable=False)
for commands in (
    study_commands,
    run_commands,
    sharing_commands,
    model_commands,
    data_commands,
    doctor_commands,
):
    app.add_typer(commands.app)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    show_version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Search which layers of a Vision Transformer may become 1-bit or ternary, and measure what that saves.

    Example: ablate study --space layers_bits
    """
    if show_version:
        print(version("ablate-vit"))
        raise typer.Exit
    if context.invoked_subcommand is None:
        context.get_help()  # prints it


def main() -> NoReturn:
    """Run the command line.

    Exits with 0 on success, 1 if the work failed, 2 on bad input and 130 if interrupted.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # our own checks report what is wrong
    output = guard_streams()
    try:
        code = app(standalone_mode=False) or SUCCESS
        if code == INTERRUPTED:
            raise KeyboardInterrupt
    except AblateError as error:
        code = _print_error(error, _exit_code(error))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "ablate":
            raise
        code = _print_error(missing(error), BAD_INPUT)
    except OSError as error:
        message = f"{error.strerror}: {str(error.filename)[:80]!r}" if error.filename else error
        code = _print_error(message, FAILURE if error.errno in DISK else BAD_INPUT)
    except KeyboardInterrupt:
        code = _print_error("interrupted", INTERRUPTED)
    except typer.TyperException as error:
        code = _print_error(_usage_error(error), BAD_INPUT)
    output.flush()
    if code == SUCCESS and output.lost:
        code = _print_error(f"standard output cannot be written: {output.lost}", FAILURE)
    sys.exit(code)


def _usage_error(error: typer.TyperException) -> str:
    """What is wrong with the arguments: the rule and the value."""
    message, cause = error.format_message(), error.__cause__
    if not isinstance(cause, ValidationError):
        return message
    fault = cause.errors()[0]
    if isinstance(fault.get("ctx", {}).get("error"), BadInput):  # which has the value in it
        return message.replace("Value error, ", "", 1)
    return f"{message}, but got {short_repr(fault['input'])}"


def _exit_code(error: AblateError) -> int:
    if isinstance(error, BadInput):
        return BAD_INPUT
    return INTERRUPTED if isinstance(error, Interrupted) else FAILURE


def _print_error(error: object, code: int) -> int:
    """Print an error on one line, and return the exit code."""
    print("ablate: " + one_line(" ".join(str(error).split())), file=sys.stderr)
    return code
