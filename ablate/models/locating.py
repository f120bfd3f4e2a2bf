"""Where models are loaded from: bundled or a local folder's files, which other machines may be given, or the hub."""

import atexit
import json
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

from ablate.config.builtin import ASSETS, KNOWN, bundled
from ablate.errors import BadInput, unknown
from ablate.models.heads import few

SUFFIXES = (".json", ".safetensors", ".bin")  # of the files that a model and its processor are loaded from
_provided: dict[str, Path] = {}  # folders of another machine -> where their files were put


def known() -> dict[str, str]:
    """Models that go by a name of ours, bundled or of torchvision, each with its one-line description."""
    return bundled("model") | KNOWN


def absolute(name: str) -> str:
    """A model's name as every process understands it: the path of a local folder becomes absolute."""
    path = Path(name).expanduser()
    return str(path.absolute()) if name not in known() and path.is_dir() else name


def files(name: str) -> dict[str, bytes]:
    """The files of a model's local folder, without what a training left beside them; none for any other."""
    path = Path(name).expanduser()
    if name in known() or not path.is_dir():
        return {}
    return {
        file.name: file.read_bytes()
        for file in sorted(path.iterdir())
        if file.is_file() and file.suffix in SUFFIXES
    }


def provide(name: str, files: dict[str, bytes]) -> None:
    """Let a local folder's name mean these files in this process: the machine may lack the folder, or have another."""
    before = _provided.get(name)
    if not files or (before and files == {file.name: file.read_bytes() for file in before.iterdir()}):
        return
    folder = Path(tempfile.mkdtemp(prefix="ablate-model-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for file, content in files.items():
        (folder / file).write_bytes(content)
    _provided[name] = folder


def source(name: str) -> str:
    """Where a model is loaded from: a folder, or its name on the hub. Raises BadInput for an unknown name."""
    if name in bundled("model"):
        return str(ASSETS / name)
    if name in _provided:
        return str(_provided[name])
    if Path(name).expanduser().is_dir():
        return absolute(name)
    if "/" not in name or name.startswith(("/", ".", "~")):
        raise unknown(
            "model",
            name,
            [*known(), "a local folder", "a hub name such as google/vit-base-patch16-224-in21k"],
        )
    return name


def unread(name: str) -> list[str]:
    """The files of weights in a checkpoint's folder that are not read, as the first of the names that transformers knows is."""
    where = Path(source(name))
    held = {file.name for file in where.iterdir()} if where.is_dir() else set()
    known = (
        "model.safetensors",
        "model.safetensors.index.json",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
    )
    return [file for file in known if file in held][1:]


def first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__


def config_of(name: str) -> dict[str, Any]:
    """What the checkpoint's config.json holds; nothing for a baseline. Raises BadInput for what is not to be loaded."""
    if name in KNOWN:
        return {}
    where = Path(source(name))
    config = _of_folder(where) if where.is_dir() else _of_hub(str(where))
    if "quantization_config" in config:
        raise BadInput(
            f"checkpoint {name!r} must be in floating point, but its config.json has a quantization_config; give the original"
        )
    if "AutoModelForImageClassification" in (config.get("auto_map") or {}):
        raise BadInput(
            f"model {name!r} brings code of its own (auto_map in config.json), which is never run; give another"
        )
    return config


def _of_folder(folder: Path) -> dict[str, Any]:
    files = {file.name for file in folder.iterdir()}
    if "adapter_config.json" in files:
        raise BadInput(
            f"{str(folder)!r} holds an adapter; merge it into its model (merge_and_unload in PEFT) and save that"
        )
    if "config.json" not in files:
        raise BadInput(f"{str(folder)!r} must be a folder that save_pretrained wrote, but has no config.json")
    if not any(file.endswith((".safetensors", ".bin")) for file in files):
        others = few(sorted(files - {"config.json"})) or "nothing else"
        mend = "load the model in PyTorch and save it with save_pretrained"
        raise BadInput(
            f"{str(folder)!r} must hold model.safetensors or pytorch_model.bin, but has {others}; {mend}"
        )
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise BadInput(
            f"cannot read {str(folder / 'config.json')!r}: {first_line(error)}; save the model again"
        ) from None
    if not isinstance(config, dict):
        raise BadInput(f"{str(folder / 'config.json')!r} must be an object; save the model again")
    return config


@lru_cache
def _of_hub(name: str) -> dict[str, Any]:
    from transformers import PreTrainedConfig

    try:
        return PreTrainedConfig.get_config_dict(name)[0]
    except Exception as error:  # of the network and of the hub
        mend = "give a bundled name, a save_pretrained folder or, with a network, a hub name"
        raise BadInput(f"cannot load model {name!r}: {first_line(error)}; {mend}") from None
