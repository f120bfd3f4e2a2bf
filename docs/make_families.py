"""Writes docs/families.md from tiny models of each family: python docs/make_families.py"""

import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
HEAD = """# Model families

Made by `python docs/make_families.py` from tiny models with random weights, whose width and depth are shrunk and whose every
branch is kept ([tests/families.py](../tests/families.py)); tests hold that the code gives this table.

- layers: how many of the linear layers can be quantized
- groups: the layer groups by role, counted; what is neither attention, `fc1`, `fc2` nor the head goes by its own name
- loads: a checkpoint with its image processor is loaded, for its own classes with its head, for others with a new one
- trains: all layers binary, a step gives each a gradient
- packs and loads: packed at the size counted beforehand, loaded without a skeleton, with equal logits
- ONNX: exported, onnxruntime computes the same, but for levels that rounding flips; "-" where that was not tried
"""


def main() -> None:
    sys.path.insert(0, str(HERE.parent / "tests"))
    import families

    lines = []
    for family in families.FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            cells = families.row(family, Path(folder))
            cells |= {"ONNX": families.attempt(families.exports, family, Path(folder) / "ONNX")}
        cells |= {"why not": families.REASONS.get(family, "")}
        lines.append(f"| {family} | {' | '.join(cells.values())} |")
    head = ["family", *cells]
    table = [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *lines]
    (HERE / "families.md").write_text(HEAD + "\n" + "\n".join(table) + "\n")


if __name__ == "__main__":
    main()
