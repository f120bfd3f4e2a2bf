"""Letters in figures: of the figures' own font, of another, or a number in place of those that none has."""

import os
import subprocess
import sys
import warnings

import hostile_names
import matplotlib
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.text import Text

from ablate.labels import one_line
from ablate.paper_figures import fonts
from ablate.paper_figures.style import figure, named, set_title


@pytest.fixture
def installed(monkeypatch):
    """Only the figures' own font is installed. Returns the fonts, to which others can be added."""
    manager = font_manager.fontManager
    monkeypatch.setattr(manager, "ttflist", [e for e in manager.ttflist if e.name == fonts.FAMILY])
    monkeypatch.setattr(font_manager, "findSystemFonts", list)
    for cached in (fonts._fallbacks, fonts._find_new_fonts):
        cached.cache_clear()
    yield manager
    fonts._fallbacks.cache_clear()
    manager._findfont_cached.cache_clear()


def make_font(path, letters, empty=""):
    """A font with a square for each letter, and nothing for those that are empty."""
    names = {letter: f"u{ord(letter):x}" for letter in letters + empty}
    builder = FontBuilder(1000)
    builder.setupGlyphOrder([".notdef", *names.values()])
    builder.setupCharacterMap({ord(letter): name for letter, name in names.items()})
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 700), (700, 700), (700, 0)):
        pen.lineTo(corner)
    pen.closePath()
    square, nothing = pen.glyph(), TTGlyphPen(None).glyph()
    outlines = {names[letter]: square if letter in letters else nothing for letter in names}
    builder.setupGlyf({".notdef": nothing, **outlines})
    builder.setupHorizontalMetrics(dict.fromkeys([".notdef", *names.values()], (800, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": path.stem, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return path


def drawn(names, title=""):
    """The texts at the axis of a figure, and those of all of it, when it is saved."""
    canvas = Figure(layout="constrained")
    axes = canvas.subplots()
    with matplotlib.rc_context(matplotlib.rcParamsDefault | {"text.parse_math": False}), fonts.numbered():
        named(axes.xaxis, names)
        set_title(axes, title)
        fonts.fit(canvas)
        with warnings.catch_warnings(action="error"):
            canvas.draw_without_rendering()
    return [label.get_text() for label in axes.get_xticklabels()], canvas.findobj(Text)


def test_letters_of_another_font_are_drawn_with_it(installed, tmp_path, logged):
    installed.addfont(make_font(tmp_path / "Squares.ttf", "猫犬"))
    installed.addfont(make_font(tmp_path / "Hollow.ttf", "犬", empty="猫鳥"))
    labels, texts = drawn(["a 猫", "犬", "größe"], "猫")
    assert labels == ["a 猫", "犬", "größe"] and not logged()
    assert all(text.get_fontfamily() == [fonts.FAMILY, "Squares"] for text in texts)
    assert drawn(["鳥"])[0] == ["[1]"]  # whose glyph is empty


def test_a_font_that_was_installed_later_is_found(installed, tmp_path, monkeypatch):
    path = str(make_font(tmp_path / "Later.ttf", "猫"))
    (tmp_path / "broken.ttf").write_bytes(b"")
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [path, str(tmp_path / "broken.ttf")])
    assert drawn(["猫"])[0] == ["猫"]


def test_letters_that_no_font_has_are_numbers_and_one_sentence(installed, tmp_path, logged):
    with fonts.numbered():
        assert drawn(["猫", "黑 猫 x", "犬\U000e0100", "a"], "data: 猫")[0] == ["[1]", "[2] x", "[3]", "a"]
        assert drawn(["犬", "鳥"])[0] == ["[3]", "[4]"]  # the same in all figures
        assert not logged()
    said = logged()
    assert said.count("\n") == 1 and "[1] for 猫, [2] for 黑 猫, [3] for 犬, [4] for 鳥;" in said
    for path in (tmp_path / "a", tmp_path / "b"):
        with figure(path) as axes:
            named(axes.yaxis, ["猫", "犬"])
    assert (tmp_path / "a.pdf").read_bytes() == (tmp_path / "b.pdf").read_bytes()


@given(st.lists(hostile_names.names, min_size=2, max_size=4, unique_by=one_line))
@settings(
    derandomize=True,
    deadline=None,
    max_examples=12,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_names_are_drawn_and_told_apart(installed, names):
    labels, _ = drawn(names, "\n".join(names))
    assert len(labels) == len(names) and len(set(labels)) == len(labels)


def test_the_users_settings_do_not_change_a_figure(tmp_path):
    odd = {"image.origin": "lower", "savefig.bbox": "tight", "lines.linewidth": 9}
    for path, given_settings in (("a", {}), ("b", odd)):
        with matplotlib.rc_context(given_settings), figure(tmp_path / path) as axes:
            axes.plot([1, 2])
            axes.imshow([[1, 2], [3, 4]])
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.long
@pytest.mark.parametrize(
    ("backend", "settings"), [("Qt4Agg", b""), ("TkAgg", b"\xff"), ("TkAgg", b"axes.grid: True")]
)
def test_no_backend_and_no_setting_of_the_user_matters(backend, settings, tmp_path):
    (tmp_path / "matplotlibrc").write_bytes(settings)
    code = """if True:
        import os, sys
        from pathlib import Path
        from ablate.paper_figures.style import figure, matplotlib
        with figure(Path("drawn")) as axes:
            axes.plot([1, 2])
        assert os.environ["MPLBACKEND"] == sys.argv[1] and os.environ["MATPLOTLIBRC"] == "."
        assert not [name for name in sys.modules if name == "matplotlib.pyplot" or "backend_tk" in name]
        matplotlib.colors, matplotlib.transforms  # parts of the module that was imported
    """
    how = {"cwd": tmp_path, "capture_output": True, "text": True}
    how["env"] = {**os.environ, "MPLBACKEND": backend, "MATPLOTLIBRC": "."}
    done = subprocess.run([sys.executable, "-c", code, backend], **how)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "drawn.png").exists() and (tmp_path / "drawn.pdf").exists()
