"""Work ahead: an iterator that runs in a thread of its own, a bounded number of items in front."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, Self, TypeVar

Item = TypeVar("Item")
_POLL_S = 0.1
_JOIN_S = 5.0


class Prefetch(Generic[Item]):
    """Iterates over `items` in a background thread; a context manager.

    At most `depth` items wait. An exception in the thread is raised where the items are consumed.
    """

    def __init__(
        self, items: Iterable[Item], *, depth: int, name: str, on_close: Callable[[], None] | None = None
    ) -> None:
        """`on_close` is called when the block is left, to end what the thread may be waiting for."""
        self._items = items
        self._queue: queue.Queue[tuple[str, Item | BaseException | None]] = queue.Queue(depth)
        self._closed = threading.Event()
        self._on_close = on_close
        self._thread = threading.Thread(target=self._produce, name=name, daemon=True)

    def __enter__(self) -> Self:
        try:
            self._thread.start()
        except BaseException:  # an interrupt may come while the start is waited for
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Wait a few seconds for the thread; one that does not end by then dies with the process."""
        self.close()
        if self._thread.is_alive():
            self._thread.join(_JOIN_S)

    @property
    def closed(self) -> bool:
        """Whether the consumer has left."""
        return self._closed.is_set()

    def close(self) -> None:
        """End the iteration on both sides at the next item."""
        self._closed.set()
        if self._on_close is not None:
            self._on_close()

    def __iter__(self) -> Iterator[Item]:
        while not self._closed.is_set():
            try:
                kind, value = self._queue.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            if kind == "end":
                return
            if isinstance(value, BaseException):
                raise value
            yield value  # type: ignore[misc]  # "item" always carries an Item

    def _produce(self) -> None:
        try:
            for item in self._items:
                if not self._put("item", item):
                    return
        except BaseException as error:
            self._put("error", error)
        else:
            self._put("end", None)

    def _put(self, kind: str, value: Item | BaseException | None) -> bool:
        """Hand one item over, waiting for room; False if the consumer has left."""
        while not self._closed.is_set():
            try:
                self._queue.put((kind, value), timeout=_POLL_S)
            except queue.Full:
                continue
            return True
        return False
