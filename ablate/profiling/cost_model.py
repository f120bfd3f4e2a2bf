"""Bounds on a study's trials: what a point costs, counted before it is trained, and how far that is out of bounds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from torch import nn

from ablate.config.trial_spec import LayerSpec, TrialSpec
from ablate.models.preprocessing import Preprocess
from ablate.profiling import macs
from ablate.profiling.latency import LatencyTable
from ablate.quantization import packed_model, quantize

Count = Callable[
    [TrialSpec], Mapping[str, float]
]  # an effective trial -> what is known of it before it is trained


@dataclass(frozen=True)
class Counter:
    """Counts what a trial's record will say: bytes of its packed model, bit operations and, with a table, latency."""

    model: nn.Module  # in full precision
    preprocess: Preprocess
    groups: Mapping[str, list[str]]  # layer group -> names of its layers
    table: LatencyTable | None = None

    def __call__(self, spec: TrialSpec) -> Mapping[str, float]:
        layer: dict[str, LayerSpec] = {
            name: of for group, of in spec.layers.items() for name in self.groups[group]
        }
        found = quantize.resolved(self.model, layer)
        costs: dict[str, float] = {
            "size_bytes": packed_model.packed_bytes(self.model, found, preprocess=self.preprocess)
        }
        costs["bitops"] = macs.bitops(*self._macs, found)
        return costs | ({"latency_ms": self.table.sum(found)} if self.table else {})

    @cached_property
    def _macs(self) -> tuple[int, dict[str, int]]:
        return macs.macs(self.model, self.preprocess.size)
