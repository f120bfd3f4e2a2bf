"""Whether the energy that a study asks for can be measured, before it begins."""

from collections.abc import Sequence

import torch

from ablate.config.study_spec import StudySpec
from ablate.errors import BadInput
from ablate.execution import ray_cluster
from ablate.execution.ray_cluster import Resources
from ablate.hardware import device_name
from ablate.profiling.energy import energy_counter
from ablate.runs.record import Record


def check_energy(study: StudySpec, resources: Resources, *, on_cluster: bool = False) -> None:
    """Check that a study with the objective energy_mj can measure it, and one trial's alone.

    Args:
        study: The study.
        resources: What it may use.
        on_cluster: Whether Ray is connected, so that a worker of a joined cluster can look. On this machine
            it is looked for before that.

    Raises:
        BadInput: The hardware has no counter that can be read, or several trials would share one.
    """
    if "energy_mj" not in study.objectives or bool(resources.address) != on_cluster:
        return
    asked = resources.gpus_per_trial, resources.concurrency
    if fault := ray_cluster.run_on_worker(resources, _fault, *asked) if on_cluster else _fault(*asked):
        raise BadInput(fault)


def check_device(study: StudySpec, records: Sequence[Record], resources: Resources) -> None:
    """Check that the energies of earlier trials are of the device that the next ones run on.

    Args:
        study: The study.
        records: Of the run so far, or of others.
        resources: What a trial may use, while Ray is connected.

    Raises:
        BadInput: They are not, and so cannot be compared.
    """
    known = {record["device"] for record in records if record.get("energy_mj") is not None}
    if "energy_mj" not in study.objectives or not known:
        return
    if others := known - {here := ray_cluster.run_on_worker(resources, device_name)}:
        rule = "energies of one device alone can be compared"
        own = f"but earlier trials ran on {', '.join(sorted(map(str, others)))} and the next would on {here}"
        raise BadInput(f"{rule}, {own}; go on there, or begin a new study without them")


def _fault(gpus_per_trial: float | None, concurrency: int | None) -> str:
    """Why energy cannot be measured on this machine; "" where it can be."""
    on_gpu = torch.cuda.is_available() and gpus_per_trial != 0
    try:
        energy_counter(on_gpu)
    except BadInput as error:
        return str(error)
    if on_gpu and (gpus_per_trial or 1) < 1:
        rule = "energy_mj needs a GPU for each trial, as its counter counts all that runs on it"
        return f"{rule}, but got {gpus_per_trial:g}; give --gpus-per-trial 1"
    if not on_gpu and concurrency != 1:
        rule = "energy_mj needs one trial at a time, as the counters of a CPU count all that runs on it"
        return f"{rule}, but got {concurrency or 'as many as fit'}; give --concurrency 1"
    return ""
