"""What `ablate doctor` examines: the installation, this machine, and what Ray needs of both.

It needs no more than the standard library: what it looks for may be missing.
"""

import base64
import csv
import hashlib
import importlib
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.metadata import Distribution, PackageNotFoundError
from pathlib import Path
from typing import Literal

DISTRIBUTION = "ablate-vit"
NAMESAKE = "ablate"  # an unrelated package on PyPI
REINSTALL = f"pip install --force-reinstall --no-deps {DISTRIBUTION}"
MISSING = "is not installed"
IMPORTED = ("torch", "torchvision", "transformers", "ray")  # builds of these may not fit each other
LEAST_FREE = 100e6  # bytes, for Ray's files
LITTLE_FREE = 2e9
LITTLE_SHARED = 64e6  # bytes of /dev/shm, where Ray keeps what its processes share
CONNECT_SECONDS = 5


@dataclass(frozen=True)
class Finding:
    """What an examination has found.

    Args:
        status: "ok"; "note": it works, but not as well as it could; "broken": something will fail.
        found: In a line.
        mend: What to do about it; "" where there is nothing to do.
    """

    status: Literal["ok", "note", "broken"]
    found: str
    mend: str = ""


def examine() -> list[tuple[str, Finding]]:
    """Examine the installation and this machine.

    Returns:
        What was examined, and what was found. An examination that fails itself is broken.
    """
    return [
        (name, finding) for name, examination in EXAMINATIONS.items() for finding in _findings(examination)
    ]


