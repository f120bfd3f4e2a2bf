"""What comes with the package, by name: search spaces and studies, models and datasets."""

import codecs
import tomllib
from pathlib import Path
from typing import Literal

from ablate.config.trial_spec import S, checked
from ablate.errors import BadInput, short_repr, unknown

ONLY_LINEAR = "only its linear layers can be quantized, never its convolutions"
KNOWN = {
    "resnet18": f"torchvision's ResNet-18, ImageNet weights; {ONLY_LINEAR}, which leaves the head",
    "resnet18:random": "the same, random weights",
    "resnet18-32": "ResNet-18 for 32 px: a 3x3 stem of stride 1 and no max-pooling; random weights",
    "vgg16": f"torchvision's VGG-16, ImageNet weights; {ONLY_LINEAR}",
    "vgg16:random": "the same, random weights",
    "vgg16-32": "VGG-16 for 32 px: with batch normalisation, pooled to 1x1, one linear layer behind; random weights",
    "vit_b_16": "torchvision's ViT-B/16, ImageNet weights; its attention is torch's own and stays full",
    "vit_b_16:random": "the same, random weights",
    "swin_t": "torchvision's Swin-T, ImageNet weights; its attention reads its weights by itself and stays full",
    "swin_t:random": "the same, random weights",
}

ASSETS = Path(__file__).parent.parent / "assets"  # bundled models and datasets, a folder each
IMAGEFOLDER = "imagefolder:"  # then a path: anyone's own images


def names(folder: Literal["search_spaces", "studies"]) -> list[str]:
    """Names of the built-in files of a folder."""
    return sorted(path.stem for path in (Path(__file__).parent.parent / folder).glob("*.toml"))


def bundled(kind: Literal["model", "dataset"]) -> dict[str, str]:
    """Bundled models or datasets: the name and the one-line description that heads its card."""
    cards = {card.parent: card for card in sorted(ASSETS.glob("*/README.md"))}
    chosen = (
        card for folder, card in cards.items() if (folder / "config.json").exists() == (kind == "model")
    )
    heads = (
        card.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ").partition(": ") for card in chosen
    )
    return {name: text for name, _, text in heads}


def absolute_data(name: str, folder: Path) -> str:
    """A dataset's name as every process understands it: the path of an image folder, relative to `folder`, made absolute."""
    path = name.removeprefix(IMAGEFOLDER)
    if path in (name, ""):
        return name
    return IMAGEFOLDER + str((folder / Path(path).expanduser()).absolute())


def load(spec: type[S], folder: Literal["search_spaces", "studies"], kind: str, name: str) -> S:
    """A built-in file by its name, or one's own by its path, checked. Raises BadInput."""
    try:
        return _loaded(spec, folder, kind, name)
    except BadInput:
        raise
    except (
        OSError,
        ValueError,
        RuntimeError,
    ) as error:  # a path that is too long, a number of 5,000 digits, ~nobody
        why = error.strerror if isinstance(error, OSError) else str(error).partition(";")[0]
        raise BadInput(
            f"{kind} {short_repr(name)} must be one that can be read, but: {why}; mend the file"
        ) from None


def _loaded(spec: type[S], folder: Literal["search_spaces", "studies"], kind: str, name: str) -> S:
    path = Path(name).expanduser()
    if name in names(folder):
        path = Path(__file__).parent.parent / folder / f"{name}.toml"
    elif not name or not (_is_toml(path) or path.exists()):
        raise unknown(kind, name, names(folder) + [f"{name}.toml"] * Path(f"{path}.toml").exists())
    try:
        data = tomllib.loads(
            path.read_text(encoding="utf-8-sig")
        )  # editors on Windows begin a file with a byte order mark
    except OSError as error:
        raise BadInput(
            f"cannot read {kind} {str(path)!r}: {error.strerror}; give a name or the path of a TOML file"
        ) from None
    except UnicodeDecodeError as error:
        is_utf16 = error.object.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        what = "it is UTF-16, as PowerShell's > writes" if is_utf16 else str(error)
        raise BadInput(f"{path}: not valid TOML: it must be UTF-8, but {what}; save it as UTF-8") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadInput(f"{path}: not valid TOML: {error}") from None
    for key in (
        "model",
        "space",
    ):  # a path in a file is relative to the file; a folder that happens to be beside it is none
        if isinstance(value := data.get(key), str) and value not in (*bundled("model"), *KNOWN):
            beside = path.parent / value
            meant = "/" in value or (
                _is_toml(beside) if key == "space" else (beside / "config.json").exists()
            )
            data[key] = str(beside.absolute()) if meant and beside.exists() else value
    if isinstance(value := data.get("data"), str):
        data["data"] = absolute_data(value, path.parent)
    return checked(spec, {"name": path.stem, **data}, path.name)


def _is_toml(path: Path) -> bool:
    return path.suffix.lower() == ".toml"
