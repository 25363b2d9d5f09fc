"""The checker finds what is wrong, and nothing where all is right."""

import itertools
import random

import pytest

from tests.faults.checker import Search
from tests.faults.growth import MIB, SAMPLES_MIN, growing, rise
from tests.faults.history import (
    CHANGES,
    UNKNOWN,
    Kind,
    Operation,
    State,
    body_of,
    etag_of,
    etag_of_parts,
    trouble_with,
)


def op(
    kind: Kind, etag: State, invoked: float, returned: float = UNKNOWN, expected: State = None
) -> Operation:
    return Operation("k", kind, etag, invoked, returned, expected)


WRITE, READ, CREATE, REPLACE = Kind.WRITE, Kind.READ, Kind.CREATE, Kind.REPLACE
EXISTS, DIFFERS = Kind.EXISTS, Kind.DIFFERS

RIGHT = {
    "nothing": [],
    "read of an absent key": [op(READ, None, 0, 1)],
    "write, then read": [op(WRITE, "a", 0, 1), op(READ, "a", 2, 3)],
    "a read beside a write sees either": [
        op(WRITE, "a", 0, 9),
        op(READ, None, 1, 2),
        op(READ, "a", 3, 4),
    ],
    "two writes at once, in the order that the reads say": [
        op(WRITE, "a", 0, 5),
        op(WRITE, "b", 0, 5),
        op(READ, "b", 6, 7),
        op(READ, "b", 8, 9),
    ],
    "an unknown write is seen late": [
        op(WRITE, "a", 0, 1),
        op(WRITE, "b", 2),
        op(READ, "a", 3, 4),
        op(READ, "b", 50, 51),
    ],
    "an unknown write never happens": [op(WRITE, "a", 0), op(READ, None, 5, 6)],
    "an unknown delete happens in between": [
        op(WRITE, "a", 0, 1),
        op(WRITE, None, 2),
        op(READ, "a", 3, 4),
        op(READ, None, 5, 6),
        op(READ, None, 7, 8),
    ],
    "an unseen unknown write refuses a create, and an unknown delete lets one in": [
        op(WRITE, "a", 0),
        op(EXISTS, None, 2, 3),
        op(WRITE, None, 4),
        op(CREATE, "b", 5, 6),
        op(READ, "b", 7, 8),
    ],
    "an unknown delete and an unknown create change what a replacement finds": [
        op(WRITE, "a", 0, 1),
        op(WRITE, None, 2),
        op(CREATE, "b", 2),
        op(DIFFERS, None, 3, 4, "a"),
    ],
    "a replacement that succeeded proves the unknown write": [
        op(WRITE, "a", 0),
        op(REPLACE, "b", 1, 2, "a"),
        op(READ, "b", 3, 4),
    ],
    "one creator of three": [
        op(CREATE, "a", 0, 5),
        op(EXISTS, None, 0, 6),
        op(EXISTS, None, 1, 7),
        op(READ, "a", 8, 9),
    ],
}

WRONG = {
    "a lost write": [op(WRITE, "a", 0, 1), op(READ, None, 2, 3)],
    "a stale read": [op(WRITE, "a", 0, 1), op(WRITE, "b", 2, 3), op(READ, "a", 4, 5)],
    "a value from nowhere": [op(READ, "a", 0, 1)],
    "a value before it was written": [op(READ, "a", 0, 1), op(WRITE, "a", 2, 3)],
    "an unknown write seen before it was sent": [op(READ, "a", 0, 1), op(WRITE, "a", 2)],
    "back and forth": [
        op(WRITE, "a", 0, 9),
        op(WRITE, "b", 0, 9),
        op(READ, "a", 1, 2),
        op(READ, "b", 3, 4),
        op(READ, "a", 5, 6),
    ],
    "an unknown write that comes and goes": [
        op(WRITE, "a", 0, 1),
        op(WRITE, "b", 2),
        op(READ, "b", 3, 4),
        op(READ, "a", 5, 6),
    ],
    "two creators win": [op(CREATE, "a", 0, 5), op(CREATE, "b", 0, 5)],
    "two replacements of one ETag": [
        op(WRITE, "a", 0, 1),
        op(REPLACE, "b", 2, 5, "a"),
        op(REPLACE, "c", 2, 5, "a"),
    ],
    "a create refused where nothing ever was": [op(EXISTS, None, 0, 1)],
    "a delete that came back": [
        op(WRITE, "a", 0, 1),
        op(WRITE, None, 2, 3),
        op(READ, None, 4, 5),
        op(READ, "a", 6, 7),
    ],
    "one unknown delete explains only one disappearance": [
        op(WRITE, "a", 0, 1),
        op(WRITE, None, 2),
        op(READ, None, 3, 4),
        op(WRITE, "b", 5, 6),
        op(READ, None, 7, 8),
    ],
    "a replacement refused although it matched": [
        op(WRITE, "a", 0, 1),
        op(DIFFERS, None, 2, 3, "a"),
    ],
}


@pytest.mark.parametrize("name", RIGHT)
def test_histories_that_are_linearizable(name: str) -> None:
    assert Search(RIGHT[name]).run() == ""


