"""Exported models in the cache folder. Finds one, or has a separate process export it, and opens its engine."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

from connectors.embedding.describe import describe
from connectors.embedding.engine import Engine, OnnxEngine, TorchEngine, load_sentence_transformer
from connectors.embedding.export import CLOSENESS_FILE, DESCRIPTION_FILE, EXPORTED, ExportRequest
from connectors.embedding.locate import locate_model, model_name
from connectors.embedding.model import ModelDescription, content_revision
from connectors.embedding.quantize import instruction_set
from connectors.embedding.settings import EmbeddingSettings
from connectors.errors import EmbeddingUnavailable, Misconfigured

# A new version of one of these may write a different graph.
_EXPORTERS = ("onnxruntime", "sentence-transformers", "transformers", "optimum-onnx")
# Increased when the content of an exported folder changes.
_FORMAT = 1
_ERROR_CHARACTERS = 2000


async def open_engine(settings: EmbeddingSettings, cache: Path, progress: Callable[[str], None]) -> Engine:
    """Return the engine of the settings' model. A model that is not in the cache is exported first.

    Raises Misconfigured for a model that cannot be used with these settings, EmbeddingUnavailable if the hub or the
    export does not answer.
    """
    source = await asyncio.to_thread(locate_model, settings.model, progress)
    revision = await asyncio.to_thread(content_revision, source, settings.engine)
    if settings.engine == "torch":
        return await asyncio.to_thread(_open_torch, source, revision, settings)
    folder = export_folder(cache, revision, settings)
    if not folder.is_dir():
        await _export(source, folder, revision, settings, progress)
    return await asyncio.to_thread(_open_onnx, folder, settings)


def export_folder(cache: Path, revision: str, settings: EmbeddingSettings) -> Path:
    """Return the folder for a model revision's export. Each engine, CPU kind and library version has its own."""
    parts = [revision, settings.engine, str(_FORMAT), *(f"{name} {version(name)}" for name in _EXPORTERS)]
    if settings.engine == "onnx-int8":
        parts.append(instruction_set())
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", model_name(settings.model))
    return cache.absolute() / "embedding" / f"{name}-{settings.engine}-{key}"


def _open_torch(source: Path, revision: str, settings: EmbeddingSettings) -> Engine:
    model = load_sentence_transformer(source)
    description = describe(model, model_name(settings.model), revision, for_onnx=False)
    return TorchEngine(model, source, description, settings.cores(), settings.batch_size)


def _open_onnx(folder: Path, settings: EmbeddingSettings) -> Engine:
    try:
        description = ModelDescription.from_json((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))
        cosine = float(json.loads((folder / CLOSENESS_FILE).read_text(encoding="utf-8"))["minimum"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Misconfigured(f"{folder} is damaged, remove it to export again: {error}") from error
    if cosine < settings.minimum_cosine:
        raise Misconfigured(
            f"the exported model's least cosine to the original is {cosine:.4f}, minimum_cosine is "
            f'{settings.minimum_cosine}; use engine = "onnx-fp32" or "torch"'
        )
    # Two names of the same files share one export.
    identity = replace(description.identity, name=model_name(settings.model))
    return OnnxEngine(folder, replace(description, identity=identity), settings.cores())


async def _export(
    source: Path, folder: Path, revision: str, settings: EmbeddingSettings, progress: Callable[[str], None]
) -> None:
    request = ExportRequest(
        source=str(source),
        target=str(folder),
        name=model_name(settings.model),
        revision=revision,
        int8=settings.engine == "onnx-int8",
        minimum_cosine=settings.minimum_cosine,
        wait_s=settings.export_timeout_s,
    )
    # The model's files are on this machine: the export must not download anything.
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    with tempfile.TemporaryFile() as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "connectors.embedding.export",
            json.dumps(asdict(request)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            env=environment,
        )
        try:
            async with asyncio.timeout(settings.export_timeout_s):
                outcome = await _follow(process, progress)
                await process.wait()
        except TimeoutError as error:
            raise EmbeddingUnavailable(
                f"the export of {settings.model} took more than {settings.export_timeout_s:.0f} s"
            ) from error
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        if outcome is None:
            errors.seek(0)
            lines = errors.read().decode(errors="replace")[-_ERROR_CHARACTERS:].strip().splitlines()
            last = lines[-1] if lines else "no message"
            raise EmbeddingUnavailable(f"the export of {settings.model} ended with {process.returncode}: {last}")
    if outcome == EXPORTED:
        progress(f"exported {settings.model} to {folder}")


async def _follow(process: asyncio.subprocess.Process, progress: Callable[[str], None]) -> str | None:
    if process.stdout is None:
        return None
    async for line in process.stdout:
        answer: dict[str, str] = json.loads(line)
        if "refused" in answer:
            raise Misconfigured(answer["refused"])
        if "done" in answer:
            return answer["done"]
        progress(answer["progress"])
    return None
