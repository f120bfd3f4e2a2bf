"""Users' names where not every letter may stand, and the folder of a Ray that takes but short paths."""

import os
import sys
import tempfile
from pathlib import Path

import pytest

from ablate.execution.ray_folder import SHORT, ray_folder
from ablate.labels import ascii_tag, one_line, shortened, shortened_alike, wrapped

NAMES = ["größe", "grösse", "grosse", "名前", "名字", "a😀", "a\udcff", "naïve", "naive", "ß", ""]


def test_a_tag_of_a_metric_is_ascii_readable_and_of_one_name_only():
    tags = [ascii_tag(name) for name in NAMES]
    assert all(tag.isascii() for tag in tags) and len(set(tags)) == len(NAMES)
    assert ascii_tag("run-1 [b]") == "run-1 [b]"
    assert ascii_tag("größe").startswith("grosse-") and ascii_tag("naïve").startswith("naive-")


def test_one_line_shows_what_would_move_the_cursor_and_keeps_all_else():
    assert one_line("a\nb\tc\x1b[31m\u202e\udcff") == r"a\nb\tc\x1b[31m\u202e\udcff"
    for text in ("größe 名前 مرحبا", "👩\u200d🔬", "$x_1$ [b] <i> \\frac"):
        assert one_line(text) == text


def test_shortened_names_that_are_alike_are_numbered():
    long = [f"{'a' * 40}{i}{'b' * 40}" for i in range(3)]
    assert shortened_alike([*long, long[1]], 9) == [
        "aaaa…bbbb",
        "aaaa…bbbb (2)",
        "aaaa…bbbb (3)",
        "aaaa…bbbb (2)",
    ]


def test_wide_letters_count_twice_and_marks_stay_with_their_letter():
    assert shortened("猫" * 9, 9) == "猫猫…猫猫" and shortened("e\u0301" * 9, 3) == "e\u0301…e\u0301"
    assert shortened("👩\u200d🔬" * 9, 9).count("\u200d") == 4
    assert wrapped("a猫 on 犬犬犬犬犬 b", 6) == "a猫 on\n犬犬犬\n犬犬 b" and wrapped("a  b", 9) == "a  b"


def test_a_shortened_name_keeps_both_ends():
    assert shortened("block0.fc1", 10) == "block0.fc1"
    assert shortened("a very long name", 9) == "a ve…name" and len(shortened("x" * 60, 28)) == 28
    long = [f"a.model.of.many.parts.encoder.block{i}.fc1" for i in range(3)]
    assert shortened_alike(long, 28) == ["…block0.fc1", "…block1.fc1", "…block2.fc1"]
    assert (
        shortened_alike(["block0.fc1", "block1.fc1"], 28) == ["block0.fc1", "block1.fc1"]
        and shortened_alike([], 28) == []
    )


def test_the_long_tmpdir_of_a_mac_is_replaced_in_silence(tmp_path, monkeypatch, logged):
    (folder := tmp_path / ("x" * 60)).mkdir()
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(sys, "platform", "darwin")
    with ray_folder() as found:
        assert found == SHORT and os.environ["TMPDIR"] == str(SHORT.parent)
    assert os.environ["TMPDIR"] == str(folder) and not logged()


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("{}", ""),
        ("{}/" + "x" * 60, "107 are the most"),
        ("{}/größe", "not ASCII"),
        ("absent/x", "written"),
        (".", "absolute"),
    ],
)
def test_ray_has_a_folder_whose_paths_it_takes(name, fault, monkeypatch, logged):
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        folder = Path(name.format(short))
        if name != "absent/x":
            folder.mkdir(exist_ok=True)
        monkeypatch.delenv("RAY_TMPDIR", raising=False)
        monkeypatch.setenv("TMPDIR", str(folder) if name != "absent/x" else f"{short}/absent")
        with ray_folder() as found:
            assert found == (SHORT if fault else folder / "ray") and os.environ["TMPDIR"] == str(found.parent)
        said = logged()
        assert os.environ["TMPDIR"] != str(SHORT.parent)
        assert said.count("\n") == bool(fault) and fault in said and said.startswith("TMPDIR " * bool(fault))
        monkeypatch.setenv("RAY_TMPDIR", short)  # which goes before
        with ray_folder() as found:
            assert found == Path(short) / "ray" and os.environ["TMPDIR"] == (
                str(SHORT.parent) if fault else str(folder)
            )
