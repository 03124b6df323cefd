"""Quantises an ONNX graph to int8 for the instruction set of this machine. Files in, files out."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Literal

InstructionSet = Literal["vnni", "arm64", "no-vnni"]


def instruction_set() -> InstructionSet:
    """Return which int8 arithmetic this CPU has; without knowledge of the CPU, the careful one."""
    if platform.machine().lower() in {"arm64", "aarch64"}:
        return "arm64"
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="ignore")
    except OSError:
        return "no-vnni"
    return "vnni" if "avx512_vnni" in flags or "avx_vnni" in flags else "no-vnni"


def quantize_int8(source: Path, target: Path, instructions: InstructionSet) -> None:
    """Write the graph with int8 weights, one scale a column, and activations scaled at run time.

    Older x86 adds pairs of products in 16 bits, which 8-bit weights overflow: there they are kept to 7 bits. The table of
    word vectors stays as it is, a look-up gains nothing.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        str(source),
        str(target),
        op_types_to_quantize=["MatMul"],
        weight_type=QuantType.QInt8,
        per_channel=True,
        reduce_range=instructions == "no-vnni",
        # A product of two activations (attention) is not quantised.
        extra_options={"MatMulConstBOnly": True},
    )
