"""Dynamic batching: pairs of concurrent requests are predicted together."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

SentencePair = tuple[str, str]
OnBatch = Callable[[int, float], None]  # called after each batch with its pairs and its seconds


class QueueFullError(Exception):
    """There is no space in the queue for a request. ``retry_after_s`` estimates when there will be."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__("the queue is full")
        self.retry_after_s = retry_after_s


@dataclass(eq=False)
class _Request:
    pairs: Sequence[SentencePair]
    answer: asyncio.Future[list[dict[str, Any]]]
    arrived: float
    taken: int = 0  # pairs that have left the queue
    rows: list[dict[str, Any]] = field(default_factory=list)


class Batcher:
    """Queues pairs and predicts them in batches, first in, first out. All methods belong to one event loop.

    A batch starts when it is full, or when its oldest pair has waited for ``max_delay_s``. If the last batch had a
    single request, the next one does not wait: a client that is alone would gain nothing. One thread predicts, so pairs
    that arrive meanwhile form the next batch. A request may be divided into several batches.

    Args:
        predict: Maps pairs to one row each; called in the thread.
        max_batch: Pairs per batch.
        max_delay_s: Seconds.
        capacity: Pairs that may wait.
        timeout_s: Seconds from the arrival of a request to its answer.
        on_batch: Called after each batch.
    """

    def __init__(
        self,
        predict: Callable[[list[SentencePair]], list[dict[str, Any]]],
        max_batch: int,
        max_delay_s: float,
        capacity: int,
        timeout_s: float,
        on_batch: OnBatch,
    ) -> None:
        self._predict, self._max_batch, self._max_delay_s = predict, max_batch, max_delay_s
        self._capacity, self._timeout_s, self._on_batch = capacity, timeout_s, on_batch
        self._requests: deque[_Request] = deque()
        self._arrival = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="predict")
        self._seconds_per_pair = 0.0
        self._was_shared = False  # whether the last batch had several requests
        self.waiting = 0  # pairs

    async def submit(self, pairs: Sequence[SentencePair]) -> list[dict[str, Any]]:
        """Return the row of each pair.

        Raises:
            QueueFullError: if fewer places are free than there are pairs.
            TimeoutError: if there is no answer in time; pairs that still wait are dropped.
        """
        if self.waiting + len(pairs) > self._capacity:
            raise QueueFullError(max(1, math.ceil(self.waiting * self._seconds_per_pair)))
        loop = asyncio.get_running_loop()
        request = _Request(pairs, loop.create_future(), loop.time())
        self._requests.append(request)
        self.waiting += len(pairs)
        self._arrival.set()
        try:
            async with asyncio.timeout(self._timeout_s):
                return await request.answer
        finally:
            self._drop(request)

    async def run(self) -> None:
        """Predict batches until cancelled."""
        while True:
            while not self._requests:
                self._arrival.clear()
                await self._arrival.wait()
            await self._fill()
            if batch := self._take():  # empty if the requests were dropped meanwhile
                await self._answer(batch)

    def close(self) -> None:
        """Wait for the batch that is being predicted, and end the thread."""
        self._thread.shutdown()

    async def _fill(self) -> None:
        """Wait until the batch is full or its oldest pair has waited long enough."""
        if not self._was_shared:
            return
        deadline = self._requests[0].arrived + self._max_delay_s
        while self.waiting < self._max_batch and asyncio.get_running_loop().time() < deadline:
            self._arrival.clear()
            try:
                async with asyncio.timeout_at(deadline):
                    await self._arrival.wait()
            except TimeoutError:
                return

    def _take(self) -> list[tuple[_Request, Sequence[SentencePair]]]:
        """Remove up to ``max_batch`` pairs from the queue."""
        batch: list[tuple[_Request, Sequence[SentencePair]]] = []
        free = self._max_batch
        while self._requests and free:
            request = self._requests[0]
            part = request.pairs[request.taken : request.taken + free]
            request.taken += len(part)
            free -= len(part)
            self.waiting -= len(part)
            batch.append((request, part))
            if request.taken == len(request.pairs):
                self._requests.popleft()
        self._was_shared = len(batch) > 1
        return batch

    async def _answer(self, batch: list[tuple[_Request, Sequence[SentencePair]]]) -> None:
        pairs = [pair for _, part in batch for pair in part]
        since = time.perf_counter()
        try:
            rows = await asyncio.get_running_loop().run_in_executor(self._thread, self._predict, pairs)
        except Exception as error:
            for request, _ in batch:
                self._drop(request)
                if not request.answer.done():
                    request.answer.set_exception(error)
            return
        seconds = time.perf_counter() - since
        self._seconds_per_pair = seconds / len(pairs)
        self._on_batch(len(pairs), seconds)
        for request, part in batch:
            request.rows += rows[: len(part)]
            rows = rows[len(part) :]
            if len(request.rows) == len(request.pairs) and not request.answer.done():
                request.answer.set_result(request.rows)

    def _drop(self, request: _Request) -> None:
        """Remove the pairs of a request that still wait."""
        if request in self._requests:
            self._requests.remove(request)
            self.waiting -= len(request.pairs) - request.taken
