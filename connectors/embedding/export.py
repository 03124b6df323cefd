"""Exports a model to ONNX, once: `python -m connectors.embedding.export REQUEST`.

It runs as a separate process, so that no worker ever loads torch. It writes JSON lines to stdout: `progress`, then
either `done` or `refused`.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from connectors.embedding.chunking import Chunker, plain_tokenizer
from connectors.embedding.describe import describe
from connectors.embedding.engine import (
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    OnnxEngine,
    load_sentence_transformer,
    tokenizer_json,
)
from connectors.embedding.model import ModelDescription, Vectors, cosines, normalised
from connectors.embedding.probe import Closeness, probe_texts, refuse_unless_close
from connectors.embedding.quantize import feed_forward_outputs, instruction_set, quantize_closely, quantize_int8
from connectors.errors import CrossfadeError, Misconfigured

DESCRIPTION_FILE = "description.json"
CLOSENESS_FILE = "closeness.json"
EXPORTED, FOUND = "exported", "found"


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What to export, and where to. `target` exists only after the export is complete and checked."""

    source: str
    target: str
    name: str
    revision: str
    int8: bool
    minimum_cosine: float
    wait_s: float


def export(request: ExportRequest, progress: Callable[[str], None]) -> str:
    """Export unless the target exists. Return EXPORTED or FOUND. Raises Misconfigured for a model that is refused."""
    target = Path(request.target)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(f"{target}.lock", timeout=request.wait_s):
            for abandoned in target.parent.glob(f"{target.name}.*.part"):  # of an export that was killed
                shutil.rmtree(abandoned, ignore_errors=True)
            if target.is_dir():
                return FOUND
            work = Path(tempfile.mkdtemp(prefix=f"{target.name}.", suffix=".part", dir=target.parent))
            try:
                _export_into(work / "export", request, progress)
                (work / "export").rename(target)
            finally:
                shutil.rmtree(work, ignore_errors=True)
            return EXPORTED
    except Timeout as error:
        raise Misconfigured(f"another process has been exporting {request.name} for {request.wait_s:.0f} s") from error


def _export_into(folder: Path, request: ExportRequest, progress: Callable[[str], None]) -> None:
    folder.mkdir()
    progress(f"loading {request.name}")
    original = load_sentence_transformer(Path(request.source), device="cpu")
    description = describe(original, request.name, request.revision, for_onnx=True)
    tokenizer = tokenizer_json(original)
    (folder / TOKENIZER_FILE).write_text(tokenizer, encoding="utf-8")
    (folder / DESCRIPTION_FILE).write_text(description.to_json(), encoding="utf-8")
    plain = plain_tokenizer(tokenizer)
    texts = probe_texts(Chunker(plain, description.window - plain.num_special_tokens_to_add(False), 0))
    reference = _reference(original, texts, description)
    progress(f"exporting {request.name} to ONNX")
    graph = _write_graph(request, folder)
    if request.int8:
        progress("quantising to int8")
        _quantise(graph, folder, description, texts, reference, request.minimum_cosine)
    else:
        graph.rename(folder / WEIGHTS_FILE)
    progress("comparing the export with the original")
    closeness = verify(folder, description, texts, reference, request.minimum_cosine)
    (folder / CLOSENESS_FILE).write_text(json.dumps(asdict(closeness)), encoding="utf-8")


def verify(
    folder: Path, description: ModelDescription, texts: tuple[str, ...], reference: Vectors, minimum: float
) -> Closeness:
    """Compare the exported folder, run as it will be served, with the original's vectors. Raises Misconfigured."""
    engine = OnnxEngine(folder, description, threads=1)
    return refuse_unless_close(engine, texts, reference, minimum)


def _reference(original: Any, texts: tuple[str, ...], description: ModelDescription) -> Vectors:
    vectors = original.encode(list(texts), show_progress_bar=False, prompt="")
    return normalised(np.asarray(vectors, dtype=np.float32), description.identity.dimension)


def _quantise(
    graph: Path,
    folder: Path,
    description: ModelDescription,
    texts: tuple[str, ...],
    reference: Vectors,
    minimum: float,
) -> None:
    instructions = instruction_set()

    def quantize(kept: Sequence[str]) -> float:
        quantize_int8(graph, folder / WEIGHTS_FILE, instructions, kept)
        return min(cosines(OnnxEngine(folder, description, threads=1).embed(texts), reference))

    quantize_closely(quantize, feed_forward_outputs(graph), minimum)


def _write_graph(request: ExportRequest, folder: Path) -> Path:
    options = {"export": True, "provider": "CPUExecutionProvider"}
    exported = load_sentence_transformer(Path(request.source), backend="onnx", model_kwargs=options)
    raw = folder.parent / "raw"
    exported.save_pretrained(str(raw))
    graph = raw / "onnx" / "model.onnx"
    if not graph.is_file() or [*graph.parent.glob("*.onnx_data")]:
        raise Misconfigured(f'{request.name} is too large for one ONNX file (2 GB); set engine = "torch"')
    return graph


def main() -> int:
    """Serve one request, given as JSON in the first argument."""
    out = sys.stdout
    # Libraries that print must not disturb the protocol on stdout.
    sys.stdout = sys.stderr

    def say(**line: str) -> None:
        print(json.dumps(line), file=out, flush=True)

    try:
        say(done=export(ExportRequest(**json.loads(sys.argv[1])), lambda text: say(progress=text)))
    except CrossfadeError as error:
        say(refused=str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
