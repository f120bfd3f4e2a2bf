"""A new folder is whole or not there."""

import pytest

from ablate.files import new_folder


def test_a_new_folder_appears_whole(tmp_path):
    target = tmp_path / "deep" / "folder"
    with new_folder(target) as part:
        (part / "file").write_text("1")
        assert not target.exists() and part.parent == target.parent
    assert (target / "file").read_text() == "1" and [*target.parent.iterdir()] == [target]


@pytest.mark.parametrize("ended_by", [KeyboardInterrupt, OSError])
def test_a_failure_leaves_nothing(ended_by, tmp_path):
    with pytest.raises(ended_by), new_folder(tmp_path / "folder") as part:
        (part / "file").write_text("1")
        raise ended_by
    assert not [*tmp_path.iterdir()]


def test_a_folder_that_another_process_made_meanwhile_stays(tmp_path):
    target = tmp_path / "folder"
    with pytest.raises(OSError, match="not empty"), new_folder(target):
        target.mkdir()
        (target / "theirs").write_text("2")
    assert [*tmp_path.iterdir()] == [target] and (target / "theirs").read_text() == "2"
