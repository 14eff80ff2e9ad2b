"""For each part of an output: work that writes something of its own and is not done again, in processes or in this one."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor

from rich.console import Console

from audiomill.watch.progress import RunProgress


def spawned_processes(count: int) -> Executor:
    """Processes that work at the same time; spawned, because models may hold threads."""
    return ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"))


def map_parts(
    work: Callable[[int], int], seconds: Mapping[int, float], num_processes: int, console: Console, quiet: bool
) -> None:
    """Calls `work` for each part, with progress. What is done must be left out before: `work` commits its part as a whole.

    Args:
        work: takes a part's number and gives the number of its rejections; can be pickled where there are processes.
        seconds: parts that are left, and the seconds of audio of each.
        num_processes: 0: in this process.
        console: for progress.
        quiet: no progress.
    """
    with RunProgress(console, sum(seconds.values()), len(seconds), quiet) as progress:
        for part, num_rejections in _results(work, list(seconds), min(num_processes, len(seconds))):
            progress.part_done(seconds[part], seconds[part], num_rejections)


def _results(work: Callable[[int], int], parts: list[int], num_processes: int) -> Iterator[tuple[int, int]]:
    if not num_processes:
        yield from ((part, work(part)) for part in parts)
        return
    with spawned_processes(num_processes) as pool:
        futures = [pool.submit(work, part) for part in parts]
        yield from ((part, future.result()) for part, future in zip(parts, futures, strict=True))
