"""Engines turn texts into vectors: synchronous, safe to use from several threads, no event loop.

The serving engine is ONNX Runtime without torch. It runs each text by itself. Int8 inference scales its activations by
the content of the run, so in a batch a text's vector would depend on its neighbours. Run alone, the same text gives the
same bytes, nothing is padded, and two cores work on two texts at once.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from tokenizers import Tokenizer

from connectors.embedding.chunking import plain_tokenizer
from connectors.embedding.model import ModelDescription, ModelIdentity, Vectors, normalised
from connectors.errors import EmbeddingFailed, EmbeddingUnavailable, Misconfigured
from connectors.failpoints import spoiled

WEIGHTS_FILE = "model.onnx"
TOKENIZER_FILE = "tokenizer.json"
# Slower than the separate operations on every measured CPU.
_DISABLED_OPTIMISATIONS = ["SkipLayerNormFusion"]


class Engine(Protocol):
    """Computes vectors. `embed` raises EmbeddingFailed or EmbeddingUnavailable."""

    @property
    def description(self) -> ModelDescription:
        """Identity, window and prompts of the model."""
        ...

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer, which neither truncates nor pads."""
        ...

    @property
    def identity(self) -> ModelIdentity:
        """Name, revision and dimension of the model."""
        ...

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return float32 [n, dimension], rows of length 1. A text longer than the window is refused, never cut."""
        ...

    def lane(self) -> Engine:
        """Return an engine of the same model whose calls do not wait for this one's."""
        ...

    def close(self) -> None:
        """End the threads."""
        ...


def token_ids(tokenizer: Tokenizer, texts: Sequence[str], description: ModelDescription) -> list[list[int]]:
    """Return the tokens of each text, including special tokens. Raises EmbeddingFailed above the model's window."""
    try:
        tokens: list[list[int]] = [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts))]
    except (TypeError, UnicodeError) as error:
        raise EmbeddingFailed("a text is not valid Unicode (a lone surrogate)") from error
    longest = max(map(len, tokens), default=0)
    if longest > description.window:
        raise EmbeddingFailed(f"a text has {longest} tokens, the model reads {description.window}: chunk it first")
    return tokens


class OnnxEngine:
    """An exported model in a folder, run by ONNX Runtime on `threads` texts at once.

    With one thread, a call computes on the caller's own thread.
    """

    def __init__(self, folder: Path, description: ModelDescription, threads: int) -> None:
        self.description = description
        self.tokenizer = plain_tokenizer((folder / TOKENIZER_FILE).read_text(encoding="utf-8"))
        self._session = _open_session(folder / WEIGHTS_FILE)
        self._inputs = {argument.name for argument in self._session.get_inputs()}
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="embed") if threads > 1 else None

    @property
    def identity(self) -> ModelIdentity:
        """Name, revision and dimension of the model."""
        return self.description.identity

    def lane(self) -> OnnxEngine:
        """Return an engine over the same weights that computes on the caller's thread, bypassing this one's queue."""
        lane = object.__new__(OnnxEngine)
        lane.description, lane.tokenizer = self.description, self.tokenizer
        lane._session, lane._inputs, lane._pool = self._session, self._inputs, None
        return lane

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return float32 [n, dimension] of length 1; see `Engine`."""
        tokens = token_ids(self.tokenizer, texts, self.description)
        rows = np.empty((len(tokens), self.identity.dimension), dtype=np.float32)
        # Longest first, so that no thread is left with a long text at the end.
        order = sorted(range(len(tokens)), key=lambda i: -len(tokens[i]))
        ordered = [tokens[i] for i in order]
        try:
            vectors = self._pool.map(self._vector, ordered) if self._pool else map(self._vector, ordered)
            for i, vector in zip(order, vectors, strict=True):
                rows[i] = vector
        except EmbeddingFailed:
            raise
        except Exception as error:  # ONNX Runtime's errors have no common base; a closed pool raises RuntimeError
            raise EmbeddingUnavailable(f"the embedding engine failed: {error}") from error
        return normalised(spoiled(rows), self.identity.dimension)

    def close(self) -> None:
        """End the threads."""
        if self._pool:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _vector(self, tokens: list[int]) -> Vectors:
        ids = np.array([tokens], dtype=np.int64)
        given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        states = self._session.run(None, {name: given[name] for name in self._inputs})[0][0]
        # [tokens, dimension]: nothing is padded, so every row counts
        vector = states[0] if self.description.pooling == "cls" else states.mean(axis=0)
        if vector.shape != (self.identity.dimension,):
            raise EmbeddingFailed(f"the model gave {vector.shape[0]} numbers, expected {self.identity.dimension}")
        return cast(Vectors, vector)


class TorchEngine:
    """Any sentence-transformers model, run by torch as sentence-transformers runs it. Loads torch into this process."""

    def __init__(self, model: Any, folder: Path, description: ModelDescription, threads: int, batch_size: int) -> None:
        importlib.import_module("torch").set_num_threads(threads)
        self.description = description
        self._model, self._folder, self._threads, self._batch_size = model, folder, threads, batch_size
        self.tokenizer = plain_tokenizer(tokenizer_json(model))
        # The model's tokenizer keeps state between calls.
        self._lock = threading.Lock()

    @property
    def identity(self) -> ModelIdentity:
        """Name, revision and dimension of the model."""
        return self.description.identity

    def lane(self) -> TorchEngine:
        """Return an engine with a second copy of the model, so that its calls do not wait for this one's."""
        model = load_sentence_transformer(self._folder)
        return TorchEngine(model, self._folder, self.description, self._threads, self._batch_size)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return float32 [n, dimension] of length 1; see `Engine`."""
        token_ids(self.tokenizer, texts, self.description)
        if not texts:
            return np.empty((0, self.identity.dimension), dtype=np.float32)
        try:
            with self._lock:
                vectors = self._model.encode(
                    list(texts), batch_size=self._batch_size, show_progress_bar=False, prompt=""
                )
        except Exception as error:  # torch raises RuntimeError and its subclasses for memory, devices and shapes alike
            raise EmbeddingUnavailable(f"the embedding engine failed: {error}") from error
        return normalised(np.asarray(vectors, dtype=np.float32), self.identity.dimension)

    def close(self) -> None:
        """Do nothing: calls compute on the caller's thread."""


def load_sentence_transformer(folder: Path, **options: Any) -> Any:
    """Load a model folder with sentence-transformers, which imports torch. Raises Misconfigured for a broken folder."""
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415 imports torch, which a worker must not load

    try:
        return SentenceTransformer(str(folder), local_files_only=True, **options)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise Misconfigured(f"the model in {folder} cannot be loaded: {error}") from error


def tokenizer_json(model: Any) -> str:
    """Return the JSON form of a loaded model's tokenizer. Raises Misconfigured for one written in Python."""
    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise Misconfigured("the model has no fast tokenizer (tokenizer.json), which chunking needs")
    return str(backend.to_str())


def _open_session(weights: Path) -> Any:
    import onnxruntime  # noqa: PLC0415 a process with the torch engine does not need it

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    # Each run uses only the caller's own thread: several runs at once use the cores better than one split run.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(
            str(weights), options, providers=["CPUExecutionProvider"], disabled_optimizers=_DISABLED_OPTIMISATIONS
        )
    except Exception as error:  # ONNX Runtime's errors have no common base
        raise Misconfigured(f"{weights.parent} cannot be loaded, remove it to export again: {error}") from error
