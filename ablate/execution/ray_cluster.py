"""A Ray cluster, started here or joined: what it offers, the one writer of a run, and metrics for Prometheus."""

import ipaddress
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any, Self

os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # the ledger is the record
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "1000000000")  # nor is a run restored from Tune's own files
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C is ours
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the live view is ours
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")  # a trial without a GPU sees none
os.environ.setdefault(
    "RAY_OVERRIDE_JOB_RUNTIME_ENV", "1"
)  # a submitted job may have an environment of its own

import ray
from pydantic import Field, field_validator, model_validator
from ray.util.metrics import Gauge, Histogram

from ablate.config.trial_spec import Spec
from ablate.errors import AblateError, BadInput
from ablate.execution.ray_folder import ray_folder, room
from ablate.hardware import cpus
from ablate.labels import ascii_tag
from ablate.runs.locks import owner
from ablate.runs.writer import Writer

Readings = dict[
    str, list[tuple[dict[str, str], float]]
]  # a metric's name -> its values, each with its labels
PACKAGE = Path(__file__).parent.parent
SECONDS = [float(2**i) for i in range(15)]  # of a trial, to 4.5 hours


class Resources(Spec):
    """What a study may use. `concurrency` None: as many trials at once as fit."""

    address: str | None = None
    cpus_per_trial: int = Field(1, ge=1)
    gpus_per_trial: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = (
        None  # None: one where the cluster has any
    )
    concurrency: Annotated[int, Field(ge=1)] | None = None
    minutes_per_trial: float = Field(120.0, gt=0, le=10_000_000)  # then the trial counts as hung and is ended
    storage: str | None = None  # where unfinished trials are kept; None: they start again
    dashboard_host: str = "127.0.0.1"

    @field_validator("dashboard_host")
    @classmethod
    def _host_is_an_address(cls, host: str) -> str:
        try:
            ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
        except ValueError:
            raise ValueError(
                f"dashboard_host must be an IP address of this machine or localhost, but got {host!r}"
            ) from None
        return host

    @model_validator(mode="after")
    def _gpus_are_whole_or_shared(self) -> Self:
        gpus = self.gpus_per_trial
        if gpus is not None and gpus > 1 and gpus != int(gpus):
            raise ValueError(
                f"gpus_per_trial must be a whole number or a fraction of one GPU, but got {gpus:g}"
            )
        return self


HERE = Resources()  # a Ray of our own on this machine


@contextmanager
def connected(resources: Resources) -> Iterator[tuple[str, Resources]]:
    """Within: Ray, started here or joined at the address; (dashboard's URL or "", the resources without any None).

    A joined cluster gets this package's code with the job, so that its nodes need the dependencies alone.
    Raises BadInput when no Ray answers at the address, and when no trial fits; AblateError when Ray does not start here.
    """
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what fails is in the ledger
    here = {"include_dashboard": True, "dashboard_host": resources.dashboard_host, "num_cpus": cpus()}
    there = {"runtime_env": {"py_modules": [str(PACKAGE)]}}
    try:
        with nullcontext() if resources.address else ray_folder() as folder:
            context = ray.init(
                address=resources.address or "local",
                log_to_driver=False,
                logging_level="ERROR",
                **(there if resources.address else here | {"_temp_dir": str(folder)}),
            )
    except Exception as error:  # of Ray's own: it raises many kinds, plain Exception among them
        reason = str(error).strip().partition("\n")[0]
        if resources.address:
            rule = f"--address must be that of a Ray cluster of this version, but {resources.address!r}"
            raise BadInput(f"{rule}: {reason}") from None
        where = f" ({room(folder)})" if folder else ""
        raise AblateError(f"Ray did not start on this machine{where}: {reason}") from None
    try:
        url = f"http://{context.dashboard_url}" if context.dashboard_url else ""
        yield url, _resolved(resources)
    finally:
        ray.shutdown()


