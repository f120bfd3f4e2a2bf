"""Users' names as labels: on one line, shortened, or in ASCII for metrics. Files keep the original names."""

import hashlib
import os
import unicodedata
from collections.abc import Sequence

# Unicode categories that break a line or move the cursor: control characters, lone surrogates, line and
# paragraph separators.
CONTROL_CATEGORIES = ("Cc", "Cs", "Zl", "Zp")
# Marks of text direction, which also reverse the text after them.
DIRECTION_MARKS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def one_line(text: str) -> str:
    """Escape control characters, such as a newline to `\\n`, so that the text stays on one line."""
    return "".join(_escape(letter) if _is_control(letter) else letter for letter in text)


def shortened(text: str, most: int) -> str:
    """Shorten a text to one line of a maximum length.

    Args:
        text: Any text.
        most: The maximum number of characters.

    Returns:
        The text, or its beginning and its end with an ellipsis between them.
    """
    text = one_line(text)
    if len(text) <= most:
        return text
    return f"{text[: most - most // 2 - 1]}…{text[len(text) - most // 2 :]}"


def shortened_alike(names: Sequence[str], most: int) -> list[str]:
    """Shorten names that are shown side by side.

    Args:
        names: The names.
        most: The maximum number of characters of each.

    Returns:
        The names, each shortened. If one is too long, the prefix that all share is left out first, up to its
        last separator.
    """
    too_long = len(names) > 1 and max(map(len, names)) > most
    shared = os.path.commonprefix(names) if too_long else ""  # noqa: RUF071
    shared = shared[: max(map(shared.rfind, "./ _-")) + 1]
    return [shortened(f"…{name[len(shared) :]}" if shared else name, most) for name in names]


def ascii_tag(text: str) -> str:
    """Turn a name into ASCII, for the tags of Ray's metrics.

    Args:
        text: A name, of a run or an arm.

    Returns:
        The name itself if it is ASCII. Otherwise its nearest ASCII letters and six digits of its hash, which
        keep similar names apart.
    """
    if text.isascii():
        return text
    plain = unicodedata.normalize("NFKD", text.replace("ß", "ss"))
    letters = "".join(letter for letter in plain if not unicodedata.combining(letter))
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{letters.encode('ascii', 'replace').decode().replace('?', '_')}-{digest[:6]}"


def _is_control(letter: str) -> bool:
    return unicodedata.category(letter) in CONTROL_CATEGORIES or letter in DIRECTION_MARKS


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")
