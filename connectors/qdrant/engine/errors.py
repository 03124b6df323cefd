"""The mapping from errors of Qdrant's embedded engine to errors of the ports.

The engine raises plain exceptions. Only their text tells the kinds apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from connectors.errors import CrossfadeError, Misconfigured, Refused, StoreUnavailable, TransientError

_BY_TEXT: tuple[tuple[str, type[CrossfadeError]], ...] = (
    ("config is incompatible", Misconfigured),
    ("does not exist", Misconfigured),
    ("already contains segment data", Misconfigured),
    ("vector dimension error", Refused),
    ("not existing vector name", Refused),
    ("validation", Refused),
    ("wrong usage", Refused),
    ("payload type does not match", Refused),
    ("can't init wal", StoreUnavailable),
    ("not initialized", StoreUnavailable),
    ("no space left", StoreUnavailable),
    ("out of memory", StoreUnavailable),
    ("timeout", StoreUnavailable),
    ("read-only file system", StoreUnavailable),
    ("too many open files", StoreUnavailable),
    ("input/output error", StoreUnavailable),
)


def engine_error(error: BaseException, doing: str) -> CrossfadeError:
    """Return the port's error for an engine error, whose cause is the content, the configuration or a passing state."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    message = f"Qdrant's engine, {doing}: {text}"
    if isinstance(error, TypeError | ValueError | OverflowError):  # a value that the engine cannot take
        return Refused(message)
    if isinstance(error, OSError):
        return StoreUnavailable(message)
    lower = text.lower()
    return next((kind for part, kind in _BY_TEXT if part in lower), TransientError)(message)


@contextmanager
def mapped(doing: str) -> Iterator[None]:
    """Raise every error of the engine as an error of the ports.

    This includes a panic of its Rust code, which is not an Exception.
    """
    try:
        yield
    except CrossfadeError:
        raise
    except Exception as error:
        raise engine_error(error, doing) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise engine_error(error, doing) from error
