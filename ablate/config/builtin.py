"""What comes with the package, by name: search spaces and studies, models and datasets."""

import codecs
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from ablate.config.trial_spec import S, checked
from ablate.errors import BadInput, short_repr, unknown
from ablate.paths import local_path

ONLY_LINEAR = "only its linear layers can be quantized, never its convolutions"
KNOWN = {
    "resnet18": f"torchvision's ResNet-18, ImageNet weights; {ONLY_LINEAR}, which leaves the head",
    "resnet18:random": "the same, random weights",
    "resnet18-32": "ResNet-18 for 32 px: a 3x3 stem of stride 1 and no max-pooling; random weights",
    "vgg16": f"torchvision's VGG-16, ImageNet weights; {ONLY_LINEAR}",
    "vgg16:random": "the same, random weights",
    "vgg16-32": "VGG-16 for 32 px: batch normalisation, pooled to 1x1, then one linear layer; random weights",
    "vit_b_16": "torchvision's ViT-B/16, ImageNet weights",
    "vit_b_16:random": "the same, random weights",
    "swin_t": "torchvision's Swin-T, ImageNet weights",
    "swin_t:random": "the same, random weights",
}

ASSETS = Path(__file__).parent.parent / "assets"  # bundled models and datasets, a folder each
IMAGEFOLDER = "imagefolder:"  # then a path: anyone's own images
HUB = "hf:"  # then a name on the Hugging Face hub, or a path: what the package datasets reads


def names(folder: Literal["search_spaces", "studies"]) -> list[str]:
    """Return the names of the built-in files of a folder."""
    return sorted(path.stem for path in (Path(__file__).parent.parent / folder).glob("*.toml"))


def bundled(kind: Literal["model", "dataset"]) -> dict[str, str]:
    """Return the bundled models or datasets: names, and the descriptions that head their cards."""
    cards = sorted(ASSETS.glob("*/README.md"))
    chosen = (card for card in cards if (card.parent / "config.json").exists() == (kind == "model"))
    heads = (
        card.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ").partition(": ") for card in chosen
    )
    return {name: text for name, _, text in heads}


def absolute_data(name: str, folder: Path) -> str:
    """Return a dataset's name with an absolute path, which all processes understand.

    Args:
        name: A bundled name, "imagefolder:PATH", "hf:NAME", "hf:PATH", or "module:name".
        folder: What a relative path is relative to.
    """
    if name.startswith(HUB):
        return HUB + _absolute_table(name.removeprefix(HUB), folder)
    path = name.removeprefix(IMAGEFOLDER)
    if path in (name, ""):
        return name
    return IMAGEFOLDER + str((folder / local_path(path)).absolute())


def _absolute_table(name: str, folder: Path) -> str:
    """The PATH of "hf:PATH?key=value", absolute; a name on the hub, which has no such file here, as it is."""
    where, mark, options = name.rpartition("?") if "?" in name else (name, "", "")
    if not where:
        return name
    path = folder / local_path(where)
    is_path = where.startswith(("/", ".", "~")) or path.is_dir() or path.is_file()
    return f"{path.absolute()}{mark}{options}" if is_path else name


def load(
    spec: type[S],
    folder: Literal["search_spaces", "studies"],
    kind: str,
    name: str,
    of_older_runs: Mapping[str, Any] = MappingProxyType({}),
) -> S:
    """Load a spec from TOML.

    Args:
        spec: The class.
        folder: Of the built-in files.
        kind: What it is, for the messages.
        name: Of a built-in file, or the path of one's own. Paths in a file are relative to it.
        of_older_runs: Values of the fields that a file lacks where it is the study.toml of a run.

    Returns:
        The spec.

    Raises:
        BadInput: There is no such file, it cannot be read, or it has faults; the message lists them.
    """
    file, fields = read(folder, kind, name, of_older_runs)
    return checked(spec, fields, file)


def read(
    folder: Literal["search_spaces", "studies"],
    kind: str,
    name: str,
    of_older_runs: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[str, dict[str, Any]]:
    """Read a TOML file as plain data, unchecked. The arguments are those of `load`.

    Returns:
        The file's name, and its fields with absolute paths.

    Raises:
        BadInput: There is no such file, or it cannot be read.
    """
    try:
        path = _path_of(folder, kind, name)
        data = _with_absolute_paths(_parsed(path, kind), path.parent)
    except BadInput:
        raise
    except (OSError, ValueError, RuntimeError) as error:  # a path too long, a number of 5,000 digits, ~nobody
        reason = error.strerror if isinstance(error, OSError) else str(error).partition(";")[0]
        rule = f"{kind} {short_repr(name)} must be one that can be read"
        raise BadInput(f"{rule}, but: {reason}; mend the file") from None
    missing = of_older_runs if _is_of_run(path) else {}
    return path.name, {"name": path.stem, **missing, **data}


def _is_of_run(path: Path) -> bool:
    """Whether a file is a run's, which stands beside what the run has written before it."""
    return path.name == "study.toml" and any(
        (path.parent / name).exists() for name in ("ledger.jsonl", "provenance.json")
    )


def _path_of(folder: Literal["search_spaces", "studies"], kind: str, name: str) -> Path:
    if name in names(folder):
        return Path(__file__).parent.parent / folder / f"{name}.toml"
    if name and (_is_toml(path := local_path(name)) or path.exists()):
        return path
    raise unknown(kind, name, names(folder) + [f"{name}.toml"] * Path(f"{name}.toml").exists())


def _parsed(path: Path, kind: str) -> dict[str, Any]:
    try:
        # Editors on Windows write a byte order mark.
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        rule = f"cannot read {kind} {str(path)!r}: {error.strerror}"
        raise BadInput(f"{rule}; give a name or the path of a TOML file") from None
    except UnicodeDecodeError as error:
        is_utf16 = error.object.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        reason = "it is UTF-16, as PowerShell's > writes" if is_utf16 else str(error)
        raise BadInput(f"{path}: not valid TOML: it must be UTF-8, but {reason}; save it as UTF-8") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadInput(f"{path}: not valid TOML: {error}") from None


def _with_absolute_paths(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Make the paths in a file's fields absolute, in place. A name stays a name."""
    for key in ("model", "space"):
        if key in data:
            data[key] = _absolute(data[key], folder, key == "space")
    for recipe in recipe_tables(data):
        if isinstance(names := recipe.get("teacher"), list):
            recipe["teacher"] = [_absolute(name, folder) for name in names]
        elif names is not None:
            recipe["teacher"] = _absolute(names, folder)
    if isinstance(value := data.get("data"), str):
        data["data"] = absolute_data(value, folder)
    return data


def recipe_tables(data: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The tables, in the plain data of a study or a space, that hold fields of the recipe."""
    steps = data.get("steps")
    for part in (data, data.get("space"), data.get("reference"), *(steps if isinstance(steps, list) else ())):
        for key in ("recipe", "tune"):
            if isinstance(part, dict) and isinstance(recipe := part.get(key), dict):
                yield recipe


def _absolute(name: Any, folder: Path, is_space: bool = False) -> Any:
    """Return a model's or a space's name, absolute where it is the path of one."""
    if not isinstance(name, str) or name in (*bundled("model"), *KNOWN, "none"):
        return name
    path = folder / local_path(name) if name else folder
    is_path = _is_toml(path) if is_space else (path / "config.json").exists()
    return str(path.absolute()) if ("/" in name or is_path) and path.exists() else name


def _is_toml(path: Path) -> bool:
    return path.suffix.lower() == ".toml"
