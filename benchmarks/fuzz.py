"""Feeds wrong files to everything that reads a user's file, and checks what is accepted against an oracle.

    python benchmarks/fuzz.py --seed 0 --inputs 100000                # all targets
    python benchmarks/fuzz.py --seed 0 --inputs 50000 --target toml

Targets: study and space files with what they propose (toml), ledgers (ledger), packed folders (packed), image
folders (images). An input is a valid file with one field changed, one with bytes changed, or one made from
scratch. It must be refused with BadInput in one line, or read as the oracle reads it, within the time limit.
The first K inputs are the same whatever their number. Every fault is written out, grouped by where it shows,
with the smallest input that shows it. Writes results/fuzz-HARDWARE.json, and the faults to --faults. Needs
pip install --editable '.[test]' coverage.
"""

import argparse
import faulthandler
import json
import os
import platform
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import Any

from fuzz_values import Input, Wrong

HERE = Path(__file__).parent
SHARES = {"toml": 0.5, "ledger": 0.35, "packed": 0.08, "images": 0.07}  # of all inputs
SECONDS = 30  # of CPU, for an input: an image of 133 megapixels is read several times
MEMORY = 4 * 2**30  # bytes beyond what the process has when it begins
LINE = 2000  # characters of a message
PACKAGES = (
    "ablate-vit",
    "pydantic",
    "optuna",
    "pandas",
    "torch",
    "transformers",
    "safetensors",
    "pillow",
    "tomli-w",
)
READERS = {
    "toml": (
        "config/builtin",
        "config/trial_spec",
        "config/search_space",
        "config/study_spec",
        "search/parameter_space",
    ),
    "ledger": ("runs/ledger", "runs/lines"),
    "packed": (
        "quantization/packed_files",
        "quantization/packed_layout",
        "quantization/packed_loading",
        "quantization/bit_packing",
    ),
    "images": ("data/image_folder", "data/decoding", "data/folder_layout", "data/splitting"),
}


class Hang(BaseException):
    """The time limit of an input; no handler of the code that is tested takes it."""


def outcome(target: Any, given: Input, seconds: float = 0) -> str:
    """What became of an input: "accepted", "refused", or where it shows which fault."""
    from ablate.errors import BadInput

    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        target.check(given)
    except BadInput as error:
        text = str(error)
        if len(text) > LINE or "\n" in text or not text.strip():
            problem = "several lines" if "\n" in text else "too many characters" if text.strip() else "none"
            return f"a message of {problem}"
        return "refused"
    except Wrong as error:
        return f"wrong: {error}"
    except (Exception, Hang) as error:
        frames = [
            f for f in traceback.extract_tb(error.__traceback__) if f"{os.sep}ablate{os.sep}" in f.filename
        ]
        where = f"{Path(frames[-1].filename).name}:{frames[-1].name}" if frames else "the harness"
        return f"{type(error).__name__} in {where}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return "accepted"


