"""Dynamic batching of the service: sizes, delay, order, capacity, time limits and failures."""

import asyncio
import threading

import pytest

pytest.importorskip("fastapi", reason="needs the extra serve: pip install 'afqmc[serve]'")

from afqmc.inference.serving.batcher import Batcher, QueueFullError


def rows_of(pairs):
    return [{"sentences": pair} for pair in pairs]


class Gate:
    """A model that waits until it is opened, and records its batches."""

    def __init__(self):
        self.opened, self.entered, self.batches = threading.Event(), threading.Event(), []

    def __call__(self, pairs):
        self.batches.append(len(pairs))
        self.entered.set()
        self.opened.wait()
        return rows_of(pairs)


def pairs_of(name, count):
    return [(name, str(number)) for number in range(count)]


def run(scenario, predict, max_batch=4, max_delay_s=0.0, capacity=100, timeout_s=600.0):
    """Run a coroutine with a batcher."""

    async def main():
        batcher = Batcher(predict, max_batch, max_delay_s, capacity, timeout_s, lambda pairs, seconds: None)
        running = asyncio.create_task(batcher.run())
        try:
            return await scenario(batcher)
        finally:
            running.cancel()
            batcher.close()

    return asyncio.run(main())


async def entered(gate):
    await asyncio.to_thread(gate.entered.wait)


def test_pairs_that_arrive_meanwhile_form_batches():
    """Requests keep their pairs in order, also where a request is divided into several batches."""
    gate = Gate()

    async def scenario(batcher):
        first = asyncio.create_task(batcher.submit(pairs_of("a", 1)))
        await entered(gate)
        others = [asyncio.create_task(batcher.submit(pairs_of(name, count))) for name, count in (("b", 3), ("c", 6))]
        await asyncio.sleep(0)
        gate.opened.set()
        return await asyncio.gather(first, *others)

    assert run(scenario, gate) == [rows_of(pairs_of(name, count)) for name, count in (("a", 1), ("b", 3), ("c", 6))]
    assert gate.batches == [1, 4, 4, 1]


def test_delay():
    """A client that is alone does not wait. Then concurrent ones wait for a full batch, which starts at once."""
    gate = Gate()
    gate.opened.set()

    async def scenario(batcher):
        await batcher.submit(pairs_of("a", 1))
        await batcher.submit(pairs_of("b", 1))
        await asyncio.gather(*(batcher.submit(pairs_of(name, 1)) for name in "cd"))
        late = asyncio.create_task(batcher.submit(pairs_of("e", 1)))
        await asyncio.sleep(0.05)
        assert gate.batches == [1, 1, 2]
        await asyncio.gather(late, batcher.submit(pairs_of("f", 3)))

    run(scenario, gate, max_delay_s=3600.0)
    assert gate.batches == [1, 1, 2, 4]


def test_delay_ends():
    """After the delay, a batch that is not full starts."""
    gate = Gate()
    gate.opened.set()

    async def scenario(batcher):
        await asyncio.gather(*(batcher.submit(pairs_of(name, 1)) for name in "ab"))
        await batcher.submit(pairs_of("c", 1))

    run(scenario, gate, max_delay_s=0.05)
    assert gate.batches == [2, 1]


def test_queue_has_a_capacity():
    """A request that does not fit is refused at once; the others are answered."""
    gate = Gate()

    async def scenario(batcher):
        first = asyncio.create_task(batcher.submit(pairs_of("a", 1)))
        await entered(gate)
        second = asyncio.create_task(batcher.submit(pairs_of("b", 3)))
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError) as refused:
            await batcher.submit(pairs_of("c", 3))
        assert refused.value.retry_after_s >= 1
        gate.opened.set()
        await asyncio.gather(first, second)
        assert batcher.waiting == 0

    run(scenario, gate, capacity=5)


def test_late_pairs_are_dropped():
    """A request that is not answered in time leaves the queue, so that others have its places."""
    gate = Gate()

    async def scenario(batcher):
        with pytest.raises(TimeoutError):
            await batcher.submit(pairs_of("a", 6))
        assert batcher.waiting == 0
        gate.opened.set()

    run(scenario, gate, timeout_s=0.05)
    assert gate.batches == [4]


def test_failure_is_that_of_its_batch():
    """An error of the model reaches all requests of its batch; later requests are answered."""

    def predict(pairs):
        if ("bad", "0") in pairs:
            raise MemoryError
        return rows_of(pairs)

    async def scenario(batcher):
        failed = await asyncio.gather(
            batcher.submit(pairs_of("bad", 1)), batcher.submit(pairs_of("a", 5)), return_exceptions=True
        )
        assert [type(error) for error in failed] == [MemoryError, MemoryError]
        assert batcher.waiting == 0
        return await batcher.submit(pairs_of("b", 2))

    assert run(scenario, predict) == rows_of(pairs_of("b", 2))
