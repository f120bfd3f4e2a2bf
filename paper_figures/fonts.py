"""Fonts for letters that the figures' own font lacks, and numbers for letters that no installed font has."""

import logging
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache

from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator

log = logging.getLogger(__name__)
FAMILY = "DejaVu Sans"  # comes with matplotlib
VARIATION_SELECTORS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]")

_numbers: ContextVar[dict[str, int] | None] = ContextVar("numbers", default=None)


@contextmanager
def numbered() -> Iterator[None]:
    """Give letters that no installed font has one number in all figures that are drawn inside.

    At the end a warning says which number stands for which letters.
    """
    if _numbers.get() is not None:  # inside another one, which says it
        yield
        return
    numbers: dict[str, int] = {}
    token = _numbers.set(numbers)
    of_fonts = logging.getLogger("matplotlib.font_manager")
    before = of_fonts.level
    of_fonts.setLevel(logging.ERROR)  # not every font comes in a normal weight
    try:
        yield
    finally:
        of_fonts.setLevel(before)
        _numbers.reset(token)
    if numbers:
        names = ", ".join(f"[{number}] for {letters}" for letters, number in numbers.items())
        log.warning(
            "No installed font has these letters, so the figures show %s; "
            "install a font that has them, such as Noto Sans CJK for Chinese.",
            names,
        )


def fit(canvas: Figure) -> None:
    """Give the texts of a figure fonts that have their letters, before it is laid out.

    Letters that no installed font has become a number in brackets; invisible ones are left out.

    Args:
        canvas: The figure. Call this inside `numbered`.
    """
    axes = [axis for each in canvas.axes for axis in (each.xaxis, each.yaxis)]
    labels = {axis: [label.get_text() for label in axis.get_ticklabels()] for axis in axes}
    texts = canvas.findobj(Text)
    letters = frozenset("".join(text.get_text() for text in texts).replace("\n", ""))
    if not (lacking := letters - _drawn_by(FAMILY, letters)):
        return
    families, absent = _fallbacks(lacking)
    for text in texts:
        text.set_text(_without(text.get_text(), absent))
        text.set_fontfamily([FAMILY, *families])
    for axis, names in labels.items():  # a tick's label is set anew whenever it is drawn
        if isinstance(axis.get_major_locator(), FixedLocator) and absent & {*"".join(names)}:
            axis.set_ticklabels([_without(name, absent) for name in names])


def _without(text: str, absent: frozenset[str]) -> str:
    """A text with a number in place of each run of absent letters, whose words may be apart."""
    invisible = {letter for letter in absent if _is_invisible(letter)}
    text = "".join(letter for letter in text if letter not in invisible)
    if not (absent := absent - invisible):
        return text
    numbers, letter = _numbers.get(), f"[{re.escape(''.join(sorted(absent)))}]"
    assert numbers is not None
    return re.sub(
        f"{letter}+(?: +{letter}+)*",
        lambda found: f"[{numbers.setdefault(found.group(), len(numbers) + 1)}]",
        text,
    )


def _is_invisible(letter: str) -> bool:
    return unicodedata.category(letter) == "Cf" or VARIATION_SELECTORS.match(letter) is not None


@cache
def _fallbacks(letters: frozenset[str]) -> tuple[list[str], frozenset[str]]:
    """As few families as have the letters, sans-serif ones first, and the letters that none has."""
    _find_new_fonts()
    families = sorted({entry.name for entry in font_manager.fontManager.ttflist})
    has = {name: _drawn_by(name, letters) for name in families if "last resort" not in name.lower()}
    chosen: list[str] = []
    while letters:
        best = max(has, key=lambda name: (len(letters & has[name]), "sans" in name.lower()))
        if not letters & has[best]:
            break
        chosen.append(best)
        letters -= has[best]
    return chosen, letters


@cache
def _find_new_fonts() -> None:
    """Add fonts that were installed after matplotlib made its list."""
    manager = font_manager.fontManager
    known = {entry.fname for entry in manager.ttflist}
    for path in sorted({*font_manager.findSystemFonts()} - known):
        with suppress(Exception):  # fonts that matplotlib cannot draw, such as those of coloured bitmaps
            manager.addfont(path)


def _drawn_by(family: str, letters: frozenset[str]) -> frozenset[str]:
    """The letters for which a family has a glyph that is not empty."""
    try:
        font = font_manager.get_font(font_manager.findfont(font_manager.FontProperties(family=[family])))
    except (RuntimeError, OSError):  # a font that was removed, or is none
        return frozenset()
    return frozenset(letter for letter in letters if _has_glyph(font, letter))


def _has_glyph(font: FT2Font, letter: str) -> bool:
    if not font.get_char_index(ord(letter)):
        return False
    if letter.isspace() or unicodedata.category(letter) == "Cf":
        return True
    try:
        return any(font.load_char(ord(letter)).bbox)
    except RuntimeError:
        return False
