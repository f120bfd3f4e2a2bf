"""The latency of a model's parts: a table that a search adds up."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from ablate.config.precisions import Weights
from ablate.config.trial_spec import LayerSpec

FULL = LayerSpec()


@dataclass(frozen=True)
class LatencyTable:
    """The latency of a call at a batch of one, in parts.

    Attributes:
        layers: By layer name and precision, ms of the layer by itself.
        rest_ms: Of what is neither in these layers nor in the blocks.
        blocks: Of blocks that are computed as one, such as `FusedBlock`.
    """

    layers: Mapping[str, Mapping[LayerSpec, float]]
    rest_ms: float
    blocks: Sequence["BlockLatency"] = ()

    def dump(self) -> dict[str, Any]:
        """Return the table as plain data, for JSON."""
        rows = {}
        for name, row in self.layers.items():
            rows[name] = [(spec.model_dump(), ms) for spec, ms in row.items()]
        blocks = [
            (
                block.layers,
                [([spec.model_dump() for spec in specs], ms) for specs, ms in block.fused.items()],
                [[(spec.model_dump(), ms) for spec, ms in row.items()] for row in block.apart],
            )
            for block in self.blocks
        ]
        return {"layers": rows, "rest_ms": self.rest_ms, "blocks": blocks}

    @classmethod
    def restore(cls, plain: dict[str, Any]) -> Self:
        """Return the table that was dumped."""
        rows = {name: {LayerSpec(**spec): ms for spec, ms in row} for name, row in plain["layers"].items()}
        if "blocks" not in plain:  # of a version that took activations of 1 bit for those of 8
            for row in rows.values():
                signed = {spec: ms for spec, ms in row.items() if spec.signed and spec.activation_bits}
                row |= {spec.model_copy(update={"activation_bits": 1}): ms for spec, ms in signed.items()}
        blocks = [
            BlockLatency(
                tuple(map(tuple, layers)),
                {tuple(LayerSpec(**spec) for spec in specs): ms for specs, ms in fused},
                tuple({LayerSpec(**spec): ms for spec, ms in row} for row in apart),
            )
            for layers, fused, apart in plain.get("blocks", ())
        ]
        return cls(rows, plain["rest_ms"], tuple(blocks))

    def sum(self, precisions: Mapping[str, LayerSpec]) -> float:
        """Add up the latency of a model, in ms.

        Args:
            precisions: By layer name; a layer that is absent is full.
        """
        layers = sum(row[key(precisions.get(name, FULL))] for name, row in self.layers.items())
        return self.rest_ms + layers + sum(block.of(precisions) for block in self.blocks)


@dataclass(frozen=True)
class BlockLatency:
    """The latency of a block that may be computed as one.

    Attributes:
        layers: Names of the layers that share a precision; for each such part of the block.
        fused: By the precision of each part, reduced by `key`: ms where it is computed as one.
        apart: Where it is not, the ms that each part adds at each precision; that of the first part includes
            the rest of the block.
    """

    layers: tuple[tuple[str, ...], ...]
    fused: Mapping[tuple[LayerSpec, ...], float]
    apart: tuple[Mapping[LayerSpec, float], ...]

    def of(self, precisions: Mapping[str, LayerSpec]) -> float:
        """The latency in ms; where the layers of a part differ, the largest that one of them would cause."""
        parts = [{precisions.get(name, FULL) for name in names} for names in self.layers]
        return max(map(self._at, itertools.product(*parts)))

    def _at(self, precisions: tuple[LayerSpec, ...]) -> float:
        specs = tuple(map(key, precisions))
        if specs in self.fused:
            return self.fused[specs]
        return max(0.0, sum(row[spec] for row, spec in zip(self.apart, specs, strict=True)))


def key(spec: LayerSpec) -> LayerSpec:
    """Reduce a precision to what latency depends on.

    Activations of 1 to 8 bits all run on int8, as do weights of 1 to 4 bits. Those of 1 bit are never fused.
    """
    if spec.weights == "full":
        return FULL
    bits = 8 if spec.activation_bits and spec.activation_bits > 1 else spec.activation_bits
    weights: Weights = "int8" if spec.weights == "int8" else "binary"
    names = ("norm", "activation_scale", "signed") if bits else ("norm",)
    fields = {name: getattr(spec, name) for name in names}
    return LayerSpec(weights=weights, activation_bits=bits, **fields)
