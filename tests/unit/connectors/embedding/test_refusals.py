"""What the engine refuses: unusable vectors, missing models, quantisations that are not close."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from connectors.embedding.export import FOUND, ExportRequest, export
from connectors.embedding.locate import locate_model, model_name
from connectors.embedding.model import content_revision, normalised
from connectors.embedding.quantize import quantize_closely
from connectors.errors import EmbeddingFailed, EmbeddingUnavailable, Misconfigured


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_vector_with_a_number_that_is_none_is_refused(number: float) -> None:
    with pytest.raises(EmbeddingFailed):
        normalised(np.array([[1, 2, 3], [1, number, 3]], dtype=np.float32), 3)


@pytest.mark.parametrize("shape", [(2, 4), (2, 2), (3,), (1, 2, 3)])
def test_a_vector_of_another_dimension_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(EmbeddingFailed):
        normalised(np.ones(shape, dtype=np.float32), 3)


def test_a_vector_of_zeros_is_refused() -> None:
    with pytest.raises(EmbeddingFailed):
        normalised(np.zeros((1, 3), dtype=np.float32), 3)


def test_a_hub_name_without_a_network_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(EmbeddingUnavailable, match="all-MiniLM-L6-v2"):
        locate_model("nobody/no-such-model", print)


def test_a_hub_that_refuses_connections_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    # Port 9 (discard) of this machine: nothing listens there.
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(EmbeddingUnavailable, match="hub does not answer"):
        locate_model("nobody/no-such-model", print)


@pytest.mark.parametrize("name", ["/no/such/folder", "./missing", "not a name", "a/b/c"])
def test_what_is_neither_a_folder_nor_a_name_is_refused(name: str) -> None:
    with pytest.raises(Misconfigured):
        locate_model(name, print)


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"modules\.json"):
        locate_model(str(tmp_path), print)


def test_the_packaged_model_is_found_by_both_its_names() -> None:
    assert locate_model("all-MiniLM-L6-v2", print) == locate_model("sentence-transformers/all-MiniLM-L6-v2", print)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A model folder with small files in place of the real ones."""
    for name in ("modules.json", "tokenizer.json", "model.safetensors", "README.md", "onnx/model.onnx"):
        path = tmp_path / "model" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "model"


def test_a_revision_follows_weights_tokenizer_and_engine_and_nothing_else(copy: Path) -> None:
    first = content_revision(copy, "onnx-int8")
    assert content_revision(copy, "torch") != first
    (copy / "README.md").write_text("changed")
    (copy / "onnx" / "model.onnx").write_text("changed")
    assert content_revision(copy, "onnx-int8") == first
    for name in ("model.safetensors", "tokenizer.json"):
        before = content_revision(copy, "onnx-int8")
        (copy / name).write_text("changed")
        assert content_revision(copy, "onnx-int8") != before


def test_a_folder_without_weights_is_refused(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    with pytest.raises(Misconfigured, match="weights"):
        content_revision(copy, "torch")


def test_the_name_of_a_folder_is_the_same_on_every_machine(copy: Path) -> None:
    assert model_name(str(copy)) == "model"
    assert model_name("owner/name@abc") == "owner/name"


COSINES = {(): 0.90, ("a",): 0.95, ("b",): 0.96, ("b", "a"): 0.98, ("b", "c"): 0.97, ("c",): 0.91}


@pytest.mark.parametrize(("minimum", "kept"), [(0.90, ()), (0.955, ("b",)), (0.975, ("b", "a")), (0.999, ("b", "a"))])
def test_as_few_products_stay_in_float_as_the_minimum_needs(minimum: float, kept: tuple[str, ...]) -> None:
    written: list[tuple[str, ...]] = []

    def quantize(names: Sequence[str]) -> float:
        written.append(tuple(names))
        return COSINES[tuple(names)]

    assert quantize_closely(quantize, ["a", "b", "c"], minimum) == kept
    assert written[-1] == kept


def test_what_a_killed_export_left_is_removed(tmp_path: Path) -> None:
    target, abandoned, others = tmp_path / "model-1", tmp_path / "model-1.x7.part", tmp_path / "model-2.x7.part"
    for folder in (target, abandoned, others):
        folder.mkdir()
    request = ExportRequest("", str(target), "model", "1", int8=True, minimum_cosine=0.9, wait_s=1.0)
    assert export(request, print) == FOUND
    assert not abandoned.exists()
    assert others.exists()
