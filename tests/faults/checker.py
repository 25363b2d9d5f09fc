"""Is the history of a key linearizable? A register with conditional writes and unknown outcomes.

A history is linearizable when its operations can be put in one order in which each answer is right,
and in which one that had returned before another was invoked comes first (Herlihy and Wing 1990).
The search is that of Wing and Gong with Lowe's memory of what was tried ("Testing for
linearizability", 2017): among the operations that may come next, take one, and step back where no
way leads on. A few facts keep it small:

* an operation that changes nothing and fits the state may be taken at once: that never hurts;
* an ETag that is overwritten never comes back, so it is not overwritten while one who saw it waits;
* a write of unknown outcome whose ETag somebody saw did happen, before the first who saw it had his
  answer; so it is a write like others;
* other writes of unknown outcome are only worth taking when something that was stuck fits
  afterwards. Nobody saw what they wrote, so of those of one form the first invoked stands for all;
  and who came to the same place with fewer of them can do all that the others can;
* objects that nobody asks for any more are all the same.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from operator import le

from tests.faults.history import CHANGES, UNKNOWN, History, Kind, Operation, State

CONFIGURATIONS_MAX = 500_000
SHOWN = 12
SOME_OBJECT = "some object"

Form = tuple[Kind, State, State]


class Undecided(Exception):
    """The search was given up."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """Operations before `base` are done, and `base + n` where bit n of `mask` is set; `used` counts
    the optional writes of each form."""

    base: int
    mask: int
    state: State
    used: tuple[int, ...]

    def done(self, index: int) -> "Configuration":
        base, mask = self.base, self.mask | 1 << (index - self.base)
        while mask & 1:
            base, mask = base + 1, mask >> 1
        return replace(self, base=base, mask=mask)


class Search:
    """The search for an order of the operations of one key."""

    def __init__(self, operations: Sequence[Operation], initial: State = None) -> None:
        _require_unique(operations)
        self._initial = initial
        self._certain, optional = _split(operations)
        expected = self._expected = {each.expected for each in operations}
        forms: dict[Form, list[Operation]] = defaultdict(list)
        for each in sorted(optional, key=lambda op: op.invoked):
            own = each.etag if each.etag is None or each.etag in expected else "unseen"
            forms[each.kind, each.expected, own].append(each)
        self._optional = list(forms.values())
        self._readers: dict[str, list[int]] = defaultdict(list)
        self._replacers: dict[str, list[int]] = defaultdict(list)
        for index, one in enumerate(self._certain):
            if one.kind is Kind.READ and one.etag is not None:
                self._readers[one.etag].append(index)
            if one.kind is Kind.REPLACE and one.expected is not None:
                self._replacers[one.expected].append(index)

    def run(self) -> str:
        """What cannot be explained; "" when there is an order. Raises Undecided."""
        start = self._settled(Configuration(0, 0, self._initial, (0,) * len(self._optional)))
        stack, deepest = [start], start
        tried: dict[tuple[int, int, State], list[tuple[int, ...]]] = defaultdict(list)
        count = 0
        while stack:
            here = stack.pop()
            if here.base == len(self._certain):
                return ""
            if here.base > deepest.base:
                deepest = here
            for following in reversed(list(self._steps(here))):
                before = tried[following.base, following.mask, following.state]
                if any(all(map(le, used, following.used)) for used in before):
                    continue
                before.append(following.used)
                stack.append(following)
                count += 1
            if count > CONFIGURATIONS_MAX:
                raise Undecided(f"{len(self._certain)} operations")
        return self._explain(deepest)

    def _candidates(self, here: Configuration) -> tuple[list[int], float]:
        """What may come next, and the time before which it must: the first end of what is left."""
        found, end, mask = [], UNKNOWN, here.mask
        for index in range(here.base, len(self._certain)):
            each = self._certain[index]
            if each.invoked > end:
                break
            if not mask >> (index - here.base) & 1:
                found.append(index)
                end = min(end, each.returned)
        return [index for index in found if self._certain[index].invoked <= end], end

    def _settled(self, here: Configuration) -> Configuration:
        """After everything that fits and changes nothing."""
        while True:
            candidates, _ = self._candidates(here)
            fitting = [
                index
                for index in candidates
                if self._certain[index].kind not in CHANGES
                and self._certain[index].holds(here.state)
            ]
            if not fitting:
                return self._forgotten(here)
            # Done one by one, the first that is `base` moves it.
            for index in fitting:
                here = here.done(index)

    def _forgotten(self, here: Configuration) -> Configuration:
        state = here.state
        if state is None or state in self._expected or self._waiting(here, self._readers[state]):
            return here
        return replace(here, state=SOME_OBJECT)

    def _steps(self, here: Configuration) -> Iterator[Configuration]:
        if here.state is not None and self._waiting(here, self._readers[here.state]):
            return
        candidates, end = self._candidates(here)
        if here.state is not None and (only := self._waiting(here, self._replacers[here.state])):
            candidates = [index for index in candidates if index in only]
        candidates.sort(key=lambda index: self._certain[index].returned)
        stuck = []
        for index in candidates:
            each = self._certain[index]
            if each.holds(here.state):
                yield self._settled(replace(here.done(index), state=each.after(here.state)))
            else:
                stuck.append(each)
        if stuck:
            for there in self._optionally(here, end):
                if any(each.holds(there.state) for each in stuck):
                    yield self._settled(there)

    @staticmethod
    def _waiting(here: Configuration, indices: Sequence[int]) -> list[int]:
        """Those of `indices` that are not done."""
        return [
            index
            for index in indices
            if index >= here.base and not here.mask >> (index - here.base) & 1
        ]

    def _optionally(self, here: Configuration, end: float) -> Iterator[Configuration]:
        """After optional writes: by one, or by one that deletes and one that then creates."""
        for first in self._after_one(here, end):
            yield first
            if first.state is None:
                yield from (each for each in self._after_one(first, end) if each.state is not None)

    def _after_one(self, here: Configuration, end: float) -> Iterator[Configuration]:
        for number, form in enumerate(self._optional):
            used = here.used[number]
            if used == len(form):
                continue
            each = form[used]
            if each.invoked <= end and each.holds(here.state):
                counts = (*here.used[:number], used + 1, *here.used[number + 1 :])
                yield replace(here, state=each.after(here.state), used=counts)

    def _explain(self, here: Configuration) -> str:
        candidates, _ = self._candidates(here)
        shown = self._certain[max(0, here.base - SHOWN) : here.base + SHOWN]
        lines = [
            f"{self._certain[here.base].key}: no order explains these operations",
            f"at state {here.state}, none of {len(candidates)} fits that must come next:",
            *(_line(self._certain[index]) for index in candidates),
            "around them:",
            *map(_line, shown),
        ]
        return "\n".join(lines)


def _line(each: Operation) -> str:
    times = f"{each.invoked:.6f}–{each.returned:.6f}"
    return f"  {times} {each.client} {each.kind} etag={each.etag} expected={each.expected}"


def _require_unique(operations: Sequence[Operation]) -> None:
    etags = [each.etag for each in operations if each.kind in CHANGES and each.etag is not None]
    if len(set(etags)) != len(etags):
        raise ValueError("a body was written twice: its ETag does not name one write")


def _split(operations: Sequence[Operation]) -> tuple[list[Operation], list[Operation]]:
    """Operations that did happen, in order of their invocations, and those that nobody knows of."""
    seen: dict[str, float] = {}
    for each in operations:
        if each.returned == UNKNOWN:
            continue
        for etag in (each.etag if each.kind is Kind.READ else None, _matched(each)):
            if etag is not None:
                seen[etag] = min(each.returned, seen.get(etag, UNKNOWN))
    certain, optional = [], []
    for each in operations:
        if each.returned < UNKNOWN:
            certain.append(each)
        elif each.etag in seen:
            certain.append(replace(each, returned=seen[each.etag]))
        else:
            optional.append(each)
    return sorted(certain, key=lambda op: op.invoked), optional


def _matched(each: Operation) -> State:
    """The ETag that a successful replacement found."""
    return each.expected if each.kind is Kind.REPLACE else None


def violations(history: History) -> list[str]:
    """Everything that the history cannot have been, if the store is right."""
    found = list(history.wrong)
    for key in sorted(history.keys()):
        try:
            trouble = Search(history.of_key(key)).run()
        except Undecided as error:
            trouble = f"{key}: undecided, {error}"
        if trouble:
            found.append(trouble)
    return found
