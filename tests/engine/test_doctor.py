"""`ablate doctor` finds what is broken, and says how to mend it."""

import base64
import hashlib
import json
import sys

import pytest
from commands import run_ablate

from ablate.engine import doctor


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A function that installs a distribution of some files and requirements, before those of the machine."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(name, files=(), requires=()):
        lines = []
        for file in files:
            (tmp_path / file).write_text("first\n")
            digest = base64.urlsafe_b64encode(hashlib.sha256(b"first\n").digest()).decode().rstrip("=")
            lines.append(f"{file},sha256={digest},6")
        info = tmp_path / f"{name.replace('-', '_')}-9.9.dist-info"
        info.mkdir()
        needs = "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
        extra = "Provides-Extra: onnx\n"
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9\n{extra}{needs}")
        (info / "RECORD").write_text("\n".join([*lines, "compiled.pyc,,"]))
        return tmp_path

    return install


def found(about):
    """(status, what was found, what to do) of one examination."""
    return [tuple(vars(finding).values()) for finding in doctor._findings(doctor.EXAMINATIONS[about])]


def test_an_intact_installation(installed):
    installed("ablate-vit", ["one.py", "two.py"])
    [(status, text, mend)] = found("installation")
    assert status == "ok" and text.startswith("ablate-vit 9.9, ") and mend == ""


def test_files_that_another_package_has_replaced(installed):
    folder = installed("ablate-vit", ["one.py", "two.py", "three.py"])
    (folder / "one.py").write_text("other\n")
    (folder / "two.py").unlink()
    installed("ablate")
    (damaged, namesake) = found("installation")
    rule = "2 files are missing or not those of ablate-vit: one.py, two.py"
    assert damaged == ("broken", rule, "pip install --force-reinstall --no-deps ablate-vit")
    assert namesake[0] == "broken" and "unrelated package 'ablate' 9.9 of PyPI writes into" in namesake[1]
    assert namesake[2].startswith("pip uninstall --yes ablate && pip install --force-reinstall")


def test_versions_are_compared_with_what_is_needed(installed):
    needs = [
        "numpy>=2",
        "pandas>=999",
        "no-such-thing>=1",
        'scipy>=999; extra == "onnx"',
        'other; extra == "onnx"',
    ]
    installed("ablate-vit", requires=[*needs, 'winonly; sys_platform == "win32"'])
    (needed, optional) = found("versions")
    assert needed[0] == "broken" and "no-such-thing is not installed" in needed[1]
    assert "pandas must be >=999, but is " in needed[1] and "numpy" not in needed[1]
    assert needed[2] == "pip install --upgrade 'pandas>=999' 'no-such-thing>=1'"
    assert (
        optional[0] == "note" and optional[1].startswith("scipy must be >=999") and "an extra" in optional[1]
    )


def test_a_library_that_cannot_be_imported(tmp_path, monkeypatch):
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    [(status, text, _)] = found("imports")
    assert status == "broken" and "torchvision cannot be imported: RuntimeError: operator" in text


def test_an_address_that_cannot_be_reached(monkeypatch):
    monkeypatch.setattr(doctor, "_own_address", lambda: "203.0.113.1")
    [(status, text, mend)] = found("Ray's ports")
    assert status == "broken" and "203.0.113.1" in text and "firewall" in mend


def test_a_temporary_folder_that_ray_cannot_use(tmp_path, monkeypatch):
    deep = tmp_path / ("deep" * 20)
    deep.mkdir()
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(deep))
    (status, text, mend), *rest = found("temporary folder")
    assert status == "note" and "TMPDIR makes the paths of sockets" in text and "/tmp/ray" in mend
    assert any("Ray's files go to /tmp, where" in each for _, each, _ in rest)


def test_a_full_disk(monkeypatch):
    monkeypatch.setattr(doctor, "LEAST_FREE", 1e18)
    monkeypatch.setattr(doctor, "LITTLE_FREE", 1e18)
    [full] = [each for each in found("temporary folder") if "GB are free" in each[1]]
    assert full[0] == "broken" and full[2] == "free some, or set RAY_TMPDIR to another folder"


@pytest.mark.long
def test_the_command_exits_with_1_if_something_is_broken(tmp_path, monkeypatch):
    monkeypatch.setenv("ABLATE_CACHE", "/proc/no/folder")  # nobody can write there
    done = run_ablate(tmp_path, "doctor", "--json")
    assert (
        done.returncode == 1
        and done.stderr.startswith("ablate: something is broken: ")
        and "folders" in done.stderr
    )
    rows = json.loads(done.stdout)
    assert {row["about"] for row in rows} == {*doctor.EXAMINATIONS}
    assert {"status", "found", "mend"} < {*rows[0]} and {row["status"] for row in rows} <= {
        "ok",
        "note",
        "broken",
    }
    [cache] = [row for row in rows if "ABLATE_CACHE" in row["mend"]]
    assert cache["status"] == "broken" and "cannot be written" in cache["found"]
    table = run_ablate(tmp_path, "doctor")
    assert table.returncode == 1 and "set ABLATE_CACHE to another folder" in table.stdout
