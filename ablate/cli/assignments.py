"""`--set FIELD=VALUE`: any field of a study, as its file would have it."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from ablate.errors import BadInput, short_repr

Assignment = tuple[tuple[str, ...], Any]  # the keys that lead to a field, and its value
EXAMPLE = "--set recipe.learning_rate=3e-4"
_QUOTED = r""" "(?:\\.|[^"\\])*+" | '[^']*+' """
_WORD = r"(?<![\w.+-]) (?!(?:true|false|[+-]?(?:inf|nan))\b) [A-Za-z_~] [\w./:~-]*+ (?!\s*=)"
_QUOTED_OR_WORD = re.compile(f"({_QUOTED}) | ({_WORD})", re.VERBOSE)


def parse_all(texts: Sequence[str] | None) -> list[Assignment]:
    """Read the values of `--set`. None is no value."""
    return [parse(text) for text in texts or ()]


def parse(text: str) -> Assignment:
    """Read one assignment.

    Args:
        text: `FIELD=VALUE`. FIELD is a dotted key of TOML; a number in it is the place in a list, from 0.
            VALUE is a value of TOML, in which words may lack their quotes, as shells take them away.

    Returns:
        The keys and the value.

    Raises:
        BadInput: The text is no assignment.
    """
    field, equals, value = text.partition("=")
    if not equals or not value.strip():
        raise BadInput(f"--set takes FIELD=VALUE, as in {EXAMPLE}, but got {short_repr(text)}")
    try:
        keys = tomllib.loads(f"{field} = 0")
    except (ValueError, RecursionError):
        rule = "--set takes a field's dotted name"
        raise BadInput(f"{rule}, as in {EXAMPLE}, but got {short_repr(field)}") from None
    path: list[str] = []
    while isinstance(keys, dict):
        [(key, keys)] = keys.items()
        path.append(key)
    return tuple(path), _value(value.strip(), field)


def _value(text: str, field: str) -> Any:
    for candidate in (text, _QUOTED_OR_WORD.sub(lambda found: found[1] or f'"{found[2]}"', text)):
        try:
            parsed = tomllib.loads(f"value = {candidate}")
        except (ValueError, RecursionError):
            continue
        if len(parsed) == 1:  # and not further lines
            return parsed["value"]
    if text[0] in "[{\"'":
        raise BadInput(
            f"--set {field} takes a value of TOML, but got {short_repr(text)}; see its brackets and quotes"
        )
    return text


def assign(fields: dict[str, Any], assignments: Sequence[Assignment]) -> None:
    """Set fields of a study's plain data, in place.

    Raises:
        BadInput: An assignment names a place that a list does not have.
    """
    for path, value in assignments:
        fields[path[0]] = _put(fields.get(path[0]), path, 1, value)


def _put(node: Any, path: tuple[str, ...], depth: int, value: Any) -> Any:
    """`node` with the value at the keys from `depth` on. What is no table becomes one."""
    if depth == len(path):
        return value
    key = path[depth]
    if isinstance(node, list | tuple):
        if not (key.isdecimal() and int(key) < len(node)):
            rule = f"--set {'.'.join(path)} must name a place in the list {'.'.join(path[:depth])}"
            raise BadInput(f"{rule}, which are 0 to {len(node) - 1}, but got {short_repr(key)}")
        at = int(key)
        return [*node[:at], _put(node[at], path, depth + 1, value), *node[at + 1 :]]
    table = node if isinstance(node, dict) else {}
    return {**table, key: _put(table.get(key), path, depth + 1, value)}


def check_once(assignments: Sequence[Assignment], overrides: Mapping[str, Any]) -> None:
    """Check that nothing is set twice, by --set or by another option.

    Args:
        assignments: In their order.
        overrides: What other options set, by field.

    Raises:
        BadInput: A field is set twice.
    """
    paths = [path for path, _ in assignments]
    for i, path in enumerate(paths):
        name = ".".join(path)
        for before in paths[:i]:
            if all(map(str.__eq__, before, path)):  # equal, or one within the other
                both = f"{'.'.join(before)} and {name}"
                raise BadInput(f"--set must set a field once, but sets {both}; leave one out")
        if _sets(overrides, path):
            option = path[0].replace("_", "-")
            rule = "a field must be set once"
            raise BadInput(f"{rule}, but --{option} and --set {name} both set it; leave one out")


def _sets(overrides: Mapping[str, Any], path: tuple[str, ...]) -> bool:
    """Whether options set the field at some keys, too. What is in the space of --space may be changed."""
    if path[0] not in overrides or len(path) == 1:
        return path[0] in overrides
    value = overrides[path[0]]
    return path[1] in value if isinstance(value, dict) else path[0] != "space"
