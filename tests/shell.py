"""The `ablate` commands that documents show, and the real command line's reading of them."""

import re
import shlex
from pathlib import Path

import typer

from ablate.cli.main import app
from ablate.config import builtin

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def shell_lines(markdown):
    """Those of the shell blocks, a continued one as one."""
    blocks = [text for language, text in BLOCK.findall(markdown) if language in ("", "sh")]
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]


def inline(markdown):
    """What stands between single backquotes."""
    return re.findall(r"`([^`\n]+)`", BLOCK.sub("", markdown))


def ablate_commands(line):
    """Every `ablate VERB ...` of a shell line, each a list of words; also behind a path, `--` or a quote."""
    if "ablate" not in line:
        return []
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)  # leaves comments out
    lexer.whitespace_split = True
    found, command = [], []
    for word in [*lexer, ";"]:
        if not set(word) <= set("();<>|&"):
            command.append(word)
            continue
        at = [i for i, each in enumerate(command[:-1]) if Path(each).name == "ablate"]
        found += (
            [command[at[0] :]]
            if at
            else [one for each in command if " " in each for one in ablate_commands(each)]
        )
        command = []
    return found


def parse(words):
    """The options of a command, as the command line reads them; its errors are raised."""
    command, rest = typer.main.get_command(app), words[1:]
    while hasattr(command, "commands"):
        if rest[0] not in command.commands:
            raise typer.TyperException(f"no such command: {rest[0]}")
        command, rest = command.commands[rest[0]], rest[1:]
    options = command.make_context(words[1], list(rest)).params
    for option, folder in (("study", "studies"), ("space", "search_spaces")):
        name = options.get(option)
        if name and not name.isupper() and not name.endswith(".toml") and name not in builtin.names(folder):
            raise typer.TyperException(f"no such {option}: {name}")
    return options
