"""A study from its question to its front: joins the plan, the cluster and the run's folder."""

import logging
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ablate.config.study_spec import StudySpec, load_study
from ablate.engine.controller import View
from ablate.engine.drive import Session, drive
from ablate.engine.energy_check import check_device, check_energy
from ablate.engine.gate import Check, gate
from ablate.engine.plan import Plan, plan
from ablate.engine.warm_start import adopt, reuse
from ablate.execution import ray_cluster
from ablate.execution.ray_cluster import HERE, Resources
from ablate.models.digests import forget_kept
from ablate.runs.claim import claimed
from ablate.runs.provenance import provenance
from ablate.runs.run import Run, create_run
from ablate.runs.same_study import study_fields
from ablate.tracking.destination import installed
from ablate.training.checkpoint_store import Storage
from ablate.training.trainer import resolve

log = logging.getLogger(__name__)


def run_study(
    study: StudySpec | str | Path,
    out: str | Path | None = None,
    *,
    known: Sequence[Path] = (),
    resources: Resources = HERE,
    view: View | None = None,
    track: Sequence[str] = (),
) -> Run:
    """Search the study's space, or train its design.

    What fails in a trial is in the trial's record.

    Args:
        study: A spec, a built-in name or the path of a TOML file.
        out: The run's folder, new or empty; by default a new one below runs/. It is claimed first, and left
            as it was when the study does not begin.
        known: Runs whose trials count as done where they are points of the study. The study's own trials come
            on top of them.
        resources: Which Ray, and what a trial may use of it.
        view: Is called once a second with the run's state and its records. One that raises is dropped.
        track: Trackers that follow the ledger: "mlflow", "tensorboard" or "wandb", each with a place after a
            colon or without. One that fails stops nothing.

    Returns:
        The finished run: its ledger, its front and its figures.

    Raises:
        BadInput: The study cannot begin.
        AblateError: The study fails; the message says how to continue.
        Interrupted: Ctrl-C ended the study; the message says how to continue.
    """
    study = study if isinstance(study, StudySpec) else load_study(str(study))
    destinations = [installed(text) for text in track]
    with claimed(out, re.sub(r"[^\w.-]+", "-", study.space.name or study.name)) as path:
        ray_cluster.check_address(resources.address)
        check_energy(study, resources)
        storage = Storage.tried(resources.storage) if resources.storage else None
        forget_kept()  # of a run that this process has resumed
        planned = plan(study)
        checks = gate(planned)
        with ray_cluster.connected(resources) as (dashboard, resources):
            check_energy(study, resources, on_cluster=True)
            planned = _with_recipe_of_cluster(study, planned, resources)
            planned, reused = reuse(known, planned)
            check_device(study, [record for record, _ in reused.values()], resources)
            adopt(path, reused)
            run = create_run(path, planned.study, provenance() | _contents(planned, checks))
            for check in checks:
                if check.notable:
                    log.warning("%s: %s.", check.about.capitalize(), check.found)
            with ray_cluster.writer_for(path) as writer:
                session = Session(writer, storage, resources, dashboard, view, destinations)
                return drive(run, planned, [record for record, _ in reused.values()], session)


def _with_recipe_of_cluster(study: StudySpec, planned: Plan, resources: Resources) -> Plan:
    """The plan with bf16 = "auto" decided by the hardware of the trials, not by that of the driver."""
    if not resources.address or study.recipe.bf16 != "auto":
        return planned
    recipe = ray_cluster.run_on_worker(resources, resolve, study.recipe)
    if recipe == planned.study.recipe:
        return planned
    return plan(study.model_copy(update={"recipe": recipe}))


def _contents(planned: Plan, checks: Sequence[Check]) -> dict[str, Any]:
    """What provenance.json says of the study's contents."""
    return {
        **planned.contents,
        "classes": list(planned.dataset.classes),
        "layer_groups": planned.search.groups,
        "checks": [asdict(check) for check in checks],
        "study": study_fields(planned.study),
    }
