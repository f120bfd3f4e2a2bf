"""The model card of a packed model: README.md of its repository on the Hugging Face hub."""

import re
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from ablate.config.objectives import COLUMNS, cell
from ablate.formatting import describe_layers, format_bytes, images_of
from ablate.paths import local_path
from ablate.quantization.packed_header import Header
from ablate.reporting.front_findings import confirmed, front
from ablate.reporting.html_provenance import provenance_terms
from ablate.reporting.run_results import Finding, RunResults
from ablate.reporting.table1_render import in_markdown
from ablate.runs.run import Run

MAX_ROWS = 30  # of a table
UNNAMED = {"model", "data", "teacher", "started as"}  # terms of a provenance that may be paths of a machine
USE = """## Use

```python
from ablate import load_packed
model = load_packed("{name}")
```

The package is `ablate-vit`. `ablate predict {name} cat.png` classifies image files. transformers loads the
model as well:

```python
import ablate.integrations.transformers
from transformers import AutoModelForImageClassification
model = AutoModelForImageClassification.from_pretrained("{name}")
```
"""


def model_card(
    name: str, header: Header, size_bytes: int, licence: str | None, run: Run | None = None, trial: str = ""
) -> tuple[str, dict[str, Finding]]:
    """Write the card of a packed model.

    Args:
        name: USER/NAME, or what the card calls the model.
        header: Of the packed model.
        size_bytes: Of its files.
        licence: As the hub names it, such as "apache-2.0"; None: not stated.
        run: The run that it comes from; None: not known.
        trial: The trial's id.

    Returns:
        The text, and the findings of the run that it shows.
    """
    found: dict[str, Finding] = {}
    parts = [_metadata(header, licence, run), f"# {name.rpartition('/')[2]}\n", _summary(header, size_bytes)]
    parts.append(USE.format(name=name))
    if run is not None:
        results = RunResults(run)
        found = {"front": front(results), "confirmed": confirmed(results)}
        parts += [_question(run, trial), *_front(run, found["front"]), *_intervals(run, found["confirmed"])]
    parts += [_layers(header), _provenance(header, run), _licence(licence)]
    return "\n".join(parts), found


def _metadata(header: Header, licence: str | None, run: Run | None) -> str:
    """The YAML at the top, which the hub reads."""
    from huggingface_hub import ModelCardData

    kinds = sorted({spec.weights for spec in header.layers.values()})
    base = run.study.model if run is not None and _is_public(run.study.model) else None
    data = ModelCardData(
        license=licence,
        library_name="ablate-vit",
        pipeline_tag="image-classification",
        tags=["ablate", "quantized", *kinds],
        base_model=base,
    )
    return f"---\n{data.to_yaml()}\n---\n"


def _is_public(model: str) -> bool:
    """Whether a study's model is a name on the hub."""
    return "/" in model and not local_path(model).exists() and not model.startswith(("/", ".", "~"))


def _summary(header: Header, size_bytes: int) -> str:
    kind = header.model.name if header.model else "A model"
    counts = pd.Series([spec.weights for spec in header.layers.values()], dtype=object).value_counts()
    layers = ", ".join(f"{n} {weights}" for weights, n in counts.items()) or "none"
    head = f"{kind} for image classification, packed to {format_bytes(size_bytes)} ({size_bytes:,} bytes)."
    size = header.preprocess.size if header.preprocess else None
    takes = f" It takes images of {size[1]} x {size[0]} pixels." if size else ""
    return f"{head} Quantized linear layers: {layers}; all else is in {header.dtype}.{takes}\n"


def _question(run: Run, trial: str) -> str:
    study, records = run.study, run.records.set_index("trial_id")
    record: Any = records.loc[[trial]].iloc[-1]
    lines = [f"## Question\n\n{in_markdown(' '.join(study.question.split()))}\n"]
    images = f"{record['images']:,.0f} images" if pd.notna(record["images"]) else "images"
    trained = f"Model {_named(study.model)}, trained on {images} of {_named(study.data)}."
    lines.append(f"{trained} This is trial `{trial}` of the study, by layer group:")
    lines.append(f"{in_markdown(describe_layers(record['spec']))}; seed {record['seed']}.\n")
    rows = [("accuracy", images_of(False), record["accuracy"])]
    if pd.notna(record["test_accuracy"]):
        rows.append(("accuracy", images_of(record["spec"]["test"]), record["test_accuracy"]))
    lines.append(_table(["", "on", "of one seed"], ((a, b, f"{value:.1%}") for a, b, value in rows)))
    return "\n".join(lines)


