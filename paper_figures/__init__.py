"""Figures: `_info` files compute what a figure shows, in print and on the page; `fig_` files print it."""

import os
import sys
from contextlib import chdir
from importlib.util import find_spec
from pathlib import Path


def _import_matplotlib() -> None:
    """Import matplotlib even if the user's MPLBACKEND or matplotlibrc is broken, on which its import fails.

    The figures need neither: they go to files, and have a style of their own.
    """
    try:
        import matplotlib
    except Exception:
        for name in [name for name in sys.modules if name.startswith("matplotlib.")]:
            del sys.modules[name]  # else they would be no attributes of the module
        spec = find_spec("matplotlib")
        assert spec and spec.origin
        backend = os.environ.pop("MPLBACKEND", None)
        try:
            with chdir(Path(spec.origin).resolve().parent / "mpl-data"):  # whose matplotlibrc goes first
                import matplotlib  # noqa: F401
        finally:
            if backend is not None:
                os.environ["MPLBACKEND"] = backend


_import_matplotlib()