def _findings(examination: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from examination()
    except Exception as error:
        yield Finding("broken", " ".join(f"{type(error).__name__}: {error}".split()))


def _installation() -> Iterator[Finding]:
    code = Path(__file__).parent.parent
    try:
        distribution = metadata.distribution(DISTRIBUTION)
    except PackageNotFoundError:
        yield Finding(
            "broken", f"{DISTRIBUTION} is not installed; this is a copy in {code}", "pip install --editable ."
        )
        return
    if damaged := list(_damaged(distribution)):
        few = ", ".join(damaged[:3]) + (f" and {len(damaged) - 3} more" if len(damaged) > 3 else "")
        yield Finding(
            "broken", f"{len(damaged)} files are missing or not those of {DISTRIBUTION}: {few}", REINSTALL
        )
    else:
        yield Finding(
            "ok", f"{DISTRIBUTION} {distribution.version}, Python {sys.version.split()[0]}, in {code}"
        )
    try:
        other = metadata.distribution(NAMESAKE)
    except PackageNotFoundError:
        return
    rule = (
        f"the unrelated package {NAMESAKE!r} {other.version} of PyPI writes into the same folder {NAMESAKE}/"
    )
    yield Finding("broken", rule, f"pip uninstall --yes {NAMESAKE} && {REINSTALL}")


def _damaged(distribution: Distribution) -> Iterator[str]:
    """The files of a distribution that are missing, or have another content than it came with."""
    # not `distribution.files`, from which some versions leave out what is missing
    for file, expected, _ in csv.reader((distribution.read_text("RECORD") or "").splitlines()):
        kind, _, value = expected.partition("=")
        if not kind:  # compiled on installation
            continue
        try:
            digest = hashlib.new(kind, Path(str(distribution.locate_file(file))).read_bytes()).digest()
        except OSError:
            yield file
            continue
        if base64.urlsafe_b64encode(digest).decode().rstrip("=") != value:
            yield file


def _versions() -> Iterator[Finding]:
    from packaging.requirements import Requirement

    requirements = [Requirement(text) for text in metadata.requires(DISTRIBUTION) or ()]
    needed = [each for each in requirements if each.marker is None or each.marker.evaluate({"extra": ""})]
    faults = {str(each): fault for each in needed if (fault := _fault(each.name, each.specifier))}
    if faults:
        names = " ".join(f"'{each}'" for each in faults)
        yield Finding("broken", "; ".join(faults.values()), f"pip install --upgrade {names}")
    else:
        yield Finding("ok", f"all {len(needed)} packages that {DISTRIBUTION} needs are there and new enough")
    optional = {f"{each.name}{each.specifier}": each for each in requirements if each not in needed}
    for text, each in optional.items():
        fault = _fault(each.name, each.specifier)
        if fault and not fault.endswith(MISSING):
            found = f"{fault}, which an extra of {DISTRIBUTION} needs"
            yield Finding("note", found, f"pip install --upgrade '{text}'")


def _fault(name: str, specifier: object) -> str:
    """What is wrong with an installed package; "" where nothing is."""
    try:
        version = metadata.version(name)
    except PackageNotFoundError:
        return f"{name} {MISSING}"
    is_met = specifier.contains(version, prereleases=True)  # type: ignore[attr-defined]
    return "" if is_met else f"{name} must be {specifier}, but is {version}"


def _imports() -> Iterator[Finding]:
    broken = False
    for name in IMPORTED:
        try:
            importlib.import_module(name)
        except Exception as error:  # a library of another build may raise anything
            broken = True
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            yield Finding(
                "broken", f"{name} cannot be imported: {reason}", f"pip install --force-reinstall {name}"
            )
    if not broken:
        yield Finding("ok", f"{', '.join(IMPORTED)} can be imported")


def _gpu() -> Iterator[Finding]:
    import torch

    for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        device = torch.cuda.get_device_properties(i)
        capability = f"compute capability {device.major}.{device.minor}"
        yield Finding("ok", f"{device.name}, {device.total_memory / 2**30:.0f} GiB, {capability}")
    if torch.cuda.is_available():
        return
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        yield Finding("ok", "none: trials run on the CPU")
    elif torch.version.cuda is None:
        build = "there is an NVIDIA GPU, but this torch is built for CPUs alone"
        yield Finding("broken", build, "install torch as pytorch.org says for your CUDA")
    else:
        reason = f"there is an NVIDIA GPU, but torch, for CUDA {torch.version.cuda}, cannot use it"
        yield Finding(
            "broken", reason, "see that nvidia-smi works, and that its driver is new enough for this CUDA"
        )


def _cpu() -> Iterator[Finding]:
    import torch

    from ablate.hardware import cpus, memory_bytes

    has = [name for name, value in torch.cpu.get_capabilities().items() if value is True]
    size = f"{cpus()} CPUs and {memory_bytes() / 2**30:.1f} GiB of memory for this process"
    yield Finding("ok", size)
    int8 = [name for name in has if "vnni" in name or name in ("amx_int8", "dotprod", "i8mm")]
    slow = "int8 products have no instructions (VNNI, AMX): packed models are small here, and not fast"
    yield Finding("ok", f"int8 products by {', '.join(int8)}") if int8 else Finding("note", slow)
    bf16 = [name for name in has if "bf16" in name]
    without = 'no bfloat16 instructions: recipes with bf16 = true are slow; bf16 = "auto" takes float32'
    yield Finding("ok", f"bfloat16 by {', '.join(bf16)}") if bf16 else Finding("note", without)


def _ports() -> Iterator[Finding]:
    address = _own_address()
    with socket.socket() as server:
        try:
            server.bind((address, 0))
            server.listen()
            socket.create_connection(server.getsockname(), timeout=CONNECT_SECONDS).close()
        except OSError as error:
            reason = f"Ray's processes talk by TCP at {address}, but a port there cannot be reached: {error}"
            yield Finding("broken", reason, "let this machine's firewall pass connections to itself")
            return
    yield Finding("ok", f"a port at {address} can be reached, by which Ray's processes talk")


def _own_address() -> str:
    """The address that Ray takes for this machine: of the interface that leads to the internet."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("8.8.8.8", 80))  # sends nothing
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def _temporary_folder() -> Iterator[Finding]:
    from ablate.execution.ray_folder import SHORT, folder_fault

    named = {name: Path(os.environ[name]) for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ}
    for name, folder in named.items():
        if reason := folder_fault(folder):
            yield Finding(
                "note",
                f"{name} {reason}: {str(folder)!r}",
                f"Ray keeps its files in {SHORT}; set {name} to another folder",
            )
    folder = next((folder for folder in named.values() if not folder_fault(folder)), SHORT.parent)
    if reason := folder_fault(folder):
        yield Finding("broken", f"{folder} {reason}", "set RAY_TMPDIR to another folder")
        return
    free = shutil.disk_usage(folder).free
    found = f"Ray's files go to {folder}, where {free / 1e9:.1f} GB are free"
    advice = "free some, or set RAY_TMPDIR to another folder"
    if free < LITTLE_FREE:
        yield Finding("broken" if free < LEAST_FREE else "note", found, advice)
    else:
        yield Finding("ok", found)
    if Path("/dev/shm").is_dir() and (shared := shutil.disk_usage("/dev/shm").total) < LITTLE_SHARED:
        yield Finding(
            "note",
            f"/dev/shm has {shared / 1e6:.0f} MB, so Ray shares data by files",
            "docker run --shm-size=2g",
        )


def _folders() -> Iterator[Finding]:
    from ablate.data.cache import cache

    for use, folder, variable in (
        ("downloads and teachers", cache(), "ABLATE_CACHE"),
        ("Ray's key", Path.home(), "HOME"),
    ):
        existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
        try:
            tempfile.TemporaryFile(dir=existing).close()
        except OSError as error:
            reason = f"{folder}, for {use}, cannot be written: {error.strerror}"
            yield Finding("broken", reason, f"set {variable} to another folder")
        else:
            yield Finding(
                "ok",
                f"{folder} can be written, for {use}: {shutil.disk_usage(existing).free / 1e9:.1f} GB free",
            )


def _energy() -> Iterator[Finding]:
    import torch

    from ablate.errors import BadInput
    from ablate.profiling.energy import energy_counter

    try:
        yield Finding(
            "ok", f"the objective energy_mj counts {energy_counter(torch.cuda.is_available()).name}"
        )
    except BadInput as error:
        found, _, mend = str(error).rpartition("; ")
        yield Finding("note", found, mend)


EXAMINATIONS: dict[str, Callable[[], Iterator[Finding]]] = {
    "installation": _installation,
    "versions": _versions,
    "imports": _imports,
    "GPU": _gpu,
    "CPU": _cpu,
    "energy": _energy,
    "Ray's ports": _ports,
    "temporary folder": _temporary_folder,
    "folders": _folders,
}