def _resolved(resources: Resources) -> Resources:
    """The resources with what was left open decided by what each of the cluster's nodes has now.

    In a joined cluster, which may grow, an explicit concurrency is taken at its word.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    each = resources.gpus_per_trial
    if each is None:
        each = float(any(node.get("GPU", 0) >= 1 for node in nodes))
    fit = sum(_fit(node, resources.cpus_per_trial, each) for node in nodes)
    grows = resources.address is not None and resources.concurrency is not None
    if fit < 1 and not grows:
        asked = f"--cpus-per-trial {resources.cpus_per_trial} --gpus-per-trial {each:g}"
        largest = " or ".join(f"{n.get('CPU', 0):g} CPUs and {n.get('GPU', 0):g} GPUs" for n in nodes)
        raise BadInput(f"a trial must fit a node of the cluster, but {asked} exceeds {largest}; ask for less")
    wanted = resources.concurrency or fit
    return resources.model_copy(
        update={"gpus_per_trial": each, "concurrency": wanted if grows else min(fit, wanted)}
    )


def _fit(node: dict[str, float], cpus: int, gpus: float) -> int:
    """Trials that fit a node at once. One GPU serves a whole number of fractions."""
    has = int(node.get("GPU", 0))
    by_gpu = node.get("CPU", 0) if gpus == 0 else has * int(1 / gpus + 1e-9) if gpus < 1 else has // gpus
    return int(min(node.get("CPU", 0) // cpus, by_gpu))


def check_address(address: str | None) -> None:
    """Raises BadInput within seconds for an address where no Ray answers; Ray itself would wait for minutes."""
    if address is None:
        return
    if "://" in address:
        job = "ray job submit --address http://HEAD:8265 -- ablate study ..."
        raise BadInput(
            f"--address must be HOST:PORT of a Ray cluster, but got {address!r}; for a remote driver run `{job}`"
        )
    health = [sys.executable, "-m", "ray.scripts.scripts", "health-check"]
    try:
        if address != "auto":
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=5).close()
            health += ["--address", address]
        subprocess.run(health, timeout=15, check=True, capture_output=True)
    except (OSError, ValueError, OverflowError, subprocess.SubprocessError) as error:
        reason = "no Ray answers there" if isinstance(error, subprocess.SubprocessError) else str(error)
        raise BadInput(
            f"--address must be HOST:PORT of a Ray cluster, but {address!r}: {reason}; try `ray status`"
        ) from None


def writer_of(path: Path) -> Any:
    """The actor that alone writes a run's folder, on this node, until Ray is left. Raises BadInput where there is another."""
    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )
    writer = ray.remote(Writer).options(num_cpus=0, scheduling_strategy=here).remote(path)
    try:
        ray.get(writer.has.remote(""))
    except ray.exceptions.RayActorError:
        if other := owner(path, "writer"):
            raise BadInput(
                f"a run must have one writer, but {str(path)!r} has another, process {other.pid}; stop it"
            ) from None
        raise
    return writer


def alone(
    resources: Resources,
    function: Callable[..., Any],
    *arguments: Any,
    meanwhile: Callable[[], None] | None = None,
) -> Any:
    """Call a function on a worker with a trial's resources, while no trial runs; `meanwhile` is called every second."""

    def call(*arguments: Any) -> Any:  # not of its closure: Ray takes functions up to 100 MB
        import torch

        torch.set_num_threads(resources.cpus_per_trial)
        return function(*arguments)

    called = (
        ray.remote(call)
        .options(num_cpus=resources.cpus_per_trial, num_gpus=resources.gpus_per_trial)
        .remote(*arguments)
    )
    while not ray.wait([called], timeout=1)[0]:
        if meanwhile:
            meanwhile()
    return ray.get(called)


class Metrics:
    """A run's metrics, which Ray's agents show to Prometheus, with tags in ASCII. Ray must be connected."""

    def __init__(self, gauges: dict[str, tuple[str, tuple[str, ...]]], run: str) -> None:
        self.gauges = {name: Gauge(name, text, ("run", *labels)) for name, (text, labels) in gauges.items()}
        self.seconds = Histogram("ablate_trial_seconds", "Seconds that a trial trained", SECONDS, ("run",))
        self.run = run

    def show(self, readings: Readings) -> None:
        for name, values in readings.items():
            for labels, value in values:
                self.gauges[name].set(
                    value, {key: ascii_tag(text) for key, text in {"run": self.run, **labels}.items()}
                )

    def observe(self, seconds: float) -> None:
        self.seconds.observe(seconds, {"run": ascii_tag(self.run)})
