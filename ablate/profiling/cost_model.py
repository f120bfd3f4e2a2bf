"""Counts what a trial costs before it is trained, for the bounds of a study."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from torch import nn

from ablate.config.trial_spec import LayerSpec, TrialSpec
from ablate.models.preprocessing import Preprocess
from ablate.profiling.latency_table import LatencyTable
from ablate.profiling.macs import Macs, bitops
from ablate.profiling.macs import macs as count_macs
from ablate.quantization import quantize
from ablate.quantization.packed_size import packed_bytes

# an effective trial -> the costs in its record that are known before it is trained
Count = Callable[[TrialSpec], Mapping[str, float]]


@dataclass(frozen=True)
class Counter:
    """Counts the costs that a trial's record will have.

    Attributes:
        model: In full precision.
        preprocess: The image processing that is packed with it.
        groups: By layer group, the names of its layers.
        table: Of layer latencies; None: latency is not counted.
    """

    model: nn.Module
    preprocess: Preprocess
    groups: Mapping[str, list[str]]
    table: LatencyTable | None = None

    def __call__(self, spec: TrialSpec) -> Mapping[str, float]:
        """Return `size_bytes` of the packed model, `bitops` and, with a table, `latency_ms`."""
        patterns: dict[str, LayerSpec] = {}
        for group, layer in spec.layers.items():
            patterns.update(dict.fromkeys(self.groups[group], layer))
        precisions = quantize.resolved(self.model, patterns)
        bits = spec.recipe.attention_bits
        size = packed_bytes(self.model, precisions, preprocess=self.preprocess, attention=bits)
        costs: dict[str, float] = {
            "size_bytes": size,
            "bitops": bitops(self.macs, precisions, bits),
        }
        if self.table:
            costs["latency_ms"] = self.table.sum(precisions)
        return costs

    @cached_property
    def macs(self) -> Macs:
        """The MACs of one image."""
        return count_macs(self.model, self.preprocess.size)
