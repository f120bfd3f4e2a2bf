"""Search which layers of a Vision Transformer may become 1-bit or ternary, and measure what that saves."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ablate.config.objectives import Objective as Objective
    from ablate.config.search_space import SpaceSpec as SpaceSpec
    from ablate.config.study_spec import StudySpec as StudySpec
    from ablate.config.trial_spec import LayerSpec as LayerSpec
    from ablate.config.trial_spec import Recipe as Recipe
    from ablate.engine.gate import check_study as check_study
    from ablate.engine.predict import predict as predict
    from ablate.engine.run_study import run_study as run_study
    from ablate.errors import BadInput as BadInput
    from ablate.execution.ray_cluster import Resources as Resources
    from ablate.quantization.bitlinear import BitLinear as BitLinear
    from ablate.quantization.packed_loading import load_packed as load_packed
    from ablate.quantization.packing import pack as pack
    from ablate.quantization.quantize import quantize_ as quantize_
    from ablate.quantization.recorded import recorded_precisions as recorded_precisions
    from ablate.quantization.static_scales import calibrate_ as calibrate_
    from ablate.runs.run import load_run as load_run
    from ablate.training.run_trial import run_trial as run_trial

_MODULES = {
    "BadInput": "errors",
    "BitLinear": "quantization.bitlinear",
    "LayerSpec": "config.trial_spec",
    "Objective": "config.objectives",
    "Recipe": "config.trial_spec",
    "Resources": "execution.ray_cluster",
    "SpaceSpec": "config.search_space",
    "StudySpec": "config.study_spec",
    "calibrate_": "quantization.static_scales",
    "check_study": "engine.gate",
    "load_packed": "quantization.packed_loading",
    "load_run": "runs.run",
    "pack": "quantization.packing",
    "predict": "engine.predict",
    "quantize_": "quantization.quantize",
    "recorded_precisions": "quantization.recorded",
    "run_study": "engine.run_study",
    "run_trial": "training.run_trial",
}
__all__ = list(_MODULES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Load a public name on first use (PEP 562), so that `import ablate` imports neither torch nor ray."""
    if name not in _MODULES:
        raise AttributeError(f"module 'ablate' has no attribute {name!r}")
    try:
        module = import_module(f"ablate.{_MODULES[name]}")
    except ModuleNotFoundError as error:  # after pip install --no-deps
        if (package := (error.name or "").partition(".")[0]) == "ablate":
            raise
        rule = f"ablate.{name} needs {package!r}, which is not installed"
        raise ModuleNotFoundError(f"{rule}; `pip install ablate-vit` installs it", name=package) from None
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)
