"""A Ray cluster, started here or joined: what it offers, and the one writer of a run."""

import ipaddress
import logging
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Annotated, Any, Self

import ray
from pydantic import Field, field_validator, model_validator

from ablate.config.trial_spec import Spec
from ablate.errors import AblateError, BadInput, WriteFailed
from ablate.execution.ray_folder import free_space, home_fault, ray_folder
from ablate.hardware import cpus
from ablate.runs.locks import owner
from ablate.runs.writer import Writer

PACKAGE = Path(__file__).parent.parent
CLOSE_SECONDS = 10  # for the writer to end what it writes


class Resources(Spec):
    """What a study and each of its trials may use.

    Attributes:
        address: Of a Ray cluster to join; None: Ray is started on this machine.
        cpus_per_trial: CPUs of a trial.
        gpus_per_trial: GPUs of a trial, a fraction of one where trials share it; None: one where the cluster
            has any.
        concurrency: Trials at once; None: as many as fit.
        minutes_per_trial: A trial that takes longer counts as hung and is ended.
        storage: Folder or URI where the state of unfinished trials is kept; None: after a death they start
            again.
        dashboard_host: The address at which Ray's dashboard answers.
    """

    address: str | None = None
    cpus_per_trial: int = Field(1, ge=1, le=1_000_000)
    gpus_per_trial: Annotated[float, Field(ge=0, le=1_000_000)] | None = None
    concurrency: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    minutes_per_trial: float = Field(120.0, gt=0, le=10_000_000)
    storage: str | None = None
    dashboard_host: str = "127.0.0.1"

    @field_validator("dashboard_host")
    @classmethod
    def _host_is_an_address(cls, host: str) -> str:
        try:
            ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
        except ValueError:
            rule = "dashboard_host must be an IP address of this machine or localhost"
            raise ValueError(f"{rule}, but got {host!r}") from None
        return host

    @model_validator(mode="after")
    def _gpus_are_whole_or_shared(self) -> Self:
        gpus = self.gpus_per_trial
        if gpus is not None and gpus > 1 and gpus != int(gpus):
            rule = "gpus_per_trial must be a whole number or a fraction of one GPU"
            raise ValueError(f"{rule}, but got {gpus:g}")
        if gpus is not None and 0 < gpus < 1e-4:
            raise ValueError(f"gpus_per_trial must be 0 or at least 0.0001, as Ray counts, but got {gpus:g}")
        return self


HERE = Resources()  # Ray is started on this machine


@contextmanager
def connected(resources: Resources) -> Iterator[tuple[str, Resources]]:
    """Start Ray here or join it at an address, for the length of a `with` block.

    A joined cluster gets this package's code with the job, so that its nodes need only the dependencies. If
    this process has called `ray.init` already and no address is given, that Ray is used, and left running.

    Args:
        resources: What the study may use.

    Yields:
        The dashboard's URL, "" where there is none; and the resources without any None that the cluster
        decides.

    Raises:
        BadInput: No Ray answers at the address, or no trial fits a node.
        AblateError: Ray does not start on this machine.
    """
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # failures are in the ledger
    if ray.is_initialized():
        _check_running(resources.address)
        yield _dashboard(ray.init(ignore_reinit_error=True, logging_level="ERROR")), _resolved(resources)
        return
    local = {"include_dashboard": True, "dashboard_host": resources.dashboard_host, "num_cpus": cpus()}
    joined = {"runtime_env": {"py_modules": [str(PACKAGE)]}}
    try:
        with nullcontext() if resources.address else ray_folder() as folder:
            context = ray.init(
                address=resources.address or "local",
                log_to_driver=False,
                logging_level="ERROR",
                **(joined if resources.address else {**local, "_temp_dir": str(folder)}),
            )
    except Exception as error:  # Ray raises many kinds, plain Exception among them
        reason = str(error).strip().partition("\n")[0]
        if resources.address:
            rule = f"--address must be that of a Ray cluster of this version, but {resources.address!r}"
            raise BadInput(f"{rule}: {reason}") from None
        if fault := home_fault(error):
            raise BadInput(fault) from None
        where = f" ({free_space(folder)})" if folder else ""
        raise AblateError(f"Ray did not start on this machine{where}: {reason}") from None
    try:
        yield _dashboard(context), _resolved(resources)
    finally:
        ray.shutdown()


def _check_running(address: str | None) -> None:
    """Raise BadInput where this process is connected to another Ray than the one at an address."""
    running = ray.get_runtime_context().gcs_address
    if address not in (None, "auto", running):
        rule = f"--address must be the Ray that this process is connected to, {running}, but got {address!r}"
        raise BadInput(f"{rule}; leave it out, or call ray.shutdown() before")


def _dashboard(context: Any) -> str:
    """The URL of the dashboard, "" where there is none. context: what `ray.init` returns."""
    return f"http://{context.dashboard_url}" if context.dashboard_url else ""


