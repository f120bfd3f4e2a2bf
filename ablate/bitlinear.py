"""BitLinear and its quantizers, under the name that users import: `from ablate.bitlinear import binarize`."""

from ablate.quantization.bitlinear import BitLinear as BitLinear
from ablate.quantization.quantizers import binarize as binarize
from ablate.quantization.quantizers import quantize_activations as quantize_activations
from ablate.quantization.quantizers import quantize_weights as quantize_weights
from ablate.quantization.quantizers import ternarize as ternarize
