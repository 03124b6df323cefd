"""Quantises an ONNX graph to int8 for the instruction set of this machine, closely enough. Files in, files out."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

InstructionSet = Literal["vnni", "arm64", "no-vnni"]
# Each product kept in float costs a few percent of speed: above this many, fp32 is the better choice.
_MOST_KEPT = 2


def instruction_set() -> InstructionSet:
    """Return which int8 arithmetic this CPU has; without knowledge of the CPU, the careful one."""
    if platform.machine().lower() in {"arm64", "aarch64"}:
        return "arm64"
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="ignore")
    except OSError:
        return "no-vnni"
    return "vnni" if "avx512_vnni" in flags or "avx_vnni" in flags else "no-vnni"


def quantize_int8(source: Path, target: Path, instructions: InstructionSet, kept: Sequence[str] = ()) -> None:
    """Write the graph with int8 weights, one scale a column, and activations scaled at run time.

    Older x86 adds pairs of products in 16 bits, which 8-bit weights overflow: there they are held to 7 bits. The table
    of word vectors stays as it is, a look-up gains nothing. The nodes named in `kept` stay in float.
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
    quantize: Callable[[Sequence[str]], float], suspects: Sequence[str], minimum: float
) -> tuple[str, ...]:
    """Return the fewest suspects to keep in float, at most two, that bring the least cosine up to the minimum.

    `quantize` writes the graph with these nodes kept and returns its least cosine. What this returns was
    quantised last; where nothing reaches the minimum, that is the closest found.
    """
    kept: tuple[str, ...] = ()
    cosine = quantize(kept)
    while cosine < minimum and len(kept) < min(_MOST_KEPT, len(suspects)):
        found = {suspect: quantize((*kept, suspect)) for suspect in suspects if suspect not in kept}
        kept = (*kept, max(found, key=lambda suspect: found[suspect]))
        cosine = quantize(kept)
    return kept


def feed_forward_outputs(source: Path) -> list[str]:
    """Return the products that lead from the wide inner layer of a feed-forward block back to the model's width.

    What they read has the largest outliers of the network, so that one scale for all of it is coarsest there.
    """
    import onnx  # noqa: PLC0415 only an export needs it

    graph = onnx.load(str(source)).graph
    shapes = {weights.name: tuple(weights.dims) for weights in graph.initializer}
    return [
        node.name
        for node in graph.node
        if node.op_type == "MatMul" and len(shape := shapes.get(node.input[1], ())) == 2 and shape[0] > shape[1]
    ]
