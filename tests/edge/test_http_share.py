"""Processes of one port have equally many connections, and nobody waits for one that is busy."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from nodes.http_share import BUSY_SECONDS, LEAVE_SECONDS, Share, make_share


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def shares(clock: Clock) -> Iterator[list[Share]]:
    fd = make_share(3)
    yield [Share(fd, index, clock) for index in range(3)]
    os.close(fd)


def test_who_has_more_than_another_leaves_the_next_one(shares: list[Share]) -> None:
    for share, count in zip(shares, (5, 4, 6), strict=True):
        share.tell(count)
    assert [share.leaves(n) for share, n in zip(shares, (5, 4, 6), strict=True)] == [
        True,
        False,
        True,
    ]


def test_processes_that_do_not_serve_are_not_waited_for(shares: list[Share]) -> None:
    shares[0].tell(7)
    assert not shares[0].leaves(7), "none serves yet"
    shares[1].tell(0)
    assert shares[0].leaves(7)
    shares[1].tell(None)
    assert not shares[0].leaves(7), "it serves no more"


def test_a_busy_process_is_not_waited_for_again_at_once(shares: list[Share], clock: Clock) -> None:
    shares[0].tell(1)
    shares[1].tell(0)
    asked = 0
    while shares[0].leaves(1):
        clock.now += LEAVE_SECONDS / 4
        asked += 1
    assert asked == 4
    clock.now += BUSY_SECONDS / 2
    assert not shares[0].leaves(2)
    clock.now += BUSY_SECONDS
    assert shares[0].leaves(3)


def test_what_another_has_taken_is_waited_for_no_longer(shares: list[Share], clock: Clock) -> None:
    """Of a burst, too, each connection is left to the other as long as the other takes them."""
    shares[0].tell(9)
    shares[1].tell(0)
    for taken in range(1, 9):
        assert shares[0].leaves(9)
        clock.now += LEAVE_SECONDS * 0.9
        shares[1].tell(taken)
    assert shares[0].leaves(9)
    shares[1].tell(9)
    assert not shares[0].leaves(9)


def test_a_process_alone_leaves_nothing() -> None:
    fd = make_share(1)
    share = Share(fd, 0)
    share.tell(3)
    assert not share.leaves(3)
    os.close(fd)
