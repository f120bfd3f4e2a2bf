"""Packed models with a fault, and the check that they are refused in one short line."""

import hashlib
import json

import pytest
from hypothesis import HealthCheck, settings
from safetensors.torch import save

from ablate import LayerSpec, load_packed, pack, quantize_
from ablate.errors import BadInput
from ablate.models import checkpoints, loading
from ablate.quantization.packed_header import of_config, to_config

FILES = ("config.json", "model.safetensors")

fuzz = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])


def intact(checkpoint, folder):
    """The two files of a packed model with a layer of every precision."""
    model = checkpoints.load(str(checkpoint), ["a", "b", "c"])
    specs = {"*.q_proj": "binary", "*.fc1": "ternary", "*.fc2": "int4", "*.k_proj": "int8"}
    quantize_(model, {pattern: LayerSpec(weights=weights) for pattern, weights in specs.items()})
    quantize_(model, {"*.v_proj": LayerSpec(weights="binary", beta_per="channel")})
    pack(model, folder, preprocess=loading.preprocess(str(checkpoint)))
    return {name: (folder / name).read_bytes() for name in FILES}


def refused(folder, files, match=None):
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with pytest.raises(BadInput, match=match) as error:
        load_packed(folder)
    assert len(str(error.value).splitlines()) == 1 and len(str(error.value)) < 600


def forge(good, fields=None, tensors=None, config=None):
    """Files with other contents and the right checksum, as a forger would make them.

    `fields` are of the header, `config` of the file that it is written in.
    """
    content = to_config(header_of(good) | (fields or {})) | (config or {})
    header = of_config(content)
    header.pop("sha256")
    body = good["model.safetensors"]
    if tensors is not None:
        body = tensors if isinstance(tensors, bytes) else save(tensors)
    content["quantization_config"]["sha256"] = hashlib.sha256(spelled(header) + body).hexdigest()
    return {"config.json": spelled(content), "model.safetensors": body}


def spelled(fields):
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


def header_of(files):
    return of_config(json.loads(files["config.json"]))