@pytest.mark.parametrize("name", WRONG)
def test_histories_that_are_not(name: str) -> None:
    assert "no order explains" in Search(WRONG[name]).run()


def by_trying_everything(operations: list[Operation]) -> bool:
    """All orders of all subsets, for histories of a few operations."""
    certain = [each for each in operations if each.returned < UNKNOWN]
    unknown = [each for each in operations if each.returned == UNKNOWN]
    for size in range(len(unknown) + 1):
        for happened in itertools.combinations(unknown, size):
            if any(explains(order) for order in itertools.permutations([*certain, *happened])):
                return True
    return False


def explains(order: tuple[Operation, ...]) -> bool:
    state: State = None
    latest = 0.0
    for each in order:
        if each.returned < latest or not each.holds(state):
            return False
        latest = max(latest, each.invoked)
        state = each.after(state)
    return True


def random_history(chance: random.Random) -> list[Operation]:
    """Six operations, right or wrong, of which some have no end."""
    operations = []
    for number in range(6):
        kind = chance.choice([WRITE, WRITE, CREATE, REPLACE, READ, READ, READ, EXISTS, DIFFERS])
        etag = f"e{number}" if kind in CHANGES else chance.choice([None, "e0", "e1", "e2", "e3"])
        if kind is WRITE and chance.random() < 0.4:
            etag = None
        invoked = chance.uniform(0, 10)
        returned = invoked + chance.uniform(0, 6)
        if kind in CHANGES and chance.random() < 0.4:
            returned = UNKNOWN
        expected = chance.choice(["e0", "e1", "e2"]) if kind in (REPLACE, DIFFERS) else None
        operations.append(op(kind, etag, invoked, returned, expected))
    return operations


def test_the_search_agrees_with_trying_everything() -> None:
    chance = random.Random(20260401)
    verdicts = []
    for _ in range(400):
        operations = random_history(chance)
        verdicts.append(by_trying_everything(operations))
        assert (Search(operations).run() == "") is verdicts[-1], operations
    assert 40 < sum(verdicts) < 360


def register_run(chance: random.Random, clients: int, count: int) -> list[Operation]:
    """A right history of many clients: each operation takes effect at a moment between its ends."""
    moments = []
    free = [0.0] * clients
    for number in range(count):
        client = chance.randrange(clients)
        invoked = free[client]
        effect = invoked + chance.uniform(0, 1)
        free[client] = effect + chance.uniform(0, 1)
        moments.append((effect, number, invoked, free[client]))
    state: State = None
    operations = []
    for _, number, invoked, returned in sorted(moments):
        lost = chance.random() < 0.1
        turn = chance.choice(["write", "write", "delete", "read", "read", "create"])
        if turn == "read":
            operations.append(op(READ, state, invoked, returned))
            continue
        if turn == "create" and state is not None:
            operations.append(op(EXISTS, None, invoked, returned))
            continue
        kind = CREATE if turn == "create" else WRITE
        etag = None if turn == "delete" else f"e{number}"
        operations.append(op(kind, etag, invoked, UNKNOWN if lost else returned))
        if not lost or chance.random() < 0.5:
            state = etag
    return operations


def test_long_histories_of_many_clients_are_decided() -> None:
    chance = random.Random(20260402)
    for _ in range(3):
        operations = register_run(chance, clients=8, count=400)
        assert Search(operations).run() == ""
        late = max(each.returned for each in operations if each.returned < UNKNOWN)
        stale = op(READ, "never", late + 1, late + 2)
        assert "no order explains" in Search([*operations, stale]).run()


def test_a_body_written_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="written twice"):
        Search([op(WRITE, "a", 0, 1), op(WRITE, "a", 2, 3)])


def test_bodies_tell_whose_they_are_and_whether_they_are_whole() -> None:
    body = body_of("k", "client-1", 7, 1000)
    assert trouble_with(body, "k") == ""
    assert "body of k" in trouble_with(body, "other")
    assert "damaged" in trouble_with(body[:-1], "k")
    assert "damaged" in trouble_with(body[:-1] + bytes([body[-1] ^ 1]), "k")
    assert "do not describe" in trouble_with(b"", "k")
    assert etag_of(body) != etag_of_parts([body])


def samples(count: int, rate: float) -> list[tuple[float, float]]:
    """Memory of a process that takes 200 MiB at first, with noise, then `rate` MiB a second."""
    chance = random.Random(count)
    return [
        (each, MIB * (200 * min(1, each / 20) + chance.uniform(-20, 20) + rate * each))
        for each in range(count)
    ]


def test_growth_is_told_from_noise_and_from_filling_up() -> None:
    assert rise([(0, 5), (1, 4), (2, 6), (3, 5)]) == pytest.approx(0.6)
    assert growing("memory", samples(600, 0)) == ""
    assert growing("memory", samples(600, 0.01)) == ""
    assert "memory rose by" in growing("memory", samples(600, 0.5))
    assert growing("memory", samples(SAMPLES_MIN - 1, 50)) == ""
    assert growing("tasks", [(each, 40 + each % 9) for each in range(100)]) == ""
    assert "tasks rose by" in growing("tasks", [(each, 40 + each) for each in range(100)])
