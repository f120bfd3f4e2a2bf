"""Users' names as labels: on one line, shortened, in ASCII for metrics, or as the cell of a spreadsheet.

Other files keep the original names.
"""

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence

from rich.cells import cell_len

# Unicode categories that break a line or move the cursor: control characters, lone surrogates, line and
# paragraph separators.
CONTROL_CATEGORIES = ("Cc", "Cs", "Zl", "Zp")
# Marks of text direction, which also reverse the text after them.
DIRECTION_MARKS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
JOINER = "\u200d"
MAX_TAG = 200  # characters
# What may be secret in a URI: the user's name and password, and what is asked for.
SECRETS = ((re.compile(r"://\S*@"), "://***@"), (re.compile(r"(://[^\s?]*\?)\S*"), r"\1***"))
# The beginning of a cell that a spreadsheet computes (OWASP, CSV injection), after any number of apostrophes.
FORMULA = re.compile(r"'*[\t\r]|['\s]*[=+\-@\uff1d\uff0b\uff0d\uff20]")


def one_line(text: str) -> str:
    """Escape control characters, such as a newline to `\\n`, so that the text stays on one line."""
    return "".join(_escape(letter) if _is_control(letter) else letter for letter in text)


def without_secrets(text: str) -> str:
    """Replace what may be secret in the URIs of a text by `***`: `user:password@`, and all after `?`."""
    for secret, mark in SECRETS:
        text = secret.sub(mark, text)
    return text


def shortened(text: str, most: int) -> str:
    """Shorten a text to one line of a maximum width.

    Args:
        text: Any text.
        most: The maximum width in characters; Chinese and other wide ones count twice.

    Returns:
        The text, or its beginning and its end with an ellipsis between them.
    """
    text = one_line(text)
    if cell_len(text) <= most:
        return text
    letters = _letters(text)
    return f"{_fitting(letters, most - most // 2 - 1)}…{_fitting(letters[::-1], most // 2, reverse=True)}"


def left_to_right(text: str) -> str:
    """A label beside which more follows: around Arabic or Hebrew, marks keep what follows on its right."""
    is_mixed = any(unicodedata.bidirectional(letter) in ("R", "AL") for letter in text)
    return f"\u200e{text}\u200e" if is_mixed else text


def wrapped(text: str, most: int) -> str:
    """Break a text at its spaces, and within words that are wider than a line.

    Args:
        text: A line.
        most: The maximum width of a line in characters, as of `shortened`; 2 or more.

    Returns:
        The lines, joined by newlines.
    """
    lines: list[str] = []
    for word in text.split(" "):
        if lines and cell_len(f"{lines[-1]} {word}") <= most:
            lines[-1] += f" {word}"
            continue
        while cell_len(word) > most:
            lines.append(_fitting(_letters(word), most) or _letters(word)[0])
            word = word[len(lines[-1]) :]
        lines.append(word)
    return "\n".join(lines)


def shortened_alike(names: Sequence[str], most: int) -> list[str]:
    """Shorten names that are shown side by side.

    Args:
        names: The names.
        most: The maximum width of each in characters.

    Returns:
        The names, each shortened. If one is too long, the prefix that all share is left out first, up to its
        last separator. Different names that are then alike are numbered.
    """
    too_long = len(names) > 1 and max(map(cell_len, names)) > most
    shared = os.path.commonprefix(names) if too_long else ""  # noqa: RUF071
    shared = shared[: max(map(shared.rfind, "./ _-")) + 1]
    alike: dict[str, list[str]] = {}
    labels = []
    for name in names:
        label = shortened(f"…{name[len(shared) :]}" if shared else name, most)
        others = alike.setdefault(label, [])
        if name not in others:
            others.append(name)
        number = others.index(name) + 1
        labels.append(f"{label} ({number})" if number > 1 else label)
    return labels


def ascii_tag(text: str) -> str:
    """Turn a name into printable ASCII, for the tags of Ray's metrics.

    Args:
        text: A name, of a run or an arm.

    Returns:
        The name itself if it is printable ASCII of at most MAX_TAG characters. Otherwise its nearest ASCII
        letters and six digits of its hash, which keep similar names apart.
    """
    if text.isascii() and text.isprintable() and len(text) <= MAX_TAG:
        return text
    plain = unicodedata.normalize("NFKD", text.replace("ß", "ss"))
    letters = "".join(letter for letter in plain if not unicodedata.combining(letter))
    tag = "".join(letter if letter.isascii() and letter.isprintable() else "_" for letter in letters)
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{tag[: MAX_TAG - 7]}-{digest[:6]}"


def spreadsheet_cell(text: str) -> str:
    """A text for a CSV file; an apostrophe goes before what a spreadsheet would compute."""
    return f"'{text}" if FORMULA.match(text) else text


def from_spreadsheet_cell(text: str) -> str:
    """The text of which `spreadsheet_cell` made a cell."""
    return text[1:] if text.startswith("'") and FORMULA.match(text) else text


def _letters(text: str) -> list[str]:
    """The letters of a text, each with the marks that are drawn on it."""
    letters: list[str] = []
    for letter in text:
        if letters and (cell_len(letter) == 0 or letters[-1].endswith(JOINER)):
            letters[-1] += letter
        else:
            letters.append(letter)
    return letters


def _fitting(letters: Iterable[str], most: int, reverse: bool = False) -> str:
    """The first letters that are no wider than `most`; the order is turned round at the end if `reverse`."""
    fitting, width = list[str](), 0
    for letter in letters:
        width += cell_len(letter)
        if width > most:
            break
        fitting.append(letter)
    return "".join(reversed(fitting) if reverse else fitting)


def _is_control(letter: str) -> bool:
    return unicodedata.category(letter) in CONTROL_CATEGORIES or letter in DIRECTION_MARKS


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")
