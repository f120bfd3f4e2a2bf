"""The house: floors, light imports, exported names."""

import ast
import subprocess
import sys
from pathlib import Path

import ablate

ROOT = Path(ablate.__file__).parent
FLOORS = [
    {"errors", "hardware", "files", "labels", "ray_folder", "mirrored"},
    {"downloads", "heads"},
    {"spec", "baselines", "tensors", "decoding", "preprocessing"},
    {"builtin", "folder_layout", "image_size", "image_processors"},
    {"space_spec", "splitting"},
    {"study_spec"},
    {"words", "looks", "printed", "lines", "effective", "flips"},
    {"model_files"},
    {"checkpoints"},
    {"ledger", "bitlinear", "models", "sources", "imagefolder", "storage", "monitor", "locks"},
    {"unquantizable", "bits", "integer", "fetch"},
    {"image_by_image"},
    {"layers"},
    {"packed", "cost", "data", "recipe"},
    {"latency", "onnx_export", "round_trip", "run", "train"},
    {"teacher", "writer", "claim"},
    {"trial", "constraints", "points", "confirm", "asha", "fractions"},
    {"samplers", "effects"},
    {"additive"},
    {"search", "cluster", "actors"},
    {"design"},
    {"plan", "timing", "distribute", "seen", "provenance"},
    {"driver", "reuse", "gate", "searched", "designed", "table1"},
    {"findings", "figures", "charts"},
    {"study", "view", "typeset", "report", "terminal"},
    {"resume", "show"},
    {"verbs"},
    {"cli"},
]
REACH_ANALYSIS = {"run", "confirm", "search", "driver", "seen", "searched", "designed", "study", "view", "show", "figures"}
REACH_FIGURES = {"figures"}


def imports(path):
    """Every module that a file imports, anywhere in it, by full name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_a_module_imports_from_lower_floors_only():
    floor = {name: i for i, names in enumerate(FLOORS) for name in names}
    modules = {path.stem: path for path in ROOT.glob("*.py") if path.stem not in ("__init__", "__main__")}
    assert set(modules) == set(floor)
    for name, path in modules.items():
        for imported in imports(path):
            package, _, rest = imported.partition(".")
            below = rest.split(".")[0]
            if package == "ablate" and below in floor:
                assert floor[below] < floor[name], f"{name} imports {below}"
            if package == "ablate" and below in ("analysis", "paper_figures"):
                assert name in (REACH_ANALYSIS if below == "analysis" else REACH_FIGURES), f"{name} imports {below}"
            if package == "ray":
                assert name in ("actors", "cluster", "distribute"), f"{name} imports ray"


def test_analysis_and_figures_import_neither_torch_nor_ray():
    for folder in ("analysis", "paper_figures"):
        for path in (ROOT / folder).glob("*.py"):
            assert not {name.split(".")[0] for name in imports(path)} & {"torch", "ray"}, path


def test_light_imports():
    code = "import sys, {}; print(*({{'torch', 'ray'}} & set(sys.modules)))"
    for module in ("ablate.analysis.pareto", "ablate.cli"):
        out = subprocess.run([sys.executable, "-c", code.format(module)], capture_output=True, text=True, check=True)
        assert out.stdout.strip() == "", module


def test_exported_names():
    assert dir(ablate) == [
        "BitLinear",
        "LayerSpec",
        "check_study",
        "load_packed",
        "load_run",
        "pack",
        "quantize_",
        "run_study",
        "run_trial",
    ]
    assert all(getattr(ablate, name).__name__ == name for name in dir(ablate))
