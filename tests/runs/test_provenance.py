"""Where numbers come from: the commit of a checkout, and whether its code was changed since."""

import os
import subprocess

import pytest

from ablate.runs.provenance import checkout

NOTHING = {"git_commit": None, "git_dirty": None}


@pytest.fixture
def root(tmp_path):
    """A checkout with one commit, and the commit."""
    (tmp_path / "ablate").mkdir()
    (tmp_path / "ablate" / "a.py").write_text("a = 1\n")

    def git(*arguments):
        who = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
        return subprocess.run(
            ["git", "-C", tmp_path, *who, *arguments], capture_output=True, text=True, check=True
        ).stdout

    git("init", "--quiet")
    git("add", "-A")
    git("commit", "--quiet", "-m", "one")
    return tmp_path, git("rev-parse", "HEAD").strip()


def test_changes_of_the_code_are_told(root):
    path, commit = root
    assert checkout(path) == {"git_commit": commit, "git_dirty": False}
    (path / "results.txt").touch()  # no part of the package
    assert checkout(path)["git_dirty"] is False
    (path / "ablate" / "a.py").write_text("a = 2\n")
    assert checkout(path) == {"git_commit": commit, "git_dirty": True}
    (path / "ablate" / "a.py").write_text("a = 1\n")
    (path / "ablate" / "b.py").touch()
    assert checkout(path)["git_dirty"] is True


def test_another_checkout_in_the_environment_is_not_ours(root, monkeypatch):
    monkeypatch.setenv("GIT_DIR", str(root[0] / "nowhere"))
    assert checkout(root[0])["git_commit"] == root[1]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a folder away")
def test_the_checkout_of_another_user(root):
    for file in (root[0], *root[0].rglob("*")):
        os.chown(file, 12345, 12345)
    assert checkout(root[0]) == {"git_commit": root[1], "git_dirty": False}


def test_where_nothing_is_known(root, tmp_path_factory, monkeypatch):
    assert checkout(tmp_path_factory.mktemp("installed")) == NOTHING
    (gone := tmp_path_factory.mktemp("gone")).joinpath(".git").write_text("gitdir: /nowhere\n")
    assert checkout(gone) == NOTHING
    monkeypatch.setenv("PATH", "")
    assert checkout(root[0]) == NOTHING