def shrunk(target: Any, given: Input, fault: str, tries: int = 200) -> Input:
    """A smaller input of the same fault: pieces are taken out as long as it shows."""
    size = max(1, len(given.content) // 2)
    while size and tries:
        for start in range(0, len(given.content), size):
            less = Input(
                given.kind, given.what, given.content[:start] + given.content[start + size :], given.of
            )
            tries -= 1
            if not tries:
                break
            if outcome(target, less, SECONDS) == fault:
                given = less
                break
        else:
            size //= 2
    return given


def inputs(name: str, target: Any, seed: int, count: int) -> Any:
    """The first `count` inputs of a target."""
    for number in range(count):
        yield target.make(number, Random(f"{seed} {name} {number}"))


def fuzz(
    name: str, target: Any, seed: int, count: int, seconds: float = 0
) -> tuple[dict[str, Any], dict[str, Input]]:
    """Counts by kind and by outcome, and each fault's smallest input."""
    begun, slowest = time.process_time(), (0.0, "")
    kinds, ends, faults = Counter[str](), Counter[str](), dict[str, Input]()
    for given in inputs(name, target, seed, count):
        if seconds:  # a wait that takes no CPU, or that no signal ends
            faulthandler.dump_traceback_later(30 * seconds, exit=True)
        started = time.process_time()
        end = outcome(target, given, seconds)
        slowest = max(slowest, (round(time.process_time() - started, 2), given.what))
        kinds[given.kind] += 1
        ends[end if end in ("accepted", "refused") else "faults"] += 1
        if end not in ("accepted", "refused"):
            ends[end] += 1
            if end not in faults:
                print(f"{name}: {end} ({given.kind}: {given.what})", file=sys.stderr, flush=True)
            if end not in faults or len(given.content) < len(faults[end].content):
                faults[end] = given
    found = {"inputs": count, "kinds": dict(sorted(kinds.items()))}
    found |= {end: ends.pop(end, 0) for end in ("accepted", "refused", "faults")}
    found |= {
        "fault_counts": dict(ends),
        "cpu_seconds": round(time.process_time() - begun, 1),
        "slowest": slowest,
    }
    return found, faults


def save(folder: Path, name: str, faults: dict[str, Input]) -> None:
    """Each fault's smallest input as a file, and what it is."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (fault, given) in enumerate(faults.items()):
        (folder / f"{name}-{number}.input").write_bytes(given.content)
        description = {"fault": fault, "kind": given.kind, "what": given.what, "of": repr(given.of)}
        (folder / f"{name}-{number}.json").write_text(json.dumps(description, indent=1) + "\n")


def covered(coverage: Any, name: str) -> dict[str, Any]:
    """Line and branch coverage, in percent, of a target's readers."""
    import ablate

    found = {}
    for module in READERS[name]:
        path = str(Path(ablate.__file__).parent / f"{module}.py")
        numbers = coverage._analyze(path).numbers
        shares = {
            "lines": (numbers.n_executed, numbers.n_statements),
            "branches": (numbers.n_executed_branches, numbers.n_branches),
        }
        found[module] = {
            what: round(100 * done / all_of_them, 1)
            for what, (done, all_of_them) in shares.items()
            if all_of_them
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--inputs", type=int, default=100_000, help="of all targets together")
    parser.add_argument("--target", choices=[*SHARES], help="only this one")
    parser.add_argument(
        "--faults", type=Path, default=Path("faults"), help="a folder for the inputs of faults"
    )
    parser.add_argument("--out", type=Path, help="the result's file")
    options = parser.parse_args()
    import coverage

    measured = coverage.Coverage(branch=True, include=["*/ablate/*.py"], data_file=None, config_file=False)
    measured.start()
    from ablate.hardware import device_name

    hardware = device_name()  # imports torch, which needs more address space than the limit leaves
    sys.path.insert(0, str(HERE))
    signal.signal(signal.SIGPROF, _hang)
    names = [options.target] if options.target else [*SHARES]
    result: dict[str, Any] = {"command": [Path(sys.argv[0]).name, *sys.argv[1:]], "seed": options.seed}
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        begun = time.monotonic()
        for name in names:
            target = import_module(f"fuzz_{name}").Target(Path(folder) / name)
            _limit_memory()
            count = options.inputs if options.target else round(options.inputs * SHARES[name])
            found, faults = fuzz(name, target, options.seed, count, SECONDS)
            save(
                options.faults, name, {fault: shrunk(target, given, fault) for fault, given in faults.items()}
            )
            result[name] = found
            bad += found["faults"]
            print(name, json.dumps(found, indent=1), flush=True)
        faulthandler.cancel_dump_traceback_later()
        measured.stop()
        kinds = Counter[str]()
        for name in names:
            kinds.update(result[name]["kinds"])
            result[name]["coverage_percent"] = covered(measured, name)
        result |= {
            "inputs": kinds.total(),
            "kinds": dict(kinds),
            "faults": bad,
            "seconds": round(time.monotonic() - begun),
        }
        result["peak_memory_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    result |= {"hardware": hardware, "cpus": os.cpu_count(), "python": platform.python_version()}
    result["versions"] = {package: version(package) for package in PACKAGES}
    print(json.dumps(result, indent=1))
    name = "-".join(["fuzz", *hardware.lower().split()[:2], *([options.target] if options.target else [])])
    (options.out or HERE / "results" / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    sys.exit(bad > 0)


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, resource.RLIM_INFINITY))


def _hang(*_: object) -> None:
    raise Hang


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
