"""Where the numbers of a report page come from, and the command that makes them again."""

import shlex
from typing import Any

from ablate.config.recipe_values import teachers
from ablate.reporting.run_results import RunResults
from ablate.runs.run import Run


def provenance_terms(run: Run) -> dict[str, str]:
    """Where the numbers of a run come from: a description for each term, or "not known"."""
    known, study = RunResults(run).provenance, run.study
    seeds = f"{study.seed} to {study.seed + study.seeds - 1}, paired" if study.seeds > 1 else f"{study.seed}"
    if study.anchor_seeds > 1:
        seeds += f"; of the anchors {study.seed} to {study.seeds_of_anchors[-1]}"
    terms: dict[str, Any] = {
        "model": study.model,
        "data": study.data,
        "sha256 of the data": known.get("dataset_sha256"),
        "seeds": seeds,
        "commit": _commit(known),
        "started": known.get("started_at"),
    }
    if names := teachers(study):
        terms["teacher"] = ", ".join(names)
    resumed = known.get("resumed")
    if resumes := [each for each in resumed if isinstance(each, dict)] if isinstance(resumed, list) else []:
        texts = [f"{each.get('started_at')} at commit {_commit(each) or 'not known'}" for each in resumes]
        terms["resumed"] = ", ".join(texts)
    terms.update({key: known[key] for key in ("hardware", "versions") if key in known})
    if isinstance(known.get("command"), list):
        terms["started as"] = shlex.join(map(str, known["command"]))
    return {term: _description(value) for term, value in terms.items()}


def _description(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {each}" for name, each in value.items())
    return "not known" if value is None else str(value)


def study_command(run: Run) -> str:
    """The command that runs the same study again, for the folder that holds the run."""
    name = run.path.name
    return f"ablate study {shlex.quote(f'{name}/study.toml')} --out {shlex.quote(f'{name}-again')}"


def _commit(known: dict[str, Any]) -> str | None:
    """The commit of a provenance, and whether there were changes beside it."""
    commit, changed = known.get("git_commit"), known.get("git_dirty")
    if not commit or changed is False:
        return commit
    return f"{commit} {'with' if changed else 'and perhaps'} changes that are not committed"
