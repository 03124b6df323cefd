"""The in-memory adapter of the port `Embedder`: hashes words into a vector; deterministic, no model, no threads."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence

import numpy as np

from connectors.embedding.model import ModelIdentity, normalised, to_bytes
from connectors.errors import EmbeddingUnavailable, Misconfigured

_WORD = re.compile(r"\w+")
_PIECE = re.compile(r"\S+")


class HashingEmbedder:
    """Texts that share words get similar vectors. Counts its work in `documents_embedded` and `queries_embedded`.

    A chunk holds up to `chunk_words` words, separated by white space; neighbours share `overlap_words`.
    """

    def __init__(
        self, dimension: int = 64, chunk_words: int = 200, overlap_words: int = 0, name: str = "hashing"
    ) -> None:
        if dimension < 1 or not 0 <= overlap_words < chunk_words:
            raise Misconfigured("dimension must be positive and overlap_words below chunk_words")
        self.identity = ModelIdentity(name, "1", dimension)
        self.documents_embedded = 0
        self.queries_embedded = 0
        self._chunk_words = chunk_words
        self._step = chunk_words - overlap_words
        self._closed = False

    @property
    def model_key(self) -> str:
        """Name and revision of the model, as stored with every vector."""
        return self.identity.key

    @property
    def dimension(self) -> int:
        """Length of every vector."""
        return self.identity.dimension

    def chunks(self, text: str) -> tuple[str, ...]:
        """Return the text in pieces, at least one; white space inside a piece is kept."""
        words = list(_PIECE.finditer(text))
        if len(words) <= self._chunk_words:
            return (text.strip(),)
        pieces: list[str] = []
        for start in range(0, len(words), self._step):
            end = min(start + self._chunk_words, len(words))
            pieces.append(text[words[start].start() : words[end - 1].end()])
            if end == len(words):
                break
        return tuple(pieces)

    async def chunked(self, texts: Sequence[str], progress: Callable[[], None] = lambda: None) -> list[tuple[str, ...]]:
        """Return the chunks of each text. Words are found at 20 MB/s, so a thread would not pay off."""
        found = [self.chunks(text) for text in texts]
        progress()
        return found

    async def embed_documents(self, texts: Sequence[str], progress: Callable[[], None] = lambda: None) -> list[bytes]:
        """Return one vector for each text. Raises EmbeddingUnavailable when closed."""
        self._refuse_when_closed()
        self.documents_embedded += len(texts)
        vectors = [self._vector(text) for text in texts]
        progress()
        return vectors

    async def embed_query(self, text: str) -> bytes:
        """Return the vector of a question. Raises EmbeddingUnavailable when closed."""
        self._refuse_when_closed()
        self.queries_embedded += 1
        return self._vector(text)

    async def close(self) -> None:
        """Refuse every later call."""
        self._closed = True

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise EmbeddingUnavailable("the embedding engine is closed")

    def _vector(self, text: str) -> bytes:
        vector = np.zeros((1, self.dimension), dtype=np.float32)
        for word in _WORD.findall(text.lower()) or [""]:
            digest = int.from_bytes(hashlib.blake2b(word.encode(errors="surrogatepass"), digest_size=8).digest(), "big")
            # Counts only, no signs: two words with the same index must not make a vector of zeros.
            vector[0, digest % self.dimension] += 1.0
        return to_bytes(normalised(vector, self.dimension))[0]
