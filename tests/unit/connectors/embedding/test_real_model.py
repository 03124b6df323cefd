"""The packaged model through the real export, ONNX Runtime and torch.

The export runs once for this file, or once for all processes that `python -m tests` starts.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from connectors.embedding.cache import export_folder
from connectors.embedding.describe import describe
from connectors.embedding.engine import OnnxEngine, TorchEngine, load_sentence_transformer
from connectors.embedding.export import DESCRIPTION_FILE, ExportRequest, export, verify
from connectors.embedding.locate import locate_model
from connectors.embedding.model import ModelDescription, Vectors, content_revision, cosines
from connectors.embedding.service import EmbeddingService, EmbeddingSettings, open_embedding
from connectors.errors import EmbeddingFailed, EmbeddingUnavailable, Misconfigured

SETTINGS = EmbeddingSettings(threads=2)
TEXTS = (
    "What similarity laws must be obeyed by models of heated high-speed aircraft?",
    "The refund is paid within three working days.",
    "Kafka keeps records in partitions; an offset names a record's place.",
    "",
    "Die Lieferung dauert drei Tage.",
    "An experimental study of a wing in a propeller slipstream was made. " * 12,
)


@dataclass(frozen=True)
class Exported:
    cache: Path
    folder: Path
    output: list[list[str]]

    def description(self) -> ModelDescription:
        return ModelDescription.from_json((self.folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The cache after two callers opened the model concurrently, and the messages that each of them got."""
    cache = tmp_path_factory.mktemp("cache")
    if models := os.environ.get("CROSSFADE_TEST_MODELS"):
        (Path(models) / "embedding").mkdir(exist_ok=True)
        (cache / "embedding").symlink_to(Path(models) / "embedding", target_is_directory=True)
    output: list[list[str]] = [[], []]

    async def open_twice() -> None:
        for service in await asyncio.gather(*(open_embedding(SETTINGS, cache, lines.append) for lines in output)):
            await service.close()

    asyncio.run(open_twice())
    revision = content_revision(locate_model(SETTINGS.model, print), SETTINGS.engine)
    return Exported(cache, export_folder(cache, revision, SETTINGS), output)


@pytest.fixture
def copy(exported: Exported, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported.folder, tmp_path / "copy"))


def as_rows(vectors: list[bytes]) -> Vectors:
    return np.array([np.frombuffer(vector, dtype="<f4") for vector in vectors], dtype=np.float32)


async def opened(exported: Exported) -> EmbeddingService:
    return await open_embedding(SETTINGS, exported.cache, print)


def exports(lines: list[str]) -> int:
    return sum(line.startswith("exported") for line in lines)


def test_two_that_open_a_model_at_once_export_it_once(exported: Exported) -> None:
    by_another = "CROSSFADE_TEST_MODELS" in os.environ
    assert sorted(map(exports, exported.output)) in ([[0, 0], [0, 1]] if by_another else [[0, 1]])
    assert [path.name for path in exported.folder.parent.iterdir() if path.suffix == ".part"] == []


async def test_opening_again_takes_the_export_from_the_cache(exported: Exported) -> None:
    lines: list[str] = []
    before = (exported.folder / "model.onnx").stat()
    service = await open_embedding(SETTINGS, exported.cache, lines.append)
    await service.close()
    after = (exported.folder / "model.onnx").stat()
    assert lines == []
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


async def test_a_path_to_the_same_files_shares_the_export(exported: Exported, tmp_path: Path) -> None:
    link = tmp_path / "all-MiniLM-L6-v2"
    shutil.copytree(locate_model(SETTINGS.model, print), link)
    lines: list[str] = []
    service = await open_embedding(replace(SETTINGS, model=str(link)), exported.cache, lines.append)
    assert (lines, service.identity) == ([], exported.description().identity)
    await service.close()


async def test_int8_is_close_to_torch_on_documents_and_questions(exported: Exported) -> None:
    source = locate_model(SETTINGS.model, print)
    model = load_sentence_transformer(source)
    torch = TorchEngine(model, source, describe(model, "torch", "1", for_onnx=False), 2, 32)
    service = await opened(exported)
    reference = torch.embed(TEXTS)
    found = as_rows(await service.embed_documents(TEXTS))
    assert min(cosines(found, reference)) >= SETTINGS.minimum_cosine
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert await service.embed_query(TEXTS[0]) == found[0].tobytes()
    assert cosines(torch.lane().embed(TEXTS[:1]), reference[:1])[0] == pytest.approx(1, abs=1e-5)
    with pytest.raises(EmbeddingFailed, match="tokens"):
        torch.embed(["wing " * 1000])
    await service.close()


async def test_the_same_text_gives_the_same_bytes_whatever_its_neighbours(exported: Exported) -> None:
    service = await opened(exported)
    alone = [(await service.embed_documents([text]))[0] for text in TEXTS]
    together = await service.embed_documents([*reversed(TEXTS), *TEXTS * 5])
    assert together == [*reversed(alone), *alone * 5]
    await service.close()


async def test_chunks_of_a_long_text_are_read_whole_and_a_longer_text_is_refused(exported: Exported) -> None:
    service = await opened(exported)
    text = " ".join(f"Sentence {number} speaks of wings and of propellers." for number in range(400))
    chunks = service.chunks(text)
    assert "".join("".join(chunks).split()) == "".join(text.split())
    assert await service.chunked([text, ""]) == [chunks, ("",)]
    assert len(await service.embed_documents(chunks)) == len(chunks) > 5
    with pytest.raises(EmbeddingFailed, match="tokens"):
        await service.embed_documents([text])
    await service.close()


