"""What a process of any role does beside serving its port."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence


async def cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel background tasks and wait for their end."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def serve_beside(
    servers: Awaitable[object], background: Sequence[asyncio.Task[None]], shutdown: asyncio.Event
) -> None:
    """Serve until shutdown. The background tasks are endless: should one end, so does the process
    (the supervisor starts another), because a gateway that no longer follows membership or keeps
    its lease looks well and is not."""
    serving = asyncio.ensure_future(servers)
    await asyncio.wait({serving, *background}, return_when=asyncio.FIRST_COMPLETED)
    ended = [task for task in background if task.done()]
    shutdown.set()
    await serving
    for task in ended:
        task.result()
        raise RuntimeError(f"{task.get_name()} ended")
