"""What defines a model: its identity, its description, and what makes a vector usable. No model is run here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from connectors.embedding.settings import EngineKind
from connectors.errors import EmbeddingFailed, Misconfigured

Vectors = NDArray[np.float32]
Pooling = Literal["mean", "cls"]

REVISION_LENGTH = 12
_HASHED = {".json", ".txt", ".safetensors", ".bin", ".model", ".py"}
_OTHER_BACKENDS = {"onnx", "openvino"}
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """The identity that every vector carries. `revision` is a hash of weights, tokenizer and engine kind."""

    name: str
    revision: str
    dimension: int

    @property
    def key(self) -> str:
        """Name and revision in one string."""
        return f"{self.name}@{self.revision}"


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """How a model is run. `window` counts tokens, including special tokens. A prompt precedes every text."""

    identity: ModelIdentity
    window: int
    pooling: Pooling
    query_prompt: str
    document_prompt: str

    def to_json(self) -> str:
        """Return the description as one JSON document."""
        return json.dumps(asdict(self), indent=1)

    @staticmethod
    def from_json(text: str) -> ModelDescription:
        """Read what `to_json` wrote."""
        fields = json.loads(text)
        return ModelDescription(**{**fields, "identity": ModelIdentity(**fields["identity"])})


def content_revision(folder: Path, engine: EngineKind) -> str:
    """Return the revision of a model folder run by this engine kind. The same files give the same revision anywhere.

    Weights of other backends (`onnx/`, `openvino/`) and pages about the model are ignored.
    """
    files = sorted(
        (path.relative_to(folder).as_posix(), path)
        for path in folder.rglob("*")
        if path.suffix in _HASHED and path.is_file() and not _ignored(path.relative_to(folder).parts)
    )
    if any(path.suffix == ".safetensors" for _, path in files):
        files = [(name, path) for name, path in files if path.suffix != ".bin"]
    if not any(path.suffix in {".safetensors", ".bin"} for _, path in files):
        raise Misconfigured(f"{folder} has no weights (model.safetensors or pytorch_model.bin)")
    whole = hashlib.sha256(engine.encode())
    for name, path in files:
        whole.update(f"\0{name}\0".encode() + _digest(path))
    return whole.hexdigest()[:REVISION_LENGTH]


def _ignored(parts: tuple[str, ...]) -> bool:
    return parts[0] in _OTHER_BACKENDS or any(part.startswith(".") for part in parts)


def _digest(path: Path) -> bytes:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.digest()


def normalised(vectors: Vectors, dimension: int) -> Vectors:
    """Return the vectors [n, dimension] scaled to length 1.

    Raises EmbeddingFailed for another shape, NaN, infinity or a vector of zeros.
    """
    if vectors.ndim != 2 or vectors.shape[1] != dimension:
        raise EmbeddingFailed(f"the model gave vectors of shape {vectors.shape}, expected {dimension} numbers each")
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    if not np.isfinite(lengths).all():
        raise EmbeddingFailed("the model gave a vector with NaN or infinite numbers")
    if not (lengths > 0).all():
        raise EmbeddingFailed("the model gave a vector of zeros, which has no direction")
    return np.ascontiguousarray(vectors / lengths, dtype=np.float32)


def to_bytes(vectors: Vectors) -> list[bytes]:
    """Return each row as little-endian float32 bytes."""
    return [row.tobytes() for row in vectors.astype("<f4", copy=False)]


def cosines(left: Vectors, right: Vectors) -> Sequence[float]:
    """Return the cosine of each pair of rows; both sides have length 1."""
    return [float(cosine) for cosine in np.sum(left * right, axis=1)]
