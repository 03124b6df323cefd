"""Every error that a port may raise. Adapters map their drivers' errors to these and raise nothing else.

CrossfadeError
├── TransientError          the same call may succeed later: retried with backoff, up to a limit
│   ├── StoreUnavailable    no answer, or not now (overloaded, no replica, no space): retried without a limit
│   │   └── CollectionMissing  a collection of points does not exist (deleted): the watch creates it again
│   ├── EmbeddingUnavailable  the model's queue or engine is closed or timed out
│   └── Raised              raised by a trigger, with a state that may pass: after a few retries the write is refused
├── PermanentError          the same call will fail again: the record goes to the dead-letter topic
│   ├── Refused             the store refuses this content (a constraint, a type, a size)
│   ├── Misconfigured       a table, column, collection or dimension is not what the configuration says
│   ├── RecordsExpired      unread records of a topic are no longer retained
│   └── EmbeddingFailed     no usable vector for this text (NaN, wrong dimension)
└── TaskFailed              an operator's task cannot go on: no record is affected, and a hint says what to do
    ├── NotReady            something that the task needs is missing: an address, a topic, a program, a first worker run
    │   └── TableNotReady   a table does not match the configuration, and the statements that fix it are known
    ├── ConnectError        Kafka Connect refuses a request, or a connector does not run
    │   └── ConnectUnreachable  Kafka Connect does not answer
    └── ProcessFailed       a process of the local stack, or a worker, does not start or does not end
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType


class CrossfadeError(Exception):
    """Base of all errors of the ports."""


class TransientError(CrossfadeError):
    """The same call may succeed later."""


class StoreUnavailable(TransientError):
    """The other end does not answer, or cannot serve now. `retry_after_s` is set if it says when to retry."""

    def __init__(self, *arguments: object, retry_after_s: float = 0.0) -> None:
        super().__init__(*arguments)
        self.retry_after_s = retry_after_s


class CollectionMissing(StoreUnavailable):
    """A collection of points does not exist. The watch creates it again, and writes to it wait until then."""


class EmbeddingUnavailable(TransientError):
    """The embedding engine is closed or did not answer in time."""


class Raised(TransientError):
    """A trigger or function raised the error, with a state that may pass. After a few retries the write is refused."""


class PermanentError(CrossfadeError):
    """The same call will fail again."""


class Refused(PermanentError):
    """The store refuses this content."""


class Misconfigured(PermanentError):
    """A table, column, collection or dimension is not what the configuration says."""


class RecordsExpired(PermanentError):
    """Unread records are no longer retained; `kept` is the first retained offset of each such partition."""

    def __init__(self, message: str, kept: Mapping[tuple[str, int], int] = MappingProxyType({})) -> None:
        super().__init__(message)
        self.kept = kept


class EmbeddingFailed(PermanentError):
    """The model gave no usable vector for this text."""


class TaskFailed(CrossfadeError):
    """An operator's task cannot go on: `message` says what is wrong, `hint` what to do about it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class NotReady(TaskFailed):
    """Something that a task needs is not available yet."""


class TableNotReady(NotReady):
    """A table does not match the configuration; the statements that fix it are in the message."""


class ConnectError(TaskFailed):
    """Kafka Connect refuses a request, or a connector does not run."""


class ConnectUnreachable(ConnectError):
    """Kafka Connect does not answer, or does nothing but rebalance."""


class ProcessFailed(TaskFailed):
    """A process of the local stack, or a worker, does not start or does not end."""
