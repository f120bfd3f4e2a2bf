"""What a trial's layers are called in tables."""

import pytest

from ablate import LayerSpec
from ablate.formatting import describe_layers


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ([], "all full"),
        ([{"weights": "binary"}, {"weights": "ternary"}], "1 binary, 1 ternary; activations 8 bit"),
        ([{"weights": "int8", "activation_scale": "static"}], "1 int8; activations 8 bit, static scale"),
        (
            [
                {"weights": "binary", "activation_bits": 4},
                {"weights": "binary", "activation_scale": "tensor"},
            ],
            "2 binary; activations 4/8 bit, tensor/token scale",
        ),
    ],
)
def test_layers(fields, said):
    layers = {f"block{i}": LayerSpec(**each).model_dump() for i, each in enumerate(fields)}
    assert describe_layers({"layers": layers}) == said
