"""Quantises an ONNX graph to int8 for this machine's instruction set, within a minimum cosine. Files in, files out."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

InstructionSet = Literal["vnni", "arm64", "no-vnni"]
# Each product kept in float costs a few percent of speed: with more than this many, fp32 is the better choice.
_MOST_KEPT = 2


def instruction_set() -> InstructionSet:
    """Return which int8 arithmetic this CPU has, or the conservative one if the CPU is unknown."""
    if platform.machine().lower() in {"arm64", "aarch64"}:
        return "arm64"
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="ignore")
    except OSError:
        return "no-vnni"
    return "vnni" if "avx512_vnni" in flags or "avx_vnni" in flags else "no-vnni"


def quantize_int8(source: Path, target: Path, instructions: InstructionSet, kept: Sequence[str] = ()) -> None:
    """Write the graph with int8 weights, one scale for each column, and activations scaled at run time.

    Older x86 CPUs add pairs of products in 16 bits, which 8-bit weights overflow: there the weights have 7 bits. The
    table of word vectors is not quantised, because a look-up gains nothing. The nodes named in `kept` stay in float.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415 only an export needs it

    quantize_dynamic(
        str(source),
        str(target),
        op_types_to_quantize=["MatMul"],
        nodes_to_exclude=list(kept),
        weight_type=QuantType.QInt8,
        per_channel=True,
        reduce_range=instructions == "no-vnni",
        # A product of two activations (attention) is not quantised.
        extra_options={"MatMulConstBOnly": True},
    )


def quantize_closely(
    quantize: Callable[[Sequence[str]], float], layers: Sequence[str], minimum: float
) -> tuple[str, ...]:
    """Return the fewest candidates to keep in float, at most two, that raise the lowest cosine to the minimum.

    `suspects` are the candidates. `quantize` writes the graph with the given nodes kept, and returns its lowest cosine.
    The last graph written is that of the returned nodes. If nothing reaches the minimum, it is the closest one found.
    """
    kept: tuple[str, ...] = ()
    cosine = quantize(kept)
    while cosine < minimum and len(kept) < min(_MOST_KEPT, len(layers)):
        found = {layer: quantize((*kept, layer)) for layer in layers if layer not in kept}
        kept = (*kept, max(found, key=lambda layer: found[layer]))
        cosine = quantize(kept)
    return kept


def feed_forward_outputs(source: Path) -> list[str]:
    """Return the products that lead from the wide inner layer of a feed-forward block back to the model's width.

    Their input has the largest outliers of the network, so a single scale is coarsest there.
    """
    import onnx  # noqa: PLC0415 only an export needs it

    graph = onnx.load(str(source)).graph
    shapes = {weights.name: tuple(weights.dims) for weights in graph.initializer}
    return [
        node.name
        for node in graph.node
        if node.op_type == "MatMul" and len(shape := shapes.get(node.input[1], ())) == 2 and shape[0] > shape[1]
    ]
