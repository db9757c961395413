"""A function over many files on all cores, with a bounded number in flight."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_parallel(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int | None = None
) -> Generator[tuple[Item, Result], None, None]:
    """Yield (item, result) as results come; the first error stops the rest and is raised here.

    Close the generator when leaving it early, so that what is queued stops there and then.
    `workers` threads (default: the cores this process may use), at most twice as many items in
    flight. Threads, not processes: Pillow, zlib and numpy let go of the interpreter lock, and
    threads start at once, share memory, and need no guard in a user's script.
    """
    count = workers or len(os.sched_getaffinity(0))
    remaining = iter(items)
    with ThreadPoolExecutor(count, thread_name_prefix="fastuda-data") as pool:
        running: dict[Future[Result], Item] = {}
        try:
            for item in islice(remaining, 2 * count):
                running[pool.submit(function, item)] = item
            while running:
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    yield running.pop(future), future.result()
                    for item in islice(remaining, 1):
                        running[pool.submit(function, item)] = item
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
