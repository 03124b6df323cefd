"""Reads how a loaded sentence-transformers model runs. Refuses a model that ONNX cannot run the same way."""

from __future__ import annotations

from typing import Any

from connectors.embedding.model import ModelDescription, ModelIdentity, Pooling
from connectors.errors import Misconfigured

_TORCH_INSTEAD = 'set engine = "torch" to use this model'
# The order in which sentence-transformers tries names for the prompt of a document.
_DOCUMENT_PROMPTS = ("document", "passage", "corpus")


def describe(model: Any, name: str, revision: str, *, for_onnx: bool) -> ModelDescription:
    """Return the description of a loaded model. Raises Misconfigured for one that this engine cannot run."""
    kinds = [type(module).__name__ for module in model]
    if model.max_seq_length is None:
        raise Misconfigured(f"{name} does not say how many tokens it reads (max_seq_length)")
    if "Normalize" not in kinds and model.similarity_fn_name == "dot":
        raise Misconfigured(f"{name} was trained for dot products; collections here are compared by cosine")
    if for_onnx:
        _refuse_unsupported(model, name, kinds)
    prompts: dict[str, str] = model.prompts
    by_default = prompts.get(model.default_prompt_name or "", "")
    document = next((prompts[key] for key in _DOCUMENT_PROMPTS if prompts.get(key)), by_default)
    return ModelDescription(
        identity=ModelIdentity(name, revision, int(model.get_embedding_dimension())),
        window=int(model.max_seq_length),
        pooling=_pooling(model) if for_onnx else "mean",
        query_prompt=prompts.get("query") or by_default,
        document_prompt=document,
    )


def _refuse_unsupported(model: Any, name: str, kinds: list[str]) -> None:
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise Misconfigured(f"{name} is made of {', '.join(kinds)}, which ONNX does not run here; {_TORCH_INSTEAD}")
    if model[0].do_lower_case:
        raise Misconfigured(f"{name} lowers its text before the tokenizer; {_TORCH_INSTEAD}")
    if not model[1].include_prompt:
        raise Misconfigured(f"{name} leaves its prompt out of the pooling; {_TORCH_INSTEAD}")
    _pooling(model)


def _pooling(model: Any) -> Pooling:
    mode = model[1].pooling_mode
    if mode in ("mean", ["mean"], ("mean",)):
        return "mean"
    if mode in ("cls", ["cls"], ("cls",)):
        return "cls"
    raise Misconfigured(f"the model pools by {mode}, ONNX runs mean and cls here; {_TORCH_INSTEAD}")