async def test_the_end_of_a_question_longer_than_the_window_counts(exported: Exported) -> None:
    service = await opened(exported)
    start = "the flow around a slender wing at high speed " * 60
    one, other = [
        await service.embed_query(start + end) for end in ("and its lift", "a recipe for chocolate cake " * 20)
    ]
    assert len(one) == 4 * service.dimension
    assert one != other
    await service.close()


def test_a_lane_needs_nothing_of_the_threads_that_documents_use(exported: Exported) -> None:
    engine = OnnxEngine(exported.folder, exported.description(), threads=2)
    lane = engine.lane()
    before = engine.embed(["wing"])
    engine.close()
    with pytest.raises(EmbeddingUnavailable):
        engine.embed(["wing"])
    assert lane.embed(["wing"]).tobytes() == before.tobytes()


def test_a_process_that_serves_never_holds_torch(exported: Exported) -> None:
    script = """
import asyncio, json, sys
from pathlib import Path
from connectors.embedding.service import EmbeddingSettings, open_embedding
async def main():
    service = await open_embedding(EmbeddingSettings(threads=2), Path(sys.argv[1]), print)
    vector = await service.embed_query("wing")
    await service.close()
    return len(vector)
print(json.dumps([asyncio.run(main()), sorted({"torch", "transformers", "onnx"} & set(sys.modules))]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(exported.cache)], capture_output=True, text=True, check=True, timeout=120
    )
    assert json.loads(done.stdout) == [4 * 384, []]


def rewrite_weights(folder: Path, change: Callable[[np.ndarray], np.ndarray], of_type: int) -> None:
    """Change every weight matrix of one type in the exported graph."""
    graph = onnx.load(str(folder / "model.onnx"))
    for weights in graph.graph.initializer:
        if weights.data_type == of_type and len(weights.dims) == 2:
            changed = change(numpy_helper.to_array(weights).copy())
            weights.CopyFrom(numpy_helper.from_array(changed, weights.name))
    onnx.save(graph, str(folder / "model.onnx"))


def test_a_destroyed_quantisation_is_refused(exported: Exported, copy: Path) -> None:
    description = exported.description()
    reference = OnnxEngine(copy, description, threads=1).embed(TEXTS)
    assert verify(copy, description, TEXTS, reference, 0.97).minimum == pytest.approx(1, abs=1e-5)
    rewrite_weights(copy, lambda weights: weights[::-1].copy(), onnx.TensorProto.INT8)
    with pytest.raises(Misconfigured, match="too far from the original"):
        verify(copy, description, TEXTS, reference, 0.97)


def test_numbers_that_are_none_inside_the_model_are_raised_not_returned(exported: Exported, copy: Path) -> None:
    rewrite_weights(copy, lambda weights: weights * np.float32("nan"), onnx.TensorProto.FLOAT)
    with pytest.raises(EmbeddingFailed):
        OnnxEngine(copy, exported.description(), threads=1).embed(["wing"])


def test_another_dimension_than_the_identity_says_is_raised(exported: Exported) -> None:
    description = exported.description()
    other = replace(description, identity=replace(description.identity, dimension=383))
    with pytest.raises(EmbeddingFailed, match="383"):
        OnnxEngine(exported.folder, other, threads=2).embed(["wing"])


def test_an_export_below_the_minimum_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    # No export reaches a cosine above 1. With fp32 there is no search for a closer quantisation.
    target, source = tmp_path / "embedding" / "model", locate_model(SETTINGS.model, print)
    request = ExportRequest(str(source), str(target), "m", "1", int8=False, minimum_cosine=1.1, wait_s=60)
    with pytest.raises(Misconfigured, match="too far from the original"):
        export(request, print)
    assert [path for path in target.parent.iterdir() if path.suffix != ".lock"] == []


async def test_a_minimum_that_was_raised_refuses_the_export_in_the_cache(exported: Exported) -> None:
    with pytest.raises(Misconfigured, match="minimum_cosine"):
        await open_embedding(replace(SETTINGS, minimum_cosine=0.9999), exported.cache, print)


async def test_a_damaged_export_names_the_folder_to_remove(exported: Exported, tmp_path: Path) -> None:
    cache = Path(shutil.copytree(exported.cache, tmp_path / "cache"))
    folder = cache / exported.folder.relative_to(exported.cache)
    (folder / "model.onnx").write_bytes(b"half a file")
    with pytest.raises(Misconfigured, match=folder.name):
        await open_embedding(SETTINGS, cache, print)


def test_a_pooling_that_onnx_does_not_run_is_refused_with_the_way_out(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(locate_model(SETTINGS.model, print), tmp_path / "model"))
    pooling = folder / "1_Pooling" / "config.json"
    wanted = {"word_embedding_dimension": 384, "pooling_mode_mean_tokens": False}

    def described(mode: str) -> ModelDescription:
        pooling.write_text(json.dumps({**wanted, f"pooling_mode_{mode}": True}))
        return describe(load_sentence_transformer(folder), "model", "1", for_onnx=True)

    assert described("cls_token").pooling == "cls"
    with pytest.raises(Misconfigured, match="torch"):
        described("max_tokens")