def _named(name: str) -> str:
    """A model or a dataset by its name; a local path by its last part, which says nothing of the machine."""
    return f"`{name if _is_public(name) else Path(name).name}`"


def _front(run: Run, finding: Finding) -> list[str]:
    if not finding:
        return []
    objectives = [*dict.fromkeys(["accuracy", *run.study.objectives])]
    heads = ["trial", "layers", *(in_markdown(COLUMNS[name]) for name in objectives)]
    trials = finding.tables["front"].drop_duplicates("trial_id").head(MAX_ROWS)
    rows = (
        [f"`{row['trial_id']}`", in_markdown(describe_layers(row["spec"]))]
        + [in_markdown(cell(name, row[name])) for name in objectives]
        for row in trials.to_dict("records")
    )
    return [
        f"## Front\n\n{in_markdown(finding.sentence)} One seed a trial, on {images_of(False)}.\n",
        "![The trials of the study and their front](front.png)\n",
        _table(heads, rows),
    ]


def _intervals(run: Run, finding: Finding) -> list[str]:
    if not finding:
        return []
    rows = finding.tables["confirmed"]
    shown = (
        [
            f"`{row['trial_id']}`",
            str(row["n"]),
            *(_interval(row, name) for name in ("accuracy", "test_accuracy")),
        ]
        for row in rows.head(MAX_ROWS).to_dict("records")
    )
    heads = ["trial", "further seeds", "accuracy, validation", f"accuracy, {images_of(run.study.test)}"]
    text = in_markdown(finding.sentence)
    if rows["means"].max():
        text += " Means with 95 % t intervals, which hold together."
    return [f"## Over seeds\n\n{text}\n", _table(heads, shown)]


def _interval(row: Mapping[Any, Any], name: str) -> str:
    mean, low, high = (row[key] for key in (name, f"{name}_low", f"{name}_high"))
    if pd.isna(mean):
        return "not known"
    return f"{mean:.1%}" + ("" if pd.isna(low) else f" ({low:.1%} to {high:.1%})")


def _layers(header: Header) -> str:
    """The layer map: layers that differ in one number alone are one row."""
    groups: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for name, spec in header.layers.items():
        bits = "float" if spec.activation_bits is None else f"{spec.activation_bits} bit"
        scale = "-" if spec.activation_bits is None else spec.activation_scale
        what = (spec.weights, bits, scale, str(spec.beta), spec.beta_per)
        number = re.search(r"\d+", name)
        key = name if number is None else f"{name[: number.start()]}N{name[number.end() :]}"
        groups.setdefault((key, what), []).append("" if number is None else number[0])
    rows = ([f"`{key}`", ", ".join(numbers), *what] for (key, what), numbers in groups.items())
    heads = ["layer", "N", "weights", "activations", "their scale", "beta", "beta per"]
    said = "Layers that are not listed are in full precision."
    if header.attention_bits:
        said += f" Attention products are of {header.attention_bits}-bit integers."
    return f"## Layers\n\n{said}\n\n{_table(heads, rows)}"


def _provenance(header: Header, run: Run | None) -> str:
    terms = {"sha256 of the packed model": header.sha256, "packed by": f"ablate-vit {version('ablate-vit')}"}
    if run is not None:
        terms |= {key: text for key, text in provenance_terms(run).items() if key not in UNNAMED}
    return f"## Provenance\n\n{_table(['', ''], ((key, in_markdown(text)) for key, text in terms.items()))}"


def _licence(licence: str | None) -> str:
    stated = (
        f"`{licence}`"
        if licence
        else "Not stated: ask the authors. The base model and the images have theirs."
    )
    return f"## Licence\n\n{stated}\n"


def _table(heads: list[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
