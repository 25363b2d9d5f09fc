"""The machines of a simulation and the network between them.

Code runs on a machine when its context says so: `Machine.spawn`. A dead machine runs nothing any
more, and comes back as another one. A call goes to a machine and its answer comes back; on the way
it is delayed, lost, sent twice, or delivered long after its sender has given up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context, ContextVar
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeVar

from tests.simulation.loop import SimulatedLoop

T = TypeVar("T")

DELAY_SECONDS = 0.001
LATE_SECONDS_MAX = 12.0
RESET_SECONDS_MAX = 0.2
CONNECT_SECONDS = 2.0


class Unreachable(Exception):
    """Nothing listens there."""


class Lost(Exception):
    """No answer came: the connection broke, or time ran out. The call may have been done, or may
    be done later."""


@dataclass(eq=False)
class Machine:
    """One life of a machine. `wall_offset`: by how many seconds its wall clock is wrong."""

    name: str
    loop: SimulatedLoop
    alive: bool = True
    wall_offset: float = 0.0
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)

    def context(self) -> Context:
        context = Context()
        context.run(_machine.set, self)
        return context

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run on this machine."""
        return self.loop.create_task(work, context=self.context())


_machine: ContextVar[Machine | None] = ContextVar("machine", default=None)
NOWHERE = Context()


def here() -> Machine | None:
    """The machine that runs this code; None for the world itself."""
    return _machine.get()


def is_dead(context: Context) -> bool:
    machine = context.get(_machine)
    return machine is not None and not machine.alive


class Network:
    """Carries calls. `cut` has the directions that carry nothing, by names; `loss` is the share of
    messages lost; `slow` the delay of a machine's messages, in seconds, beside the usual."""

    def __init__(self, loop: SimulatedLoop, chance: Random) -> None:
        self._loop = loop
        self._chance = chance
        self.machines: dict[str, Machine] = {}
        self.cut: set[tuple[str, str]] = set()
        self.loss = 0.0
        self.slow: dict[str, float] = {}
        self._waiting: dict[Machine, dict[asyncio.Future[Any], None]] = {}

    def boot(self, name: str) -> Machine:
        """A machine begins a new life."""
        before = self.machines.get(name)
        assert before is None or not before.alive, name
        machine = self.machines[name] = Machine(name, self._loop)
        if before is not None:
            machine.wall_offset = before.wall_offset
        return machine

    def kill(self, name: str, *, silent: bool = False) -> None:
        """A machine dies. Who waits for it is told by a reset, or, if it died silently, never."""
        machine = self.machines[name]
        machine.alive = False
        for future in self._waiting.pop(machine, {}):
            if not silent:
                delay = self._chance.uniform(0, RESET_SECONDS_MAX)
                self._later(delay, _fail, future, Lost(f"{name} reset the connection"))

    def cut_between(self, one: str, other: str, *, both: bool = True) -> None:
        self.cut.add((one, other))
        if both:
            self.cut.add((other, one))

    def _later(self, delay: float, function: Callable[..., object], *arguments: object) -> None:
        """Outside all machines: what is on its way arrives whoever has died meanwhile."""
        self._loop.call_later(delay, function, *arguments, context=NOWHERE)

    def _delay(self, *names: str) -> float:
        delay = self._chance.expovariate(1 / DELAY_SECONDS)
        if self.slow:
            delay += sum(self.slow.get(name, 0.0) for name in names) * self._chance.random()
        return delay

    def _arrives(self, source: str, target: str) -> bool:
        return (source, target) not in self.cut and self._chance.random() >= self.loss

    async def call(
        self,
        source: str,
        target: str,
        work: Callable[[Machine], Awaitable[T]],
        *,
        seconds: float,
        repeats: bool = False,
        leaves: bool = False,
    ) -> T:
        """Have `work` done by the machine named `target`, and its result or exception brought back.
        With `repeats` it may be done twice, as by an HTTP client that sends again over a new
        connection; with `leaves` it is cancelled when the caller is gone. Raises Lost,
        Unreachable."""
        answer: asyncio.Future[T] = self._loop.create_future()
        tasks: list[asyncio.Task[None]] = []

        def deliver() -> None:
            machine = self.machines.get(target)
            if machine is None or not machine.alive:
                _fail(answer, Unreachable(target))
                return
            self._waiting.setdefault(machine, {})[answer] = None
            tasks.append(machine.spawn(self._work(machine, source, work, answer)))

        if self._arrives(source, target):
            self._later(self._delay(source, target), deliver)
            if repeats and self._chance.random() < self.loss:
                self._later(self._delay(source, target), deliver)
        elif self._chance.random() < 0.3:
            self._later(seconds + self._chance.uniform(0, LATE_SECONDS_MAX), deliver)
        try:
            async with asyncio.timeout(seconds):
                return await answer
        except TimeoutError:
            raise Lost(f"{target} did not answer within {seconds:g} s") from None
        finally:
            for waiting in self._waiting.values():
                waiting.pop(answer, None)
            for task in tasks:
                if leaves and not task.done():
                    task.cancel()

    async def _work(
        self,
        machine: Machine,
        source: str,
        work: Callable[[Machine], Awaitable[T]],
        answer: asyncio.Future[T],
    ) -> None:
        result: Any = None
        error: Exception | None = None
        try:
            result = await work(machine)
        except Exception as raised:
            error = raised
        if not self._arrives(machine.name, source):
            return
        delay = self._delay(source, machine.name)
        if error is not None:
            self._later(delay, _fail, answer, error)
        elif self._chance.random() < self.loss:
            self._later(delay, _fail, answer, Lost(f"{machine.name} reset the connection"))
        else:
            self._later(delay, _succeed, answer, result)


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def _succeed(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)
