"""Where a model is loaded from: the package, a local folder (maybe of another machine), or the hub."""

import atexit
import json
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

from ablate.config.builtin import ASSETS, KNOWN, bundled
from ablate.errors import BadInput, unknown
from ablate.models import timm_models
from ablate.models.heads import few
from ablate.paths import local_path

SUFFIXES = (".json", ".safetensors", ".bin")  # of the files of a model and its image processor
WEIGHTS = (  # in the order in which transformers looks for them
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
HUB_HINT = "give a bundled name, a save_pretrained folder or, with a network, a hub name"
_provided: dict[str, Path] = {}  # folder on another machine -> folder with its files here


def known() -> dict[str, str]:
    """The models that have a name of their own, bundled or of torchvision: name -> one-line description."""
    return bundled("model") | KNOWN


def absolute(name: str) -> str:
    """A model's name for every working directory: the path of a local folder becomes absolute."""
    folder = _folder(name)
    return str(folder.absolute()) if folder else name


def _folder(name: str) -> Path | None:
    """The local folder that a model's name is the path of."""
    if not name or name in known():
        return None
    return path if (path := local_path(name)).is_dir() else None


def files(name: str) -> dict[str, bytes]:
    """The files that a local folder's model is loaded from.

    Args:
        name: Of a model.

    Returns:
        File name -> content; empty for a model that is not in a local folder.
    """
    if (folder := _folder(name)) is None:
        return {}
    return {
        file.name: file.read_bytes()
        for file in sorted(folder.iterdir())
        if file.is_file() and file.suffix in SUFFIXES
    }


def provide(name: str, files: dict[str, bytes]) -> None:
    """Load a local folder's model from these files in this process, as its machine may lack the folder.

    Args:
        name: The folder's path on the driver's machine.
        files: Of `files` there; with none, nothing changes.
    """
    current = _provided.get(name)
    if not files or (current and files == {file.name: file.read_bytes() for file in current.iterdir()}):
        return
    folder = Path(tempfile.mkdtemp(prefix="ablate-model-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for file, content in files.items():
        (folder / file).write_bytes(content)
    _provided[name] = folder


def source(name: str) -> str:
    """Where a model is loaded from.

    Args:
        name: A bundled name, a `save_pretrained` folder, a hub name or timm's.

    Returns:
        A folder, the name on the hub, or `timm/NAME:random` as it is.

    Raises:
        BadInput: The name is unknown.
    """
    if name in bundled("model"):
        return str(ASSETS / name)
    if name in _provided:
        return str(_provided[name])
    if folder := _folder(name):
        return str(folder.absolute())
    if "/" not in name or name.startswith(("/", ".", "~")):
        if name.startswith(("/", "./", "../", "~")):
            rule = "a model must be a folder that save_pretrained wrote, or a name"
            raise BadInput(
                f"{rule}, but there is no folder {str(local_path(name))!r}; `ablate ls` lists the names"
            )
        hub_name = "a hub name such as google/vit-base-patch16-224-in21k"
        raise unknown("model", name, [*known(), "a local folder", hub_name])
    if name.startswith(timm_models.PREFIX) and not timm_models.is_random(name):
        return timm_models.hub_name(name)
    return name


def unread(name: str) -> list[str]:
    """The weights in a checkpoint's folder that are not read: transformers reads the first of WEIGHTS."""
    where = Path(source(name))
    present = {file.name for file in where.iterdir()} if where.is_dir() else set()
    return [file for file in WEIGHTS if file in present][1:]


def weight_files(where: str) -> list[Path]:
    """The files that a checkpoint's tensors are read from: the first of WEIGHTS, or what that index lists.

    Args:
        where: A folder, or a name on the hub, whose files are downloaded where they are not in the cache.

    Returns:
        The paths, sorted; none where no file has a usual name.
    """
    for name in WEIGHTS:
        if (found := file_of(where, name)) is None:
            continue
        if found.suffix != ".json":
            return [found]
        listed = json.loads(found.read_text(encoding="utf-8"))["weight_map"].values()
        return [shard for each in sorted(set(listed)) if (shard := file_of(where, each))]
    return []


def file_of(where: str, name: str) -> Path | None:
    """A file of a checkpoint, as of `weight_files`; None where there is none of this name."""
    if Path(where).is_dir():
        return path if (path := Path(where) / name).is_file() else None
    from transformers.utils import cached_file

    found = cached_file(where, name, _raise_exceptions_for_missing_entries=False)
    return Path(found) if found else None


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its type."""
    return str(error).strip().split("\n")[0] or type(error).__name__


def config_of(name: str) -> dict[str, Any]:
    """The content of a checkpoint's config.json.

    Args:
        name: A bundled name, one of torchvision's, a `save_pretrained` folder or a hub name.

    Returns:
        The configuration; empty for a model of torchvision.

    Raises:
        BadInput: There is none, it cannot be read, or the checkpoint is quantized or brings code of its own.
    """
    if name in KNOWN:
        return {}
    if timm_models.is_random(name):
        return timm_models.random_config(name)
    where = Path(source(name))
    config = _of_folder(where) if where.is_dir() else _of_hub(str(where))
    if "quantization_config" in config:
        fault = "must be in floating point, but its config.json has a quantization_config"
        mend, found = "give the original", config["quantization_config"]
        if "format" in found:
            fault = "must be in floating point, but is a packed model"
        elif found.get("quant_method") == "ablate":
            mend += ", or remove that key to begin from the weights in full precision"
        raise BadInput(f"checkpoint {name!r} {fault}; {mend}")
    if "AutoModelForImageClassification" in (config.get("auto_map") or {}):
        fault = "brings code of its own (auto_map in config.json), which is never run"
        raise BadInput(f"model {name!r} {fault}; give another")
    return config


def _of_folder(folder: Path) -> dict[str, Any]:
    where, path = repr(str(folder)), folder / "config.json"
    files = {file.name for file in folder.iterdir()}
    if "adapter_config.json" in files:
        mend = "merge it into its model (merge_and_unload in PEFT) and save that"
        raise BadInput(f"{where} holds an adapter; {mend}")
    if path.name not in files:
        raise BadInput(f"{where} must be a folder that save_pretrained wrote, but has no config.json")
    if not any(file.endswith((".safetensors", ".bin")) for file in files):
        others = few(sorted(files - {path.name})) or "nothing else"
        mend = "load the model in PyTorch and save it with save_pretrained"
        rule = "must hold model.safetensors or pytorch_model.bin"
        raise BadInput(f"{where} {rule}, but has {others}; {mend}")
    try:
        config = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot read {str(path)!r}: {first_line(error)}; save the model again") from None
    if not isinstance(config, dict):
        raise BadInput(f"{str(path)!r} must be an object; save the model again")
    return config


@lru_cache
def _of_hub(name: str) -> dict[str, Any]:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

    try:
        if try_to_load_from_cache(name, "config.json") is None:
            # transformers would ask a silent hub six times for each of several files.
            get_hf_file_metadata(hf_hub_url(name, "config.json"))
        path = file_of(name, "config.json")
        if path is None:
            raise ValueError("no config.json was found")
        return dict(json.loads(path.read_text(encoding="utf-8-sig")))
    except Exception as error:  # of the network and of the hub
        mend = HUB_HINT
        if name.startswith(timm_models.PREFIX):
            random = name.partition(".")[0] + timm_models.RANDOM
            mend = f"try again with a network, or give a folder that timm wrote, or {random}"
        raise BadInput(f"cannot load model {name!r}: {first_line(error)}; {mend}") from None
