"""Users' names where not every letter may stand: on one line, in little room, in metrics. Files keep the true names."""

import hashlib
import os
import unicodedata
from collections.abc import Sequence

BREAKING = (
    "Cc",
    "Cs",
    "Zl",
    "Zp",
)  # Unicode's controls, halves of a pair, separators of lines and of paragraphs
DIRECTIONS = (
    "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # which turn the text that follows as well
)


def one_line(text: str) -> str:
    """Text whose control characters are seen, as `\\n` or `\\x1b`, and do nothing."""
    return "".join(_seen(letter) if _breaks(letter) else letter for letter in text)


def shortened(text: str, most: int) -> str:
    """Text of one line and at most so many letters: of a longer one its beginning and its end."""
    text = one_line(text)
    return text if len(text) <= most else f"{text[: most - most // 2 - 1]}…{text[len(text) - most // 2 :]}"


def shortened_alike(names: Sequence[str], most: int) -> list[str]:
    """Names side by side, shortened; where one is too long, without what all begin with, up to its last dot or space."""
    shared = os.path.commonprefix(names) if len(names) > 1 and max(map(len, names)) > most else ""  # noqa: RUF071
    shared = shared[: max(map(shared.rfind, "./ _-")) + 1]
    return [shortened(f"…{name[len(shared) :]}" if shared else name, most) for name in names]


def ascii_tag(text: str) -> str:
    """A name in ASCII, for Ray's metrics: as it is, or its nearest letters and six digits that tell it from its like."""
    if text.isascii():
        return text
    plain = unicodedata.normalize("NFKD", text.replace("ß", "ss"))
    letters = "".join(letter for letter in plain if not unicodedata.combining(letter))
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{letters.encode('ascii', 'replace').decode().replace('?', '_')}-{digest[:6]}"


def _breaks(letter: str) -> bool:
    return unicodedata.category(letter) in BREAKING or letter in DIRECTIONS


def _seen(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")
