"""A task that outlives the call that starts it, under asyncio and trio alike."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import anyio

from .event_loops import runs_on_asyncio

__all__ = ["Background"]

_log = logging.getLogger("rtcore.background")


class Background:
    """One background task, for objects with ``connect`` and ``disconnect`` and for hosts that give us no task group.

    Structured concurrency wants a parent for each task; where a user's call must return while the work goes on, there
    is none but the event loop. It ends with `stop`, by itself, or with the event loop, whichever comes first.
    """

    def __init__(self) -> None:
        self._scope: anyio.CancelScope | None = None
        self._done: anyio.Event | None = None
        self._task: object = None

    @property
    def running(self) -> bool:
        """Whether the task has been started and has not ended."""
        return self._done is not None

    def start(self, run: Callable[[], Awaitable[None]]) -> None:
        """Start `run`, whose errors are logged, in the running event loop."""
        assert self._done is None, "the caller asks `running` first"
        scope = self._scope = anyio.CancelScope()
        done = self._done = anyio.Event()

        async def supervise() -> None:
            try:
                with scope:
                    await run()
            except Exception:
                # Nobody awaits it: on asyncio an error would go unseen, on trio it would end the event loop.
                _log.exception("a background task failed")
            finally:
                self._done = self._scope = self._task = None
                done.set()

        if runs_on_asyncio():
            # It keeps only a weak reference to its tasks.
            self._task = asyncio.get_running_loop().create_task(supervise())
        else:
            import trio

            self._task = trio.lowlevel.spawn_system_task(supervise)

    async def wait(self) -> None:
        """Wait until the task, if it runs, has ended."""
        if self._done is not None:
            await self._done.wait()

    async def stop(self) -> None:
        """Cancel the task, if it runs, and wait until it has ended."""
        done = self._done
        if self._scope is not None and done is not None:
            self._scope.cancel()
            with anyio.CancelScope(shield=True):
                await done.wait()
