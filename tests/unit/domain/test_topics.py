"""Whether a topic is still the one that was recorded, and what follows if it is not."""

from __future__ import annotations

import pytest

from domain.topics import Replaced, TopicLook, TopicMark, adoption, replaced

MARK = TopicMark("cluster", "id", {0: 10, 1: 20}, {"resolver": {0: 8, 1: 20}})


def look(
    *bounds: tuple[int, int], cluster: str = "cluster", topic: str = "id", read: dict[int, int] | None = None
) -> TopicLook:
    return TopicLook(cluster, topic, dict(enumerate(bounds)), {"resolver": {0: 8, 1: 20} if read is None else read})


def found(mark: TopicMark, seen: TopicLook | None) -> Replaced:
    one = replaced("log", mark, seen)
    assert one is not None
    return one


@pytest.mark.parametrize(
    "seen",
    [
        look((0, 10), (0, 20)),
        look((0, 11), (3, 90), read={0: 11, 1: 21}),
        look((8, 10), (20, 20)),
        look((0, 10), (0, 20), (0, 5)),
        look((0, 10), (0, 20), topic=""),  # brokers that do not report the id
        look((0, 10), (0, 20), cluster=""),
    ],
)
def test_a_topic_that_only_grew_is_the_same(seen: TopicLook) -> None:
    assert replaced("log", MARK, seen) is None


def test_another_id_or_cluster_is_another_topic_whatever_its_offsets() -> None:
    again = found(MARK, look((0, 90), (0, 90), topic="other"))
    moved = found(MARK, look((0, 90), (0, 90), topic="other", cluster="there"))
    assert (again.sure, again.message) == (True, "log was deleted and created again")
    assert (again.moved, moved.moved) == (False, True)
    assert (moved.sure, moved.message) == (True, "log is on another cluster (there, it was cluster)")


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (None, "log does not exist any more"),
        (look((0, 9), (0, 20), read={}), "log: partition 0 ends at offset 9, it ended at 10"),
        (look((0, 10), read={}), "log: partition 1 ends at offset 0, it ended at 20"),
        (look((0, 10), (0, 20), read={0: 11}), "log: partition 0 ends at offset 10, resolver has read up to 11"),
        (look((9, 10), (0, 20)), "log: 1 records of partition 0 were deleted before resolver read them"),
        # Brokers forget committed offsets after a while. The recorded ones remain.
        (look((0, 10), (22, 30), read={}), "log: 2 records of partition 1 were deleted before resolver read them"),
    ],
)
def test_what_went_back_or_went_unread_is_looked_at_twice(seen: TopicLook | None, expected: str) -> None:
    one = found(MARK, seen)
    assert (one.sure, one.message) == (False, expected)


def test_a_role_that_never_read_misses_nothing() -> None:
    assert replaced("log", TopicMark("cluster", "id", {0: 10}), look((5, 10), read={})) is None


def test_every_reader_of_what_was_replaced_begins_again_and_what_may_be_lost_is_taken_again() -> None:
    log = adoption(submitted=False, log=True, resolved=False, embedded=False)
    assert (log.version_epoch, log.producer_epoch, log.behind, log.forget) == (True, False, True, False)
    assert log.restart == {"intake", "capture", "resolver"}
    submitted = adoption(submitted=True, log=False, resolved=False, embedded=False)
    assert (submitted.version_epoch, submitted.producer_epoch, submitted.behind) == (False, True, False)
    assert submitted.restart == {"intake"}
    resolved = adoption(submitted=False, log=False, resolved=True, embedded=False)
    assert (resolved.forget, resolved.behind) == (True, True)
    assert resolved.restart == {"intake", "legacy", "embedder"}
    embedded = adoption(submitted=False, log=False, resolved=False, embedded=True)
    assert embedded.restart == {"vector"}
    assert (embedded.behind, embedded.forget) == (True, False)
