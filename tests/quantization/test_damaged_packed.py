"""Packed models whose files were damaged are refused, whatever the damage."""

import pytest
from forgery import FILES, fuzz, intact, refused
from hypothesis import given
from hypothesis import strategies as st

from ablate import load_packed
from ablate.errors import BadInput


@pytest.fixture(scope="module")
def good(tiny_vit, tmp_path_factory):
    return intact(tiny_vit, tmp_path_factory.mktemp("good"))


@fuzz
@given(file=st.sampled_from(FILES), where=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_flipped_bytes_are_refused(good, tmp_path, file, where, flip):
    content = bytearray(good[file])
    content[int(where * len(content))] ^= flip
    refused(tmp_path, good | {file: bytes(content)})


@pytest.mark.long
@fuzz
@given(file=st.sampled_from(FILES), where=st.floats(0, 1, exclude_max=True), tail=st.binary(max_size=9))
def test_truncated_and_continued_files_are_refused(good, tmp_path, file, where, tail):
    whole = good[file]
    header = 8 + int.from_bytes(good["model.safetensors"][:8], "little")
    for end in {0, 1, 7, 8, 9, header - 1, header, header + 1, int(where * len(whole)), len(whole) - 1}:
        if end < len(whole):
            refused(tmp_path, good | {file: whole[:end]})
    refused(tmp_path, good | {file: whole + b" " + tail})


@fuzz
@given(file=st.sampled_from(FILES), content=st.binary(max_size=300))
def test_foreign_files_are_refused(good, tmp_path, file, content):
    refused(tmp_path, good | {file: content})


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"null",
        b"{" * 10**6,
        b"[" * 10**6,
        b'{"format":1,"format":1}',
        b'{"format": 1}',
        b'{"format":NaN}',
        b'{"format":1e999}',
        b'{"format":' + b"9" * 10**5 + b"}",
        b"\xff\xfe",
        b" " * (2**24 + 1),
    ],
)
def test_hostile_json_is_refused(text, good, tmp_path):
    refused(tmp_path, good | {"config.json": text})


def test_paths_that_are_not_files(good, tmp_path):
    for folder in (tmp_path / "absent", "/dev/null", "a\0b"):
        with pytest.raises(BadInput):
            load_packed(folder)
    (tmp_path / "config.json").mkdir()
    with pytest.raises(BadInput, match="there is no such file"):
        load_packed(tmp_path)
