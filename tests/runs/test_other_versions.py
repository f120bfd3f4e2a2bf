"""What another version of ablate or transformers left in a run's folder is read, or called what it is."""

import json
from importlib.metadata import version

import pytest

from ablate.config.search_space import load_space
from ablate.config.study_spec import StudySpec
from ablate.errors import BadInput
from ablate.reporting.html_provenance import provenance_terms
from ablate.runs.provenance import add_resume, check_contents
from ablate.runs.provenance_file import read_provenance
from ablate.runs.run import Run, create_run

NOW = version("ablate-vit")


@pytest.fixture
def run(tmp_path):
    return create_run(tmp_path / "run", StudySpec(question="?", space=load_space("layers_bits")), {})


def provenance(run, content):
    text = content if isinstance(content, str) else json.dumps(content)
    (run.path / "provenance.json").write_text(text)


def test_a_study_that_this_version_cannot_read_is_called_another_ones(run):
    study = run.path / "study.toml"
    study.write_text('sharpness = "high"\n' + study.read_text())
    for known, told in (
        ({}, r"unknown key 'sharpness'[^(]*$"),
        ({"versions": {"ablate-vit": NOW}}, r"unknown key 'sharpness'[^(]*$"),
        (
            {"versions": {"ablate-vit": "9.0"}},
            rf"the run is of ablate 9\.0, and this is {NOW}: use that one\)$",
        ),
        (
            {"versions": {"ablate-vit": NOW}, "resumed": [{"versions": {"ablate-vit": "9.1"}}]},
            r"of ablate 9\.1,",
        ),
    ):
        provenance(run, known)
        with pytest.raises(BadInput, match=told):
            _ = Run(run.path).study


@pytest.mark.parametrize(
    "known", ["[]", "[1]", "3", "{", '<<<<<<< HEAD\n{"a": 1}', {"versions": 3, "resumed": [3]}]
)
def test_a_provenance_of_another_kind_is_passed_over(known, run):
    provenance(run, known)
    before = (run.path / "provenance.json").read_bytes()
    check_contents(run.path, {"model_sha256": "0"})
    add_resume(run.path, {"model_sha256": "0"})
    after = read_provenance(run.path)
    assert after["model_sha256"] == "0" and after["resumed"][-1]["versions"]["ablate-vit"] == NOW
    if not isinstance(known, dict):
        assert (run.path / "unreadable-provenance.json").read_bytes() == before


def test_what_a_newer_version_added_to_the_provenance_is_kept(run):
    provenance(run, {"model_sha256": "1", "energy": {"joules": 3}})
    add_resume(run.path, {"model_sha256": "2"})
    assert read_provenance(run.path)["energy"] == {"joules": 3}
    assert read_provenance(run.path)["model_sha256"] == "1"


def test_both_versions_are_named_where_a_model_has_another_digest(run):
    now = version("transformers")
    for then, told in (
        (now, "or begin a new run$"),
        ("5.0.0", f"if nothing was changed, resume with transformers 5.0.0, since this is {now}$"),
    ):
        provenance(run, {"model_sha256": "1" * 64, "versions": {"transformers": then}})
        with pytest.raises(BadInput, match=told):
            check_contents(run.path, {"model_sha256": "2" * 64})


def test_a_state_of_another_version_is_filled_up_or_passed_over(run):
    state = run.path / "state.json"
    state.write_text(json.dumps({"counts": {}, "pid": 3, "joules": 3.5}))
    assert {"pid": 3, "joules": 3.5, "host": "", "running": []}.items() <= run.state.items()
    assert not run.driven_elsewhere
    for other in ({"counts": 3}, {"counts": {}, "heartbeat": "now"}, {"counts": {}, "running": 3}, []):
        state.write_text(json.dumps(other))
        assert run.state == {}


@pytest.mark.parametrize(
    ("dirty", "said"),
    [
        ({"git_dirty": False}, "abc"),
        ({"git_dirty": True}, "abc with changes that are not committed"),
        ({"git_dirty": None}, "abc and perhaps changes that are not committed"),
        ({}, "abc and perhaps changes that are not committed"),
    ],
)
def test_a_commit_is_not_named_alone_where_there_were_changes(dirty, said, run):
    provenance(
        run, {"git_commit": "abc", **dirty, "resumed": [{"started_at": "then", "git_commit": "abc", **dirty}]}
    )
    terms = provenance_terms(run)
    assert terms["commit"] == said and terms["resumed"] == f"then at commit {said}"
