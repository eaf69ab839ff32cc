"""Prefetch in a background thread, behind a bounded queue."""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, Self, TypeVar

from embedmill.base.signals import checkpoint

Item = TypeVar("Item")
_POLL_S = 0.1


class Prefetch(Generic[Item]):
    """Iterator over `items`, prefetched; a context manager.

    At most `depth` items wait. An exception in the thread is raised where the items are consumed.
    """

    def __init__(
        self,
        items: Iterable[Item],
        *,
        depth: int,
        name: str,
        on_close: Callable[[], None] | None = None,
        join_s: float = 5.0,
        timeout_s: float = math.inf,
    ) -> None:
        """Prepare the thread, which entering the context starts."""
        # `on_close` ends what the thread may wait for, as the block ends. The thread then has `join_s` seconds;
        # one that takes longer ends with the process. An item that takes `timeout_s` is a TimeoutError.
        self._items = items
        self._queue: queue.Queue[tuple[str, Item | BaseException | None]] = queue.Queue(depth)
        self._closed = threading.Event()
        self._on_close = on_close
        self._join_s = join_s
        self._timeout_s = timeout_s
        self._thread = threading.Thread(target=self._produce, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._thread.join(self._join_s)

    @property
    def closed(self) -> bool:
        """Return whether the consumer has left."""
        return self._closed.is_set()

    def close(self) -> None:
        """End the iteration on both sides at the next item."""
        self._closed.set()
        if self._on_close is not None:
            self._on_close()

    def __iter__(self) -> Iterator[Item]:
        waited_s = 0.0
        while not self._closed.is_set():
            checkpoint()
            try:
                kind, value = self._queue.get(timeout=_POLL_S)
            except queue.Empty:
                # Looks are counted, not seconds: a machine that slept did not hang.
                waited_s += _POLL_S
                if waited_s >= self._timeout_s:
                    raise TimeoutError from None
                continue
            waited_s = 0.0
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
        """Queue an item; False once the consumer has left."""
        while not self._closed.is_set():
            try:
                self._queue.put((kind, value), timeout=_POLL_S)
            except queue.Full:
                continue
            return True
        return False
