"""Every error that a port may raise; adapters map their drivers' errors to these and let nothing else out.

CrossfadeError
├── TransientError          the same call may succeed later: retried with backoff, up to a limit
│   ├── StoreUnavailable    nobody answers, or not now (overloaded, no replica, no space): retried without a limit
│   │   └── CollectionMissing  a collection of points is not there (deleted): who watches it makes it again
│   ├── EmbeddingUnavailable  the model's queue or engine is closed or out of time
│   └── Raised              a trigger says so, under a state that may pass: a write that meets it is refused soon
└── PermanentError          the same call will fail again: the record goes to the dead-letter topic
    ├── Refused             the store refuses this content (a constraint, a type, a size)
    ├── Misconfigured       a table, column, collection or dimension is not what the configuration says
    ├── RecordsExpired      records of a topic that were still to be read are no longer kept
    └── EmbeddingFailed     no usable vector for this text (NaN, wrong dimension)
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType


class CrossfadeError(Exception):
    """Base of all errors of the ports."""


class TransientError(CrossfadeError):
    """The same call may succeed later."""


class StoreUnavailable(TransientError):
    """Nobody answers at the other end, or it answers that it cannot serve now; `retry_after_s` where it says when."""

    def __init__(self, *arguments: object, retry_after_s: float = 0.0) -> None:
        super().__init__(*arguments)
        self.retry_after_s = retry_after_s


class CollectionMissing(StoreUnavailable):
    """A collection of points is not there: who watches it makes it again, and what is for it waits."""


class EmbeddingUnavailable(TransientError):
    """The embedding engine is closed or did not answer in time."""


class Raised(TransientError):
    """A trigger or function raised it. The state that it chose may pass; a write waits for that with a limit."""


class PermanentError(CrossfadeError):
    """The same call will fail again."""


class Refused(PermanentError):
    """The store refuses this content."""


class Misconfigured(PermanentError):
    """What is there is not what the configuration says."""


class RecordsExpired(PermanentError):
    """Records that were still to be read are no longer kept; `kept` is the first offset of each such partition."""

    def __init__(self, message: str, kept: Mapping[tuple[str, int], int] = MappingProxyType({})) -> None:
        super().__init__(message)
        self.kept = kept


class EmbeddingFailed(PermanentError):
    """The model gave no usable vector for this text."""
