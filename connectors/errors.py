"""Every error that a port may raise; adapters map their drivers' errors to these and let nothing else out.

CrossfadeError
├── TransientError          the same call may succeed later: retried with backoff, up to a limit
│   ├── StoreUnavailable    nobody answers, or not now (overloaded, no replica, no space): retried without a limit
│   │   └── CollectionMissing  a collection of points is not there (deleted): who watches it makes it again
│   ├── EmbeddingUnavailable  the model's queue or engine is closed or out of time
│   └── Raised              a trigger says so, under a state that may pass: a write that meets it is refused soon
├── PermanentError          the same call will fail again: the record goes to the dead-letter topic
│   ├── Refused             the store refuses this content (a constraint, a type, a size)
│   ├── Misconfigured       a table, column, collection or dimension is not what the configuration says
│   ├── RecordsExpired      records of a topic that were still to be read are no longer kept
│   └── EmbeddingFailed     no usable vector for this text (NaN, wrong dimension)
└── TaskFailed              a task of an operator cannot go on: no record is concerned, and a hint says what to do
    ├── NotReady            something that it needs is not there yet: an address, a topic, a program, a worker's run
    │   └── TableNotReady   a table is not as the configuration says, and the statements that fix it are known
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


class TaskFailed(CrossfadeError):
    """A task of an operator cannot go on: `message` says what is wrong, `hint` what to do about it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class NotReady(TaskFailed):
    """Something that a task needs is not there yet."""


class TableNotReady(NotReady):
    """A table is not as the configuration says; the statements that fix it are in the message."""


class ConnectError(TaskFailed):
    """Kafka Connect refuses a request, or a connector does not run."""


class ConnectUnreachable(ConnectError):
    """Kafka Connect does not answer, or does nothing but rebalance."""


class ProcessFailed(TaskFailed):
    """A process of the local stack, or a worker, does not start or does not end."""
