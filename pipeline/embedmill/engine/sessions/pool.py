"""Pool of the sessions of a target, opened on demand."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection

from embedmill.base.errors import DeviceError
from embedmill.base.records import Batch, Bucket, Model
from embedmill.base.results import SessionFacts
from embedmill.engine.sessions.canary import canary_cosine
from embedmill.engine.sessions.compiled import ContextCache
from embedmill.engine.sessions.options import SessionPlan, plan_session
from embedmill.engine.sessions.session import Session
from embedmill.engine.target import Target


class SessionPool:
    """Thread-safe sessions by fixed shape, None for any shape.

    Every session first embeds the model's canaries; one that differs too much from the CPU is refused.
    """

    def __init__(
        self,
        model: Model,
        target: Target,
        *,
        threads: int,
        memory_bytes: int | None = None,
        contexts: ContextCache | None = None,
        on_run: Callable[[Batch, float], None],
        open_session: type[Session] = Session,
    ) -> None:
        """Call `on_run(batch, seconds)` in the thread of a batch."""
        self._model = model
        self._target = target
        self._threads = threads
        self._memory_bytes = memory_bytes
        self._contexts = contexts
        self._on_run = on_run
        self._open_session = open_session
        self._open: dict[Bucket | None, Session] = {}
        self._closed_busy_s = 0.0
        self._opening = threading.Lock()
        self.facts: list[SessionFacts] = []

    def of(self, bucket: Bucket | None) -> Session:
        """Return a shape's session, opened and checked at first use.

        Raises DeviceError where the provider cannot run the model's graph, or runs it wrongly; OutOfMemory.
        """
        with self._opening:
            if bucket not in self._open:
                self._open[bucket] = self._open_checked(bucket)
            return self._open[bucket]

    def close(self, *, keep: Collection[Bucket | None] = ()) -> None:
        """Close idle sessions, except for shapes to `keep`."""
        with self._opening:
            for bucket in [bucket for bucket in self._open if bucket not in keep]:
                session = self._open.pop(bucket)
                self._closed_busy_s += session.busy_s
                session.close()

    @property
    def busy_s(self) -> float:
        """Return seconds of computing, summed over streams."""
        return self._closed_busy_s + sum(session.busy_s for session in list(self._open.values()))

    def _open_checked(self, bucket: Bucket | None) -> Session:
        began = time.perf_counter()
        provider, precision = self._target.provider, self._target.precision
        plan = plan_session(
            self._model,
            provider,
            precision,
            threads=self._threads,
            bucket=bucket,
            device=self._target.device,
            memory_bytes=self._memory_bytes,
        )
        floor = provider.precisions[precision].floor
        session, cosine = self._try(plan, bucket)
        # `not >=`: a NaN fails too. A cached context may be damaged, so the graph is compiled once more.
        if not cosine >= floor and session.context is not None and self._contexts is not None:
            self._contexts.discard(session.context)
            session.close()
            session, cosine = self._try(plan, bucket)
        if not cosine >= floor:
            session.close()
            raise DeviceError(
                f"{self._target.label} computes this model wrongly: a canary's cosine to its vector on the CPU is"
                f" {cosine:.7f}, and {floor} is the least allowed in {precision}; nothing was embedded with it"
            )
        self.facts.append(
            SessionFacts(
                rows=bucket.rows if bucket is not None else 0,
                sequence=bucket.sequence if bucket is not None else 0,
                nodes_placed=session.nodes_placed,
                nodes=session.nodes,
                canary_cosine=cosine,
                seconds=time.perf_counter() - began,
            )
        )
        return session

    def _try(self, plan: SessionPlan, bucket: Bucket | None) -> tuple[Session, float]:
        """Open a session and run the canaries: the least cosine."""
        session = self._open_session(
            plan,
            self._target.provider,
            pad_id=self._model.pad_id,
            device=self._target.device,
            contexts=self._contexts,
            on_run=self._on_run,
        )
        try:
            return session, canary_cosine(session.run, self._model.canaries, bucket)
        except DeviceError:
            session.close()
            raise
