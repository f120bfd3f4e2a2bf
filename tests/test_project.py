"""What the project says of itself: metadata, citation, workflows and the documentation site."""

import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PYPROJECT = (ROOT / "pyproject.toml").read_text()
PROJECT = tomllib.loads(PYPROJECT)["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
RUN = re.compile(r"^make ([a-z-]+)$")


def test_the_version_and_the_licence_are_said_once():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])
    assert citation["title"] in (ROOT / "README.md").read_text()
    [paper] = citation["references"]
    assert [author["family-names"] for author in paper["authors"]] == ["Liu", "Fuh"]
    assert f'"{paper["title"]}"' in (ROOT / "docs" / "paper.md").read_text()


def test_the_urls_are_those_of_the_repository_that_publishes():
    with_urls = runpy.run_path(str(ROOT / ".ci" / "project_urls.py"))["with_urls"]
    project = tomllib.loads(with_urls(PYPROJECT, "https://example.org/us/ablate"))["project"]
    assert project.pop("urls")["Issues"] == "https://example.org/us/ablate/issues" and project == PROJECT


@pytest.mark.long
@pytest.mark.parametrize(("schema", "files"), [
    ("vendor.github-workflows", WORKFLOWS),
    ("vendor.citation-file-format", [ROOT / "CITATION.cff"]),
])  # fmt: skip
def test_files_are_valid_by_their_schemas(schema, files):
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert len(files) in (1, 3) and done.returncode == 0, done.stdout + done.stderr


def test_workflows_call_targets_that_exist_and_every_python_is_tested():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    jobs = {name: job for path in WORKFLOWS for name, job in yaml.safe_load(path.read_text())["jobs"].items()}
    commands = [step.get("run", "") for job in jobs.values() for step in job["steps"]]
    called = {found[1] for command in commands if (found := RUN.match(command))}
    assert called == {"check", "test", "test-slow"} and called <= targets
    tested = jobs["check"]["strategy"]["matrix"]["python"]
    assert {f"Programming Language :: Python :: {python}" for python in tested} <= {*PROJECT["classifiers"]}
    assert (
        jobs["publish"]["permissions"] == {"id-token": "write"} and jobs["publish"]["environment"] == "pypi"
    )


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_its_links_lead_somewhere(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = [page for page in tmp_path.rglob("*.html") if page.name != "404.html"]
    assert len(pages) == len([*(ROOT / "docs").glob("*.md")]) + 4  # home, contributing, changes, Python
    for page in pages:
        links = re.findall(r'(?:href|src)="([^"#?]+)[^"]*"', page.read_text())
        inside = [unquote(link) for link in links if not re.match("[a-z]+:|//", link)]
        assert [link for link in inside if not (page.parent / link).exists()] == [], page
    reference = (tmp_path / "python" / "index.html").read_text()
    assert "quantize_" in reference and "recorded_precisions" in reference
