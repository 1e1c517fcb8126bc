"""What a client has received and nobody has taken yet: by handlers, one after the other, or by iteration."""

from __future__ import annotations

import inspect
import logging
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeAlias, TypeVar

import anyio
import anyio.lowlevel

from rtcore import LocalProtocolError

__all__ = ["Callback", "Handler", "Handlers", "Inbox"]

_log = logging.getLogger("rtcore.client")

ItemT = TypeVar("ItemT")

#: A user's function, async or not: gets the data, and with a second parameter the whole of what came too. What it
#: returns is of no interest.
Handler: TypeAlias = Callable[..., object]
#: A handler, always with both parameters.
Callback: TypeAlias = Callable[[object, object], object]

_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Handlers:
    """Handlers by name, in the order in which they were added."""

    def __init__(self) -> None:
        self._callbacks: dict[str, list[Callback]] = {}

    def add(self, name: str, handler: Handler) -> None:
        """Have `handler` called for `name`.

        Raises:
            LocalProtocolError: It takes no argument. Nothing has changed.
        """
        self._callbacks.setdefault(name, []).append(_callback(handler))

    def select(self, *names: str) -> tuple[Callback, ...]:
        """Return the handlers for all the names, in the order of the names."""
        return tuple(callback for name in names for callback in self._callbacks.get(name, ()))


class Inbox(Generic[ItemT]):
    """Two queues: calls of handlers, which one task makes in order, and items for iteration.

    Until somebody iterates, the second keeps the newest `size` items. From then on it takes all, and says when it is
    `full`: then reading is to pause.

    Args:
        size: Items, and calls, above which it is full.
        room: Called whenever it may have ceased to be full.

    Attributes:
        dropped: Items that nobody took, so far.
    """

    def __init__(self, size: int, *, room: Callable[[], None]) -> None:
        self.dropped = 0
        self._size = size
        self._room = room
        self._items: deque[ItemT] = deque()
        self._calls: deque[tuple[tuple[Callback, ...], object, ItemT]] = deque()
        self._iterated = False
        self._iterating = 0
        self._ended = False
        self._arrived = anyio.Event()
        self._called = anyio.Event()
        self._dispatcher: int | None = None

    def __len__(self) -> int:
        return len(self._items) + len(self._calls)

    @property
    def full(self) -> bool:
        """Whether reading is to pause; not while somebody waits for an item, which only reading can bring."""
        if self._iterating:
            return False
        return len(self._calls) >= self._size or (self._iterated and len(self._items) >= self._size)

    @property
    def in_handler(self) -> bool:
        """Whether the current task is the one that calls the handlers."""
        return self._dispatcher == anyio.get_current_task().id

    def call(self, callbacks: tuple[Callback, ...], data: object, item: ItemT) -> None:
        """Have handlers called."""
        self._calls.append((callbacks, data, item))
        self._called.set()

    def put(self, item: ItemT) -> None:
        """Offer an item for iteration."""
        self._items.append(item)
        if not self._iterated and len(self._items) > self._size:
            self._items.popleft()
            self.dropped += 1
        self._arrived.set()

    async def get(self) -> ItemT | None:
        """Return the next item, or ``None`` once there are no more to come."""
        self._iterated = True
        await anyio.lowlevel.checkpoint_if_cancelled()
        self._iterating += 1
        try:
            while not self._items:
                if self._ended:
                    return None
                if self._arrived.is_set():
                    self._arrived = anyio.Event()
                self._room()
                await self._arrived.wait()
        finally:
            self._iterating -= 1
        item = self._items.popleft()
        self._room()
        return item

    def end(self) -> None:
        """Take note that nothing more will come."""
        self._ended = True
        self._arrived.set()
        self._called.set()

    def discard(self) -> None:
        """Forget the calls that have not begun."""
        self._calls.clear()

    async def dispatch(self) -> None:
        """Call handlers until the end has come and every call is made; what they raise is logged and ends nothing."""
        self._dispatcher = anyio.get_current_task().id
        while True:
            while self._calls:
                callbacks, data, item = self._calls.popleft()
                self._room()
                for callback in callbacks:
                    try:
                        result = callback(data, item)
                        if inspect.isawaitable(result):
                            await result
                    except Exception:
                        _log.exception("a handler failed")
                # Plain functions do not yield; the rest of the program is to run between two of them.
                await anyio.lowlevel.checkpoint()
            if self._ended:
                return
            self._called = anyio.Event()
            await self._called.wait()


def _callback(handler: Handler) -> Callback:
    try:
        parameters = list(inspect.signature(handler).parameters.values())
    except ValueError:  # some functions written in C do not tell
        return lambda data, item: handler(data)
    positional = [parameter for parameter in parameters if parameter.kind in _POSITIONAL]
    if len(positional) >= 2:
        return handler
    if positional or any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in parameters):
        return lambda data, item: handler(data)
    raise LocalProtocolError("a handler takes the data and, if it has a second parameter, the whole message")