def _resolved(resources: Resources) -> Resources:
    """The resources with GPUs and concurrency decided by what each node of the cluster has now.

    A joined cluster may grow, so an explicit concurrency is taken as given there.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus, gpus = resources.cpus_per_trial, resources.gpus_per_trial
    if gpus is None:
        gpus = float(any(node.get("GPU", 0) >= 1 for node in nodes))
    fit = sum(_fit(node, cpus, gpus) for node in nodes)
    may_grow = resources.address is not None and resources.concurrency is not None
    if fit < 1 and not may_grow:
        requested = f"--cpus-per-trial {cpus} --gpus-per-trial {gpus:g}"
        largest = " or ".join(f"{n.get('CPU', 0):g} CPUs and {n.get('GPU', 0):g} GPUs" for n in nodes)
        raise BadInput(
            f"a trial must fit a node of the cluster, but {requested} exceeds {largest}; ask for less"
        )
    concurrency = resources.concurrency or fit
    if not may_grow:
        concurrency = min(fit, concurrency)
    return resources.model_copy(update={"gpus_per_trial": gpus, "concurrency": concurrency})


def _fit(node: dict[str, float], cpus: int, gpus: float) -> int:
    """How many trials fit a node at once. One GPU serves a whole number of fractions."""
    has = int(node.get("GPU", 0))
    by_cpu = node.get("CPU", 0) // cpus
    if gpus == 0:
        return int(by_cpu)
    return int(min(by_cpu, has * int(1 / gpus + 1e-9) if gpus < 1 else has // gpus))


def check_address(address: str | None) -> None:
    """Check within seconds that Ray answers at an address; Ray itself would wait for minutes.

    Args:
        address: HOST:PORT or "auto"; None is not checked.

    Raises:
        BadInput: No Ray answers there.
    """
    if address is None:
        return
    if "://" in address:
        job = "ray job submit --address http://HEAD:8265 -- ablate study ..."
        rule = f"--address must be HOST:PORT of a Ray cluster, but got {address!r}"
        raise BadInput(f"{rule}; for a remote driver run `{job}`")
    health = [sys.executable, "-m", "ray.scripts.scripts", "health-check"]
    try:
        if address != "auto":
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=5).close()
            health += ["--address", address]
        subprocess.run(health, timeout=15, check=True, capture_output=True)
    except (OSError, ValueError, OverflowError, subprocess.SubprocessError) as error:
        reason = "no Ray answers there" if isinstance(error, subprocess.SubprocessError) else str(error)
        rule = f"--address must be HOST:PORT of a Ray cluster, but {address!r}"
        raise BadInput(f"{rule}: {reason}; try `ray status`") from None


def writer_of(path: Path) -> Any:
    """Start the actor that alone writes a run's folder, on this node, until Ray is shut down.

    Args:
        path: The run's folder.

    Returns:
        The handle of a `Writer` actor.

    Raises:
        BadInput: Another process writes the folder.
    """
    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )
    writer = ray.remote(Writer).options(num_cpus=0, scheduling_strategy=here).remote(path)
    try:
        ray.get(writer.has.remote(""))
    except ray.exceptions.RayActorError:
        if other := owner(path, "writer"):
            rule = f"a run must have one writer, but {str(path)!r} has another, process {other.pid}"
            raise BadInput(f"{rule}; stop it") from None
        raise
    return writer


@contextmanager
def writer_for(path: Path) -> Iterator[Any]:
    """Start a run's writer, and end it with the `with` block: Ray may go on, and another driver start one.

    Args:
        path: The run's folder.

    Yields:
        The handle of a `Writer` actor.

    Raises:
        BadInput: Another process writes the folder.
    """
    writer = writer_of(path)
    try:
        yield writer
    finally:
        with suppress(Exception):  # Ray may be gone, which is no failure of the run
            ray.get(writer.close.remote(), timeout=CLOSE_SECONDS)  # its process ends only some time later
        with suppress(Exception):
            ray.kill(writer)


def await_write(call: Any) -> None:
    """Wait for a call of the writer.

    Args:
        call: The reference that `writer.method.remote(...)` returned.

    Raises:
        WriteFailed: The writer could not write.
    """
    try:
        ray.get(call)
    except ray.exceptions.RayTaskError as error:
        raise WriteFailed(str(error.cause)) from None


def run_on_worker(
    resources: Resources,
    function: Callable[..., Any],
    *arguments: Any,
    meanwhile: Callable[[], None] | None = None,
) -> Any:
    """Call a function on a worker with a trial's resources, while no trial runs.

    Args:
        resources: What a trial may use.
        function: What is called, and pickled.
        *arguments: Its arguments, of any size.
        meanwhile: Is called here every second until the function returns.

    Returns:
        What the function returns.
    """

    # The arguments are not in the closure, because Ray takes functions of up to 100 MB only.
    def call(*arguments: Any) -> Any:
        import torch

        torch.set_num_threads(resources.cpus_per_trial)
        return function(*arguments)

    remote = ray.remote(call).options(num_cpus=resources.cpus_per_trial, num_gpus=resources.gpus_per_trial)
    result = remote.remote(*arguments)
    while not ray.wait([result], timeout=1)[0]:
        if meanwhile:
            meanwhile()
    return ray.get(result)
