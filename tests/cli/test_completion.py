"""Shell completion, in a real bash."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ablate.config import builtin

ROOT = Path(__file__).parents[2]
# Completes the last word of a command as bash does, and prints what it offers.
COMPLETE = """
source completion.sh
COMP_WORDS=("$@")
COMP_CWORD=$(( $# - 1 ))
"$(complete -p ablate | sed 's/.*-F \\([^ ]*\\) .*/\\1/')" ablate
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def bash(tmp_path_factory):
    """A function that completes the last of some words. `ablate` says on standard error if torch came in."""
    if not shutil.which("bash"):
        pytest.skip("there is no bash")
    folder = tmp_path_factory.mktemp("shell")
    script = folder / "ablate"
    script.write_text(f"""#!{sys.executable}
import atexit, sys
sys.path.insert(0, {str(ROOT)!r})
from ablate.cli.main import main
atexit.register(lambda: print(*({{"torch", "ray"}} & set(sys.modules)), end="", file=sys.stderr))
main()
""")
    script.chmod(0o755)
    environment = {"PATH": f"{folder}:/usr/bin:/bin", "HOME": str(folder), "SHELL": shutil.which("bash")}
    (folder / "runs" / "first").mkdir(parents=True)
    (folder / "runs" / "first" / "study.toml").touch()
    (folder / "runs" / "other").mkdir()
    shown = {**environment, "_ABLATE_COMPLETE": "source_bash"}
    source = subprocess.run(["ablate"], cwd=folder, env=shown, capture_output=True, text=True, check=True)
    (folder / "completion.sh").write_text(source.stdout)

    def complete(*words):
        command = ["bash", "--norc", "-c", COMPLETE, "complete", "ablate", *words]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.split()

    return complete


@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["se"], ["sensitivity"]),
        (["study", "lad"], ["ladder"]),
        (["study", "--space", ""], builtin.names("search_spaces")),
        (["study", "--space", "="], builtin.names("search_spaces")),
        (["study", "--model", "vgg"], ["vgg16", "vgg16:random", "vgg16-32"]),
        (["sensitivity", "--data", "cifar10-"], ["cifar10-1k", "cifar10-mini"]),
        (["study", "--data", "image"], ["imagefolder:"]),
        (["study", "ladder", "--sampl"], ["--sampler"]),
        (["study", "--sampler", "ns"], ["nsga2"]),
        (["resume", ""], ["runs/first"]),
        (["resume", "elsewhere/"], []),  # bash completes files then
    ],
    ids=lambda value: " ".join(value),
)
def test_bash_completes(bash, words, expected):
    assert sorted(bash(*words)) == sorted(expected)
