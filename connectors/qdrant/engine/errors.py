"""How errors of Qdrant's embedded engine become errors of the ports; it raises plain exceptions, told by their text."""

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
    """Return the port's error for one of the engine's: of the content, of the configuration, or of the moment."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    message = f"Qdrant's engine, {doing}: {text}"
    if isinstance(error, TypeError | ValueError | OverflowError):  # a value that cannot become one of the engine's
        return Refused(message)
    if isinstance(error, OSError):
        return StoreUnavailable(message)
    lower = text.lower()
    return next((kind for part, kind in _BY_TEXT if part in lower), TransientError)(message)


@contextmanager
def mapped(doing: str) -> Iterator[None]:
    """Let no error of the engine out; a panic of its Rust code, which is not an Exception, included."""
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
