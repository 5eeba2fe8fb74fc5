"""Work handed to processes of one thread each, which end when their parent does."""

import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import connection, get_context, parent_process
from multiprocessing.connection import Connection
from typing import Any, TypeVar, cast

import torch

from neuralop_kit.solvers.errors import DataError

Item = TypeVar("Item")
Result = TypeVar("Result")
Progress = Callable[[int], None]
Task = Callable[[Item, Progress], Result]


def run(task: Task[Item, Result], items: Sequence[Item], *, workers: int, on_progress: Progress) -> list[Result]:
    """``[task(item, on_progress) for item in items]``, in this process or in several.

    Args:
        task: a function at module level; it tells its progress as increments.
        items: what it is called with; both must be picklable when there are several workers.
        workers: 1 works here, more start as many processes; each computes with one thread, so that results have the
            same bits whatever their number.
        on_progress: called here with every increment.

    Raises:
        DataError: a worker process died.
        Exception: whatever ``task`` raised first; the other workers are ended.
    """
    if workers == 1 or len(items) < 2:
        with single_thread():
            return [task(item, on_progress) for item in items]
    return _run_in_processes(task, items, workers=min(workers, len(items)), on_progress=on_progress)


@contextmanager
def single_thread() -> Iterator[None]:
    """One thread for torch's operations during the block: sums then have one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _run_in_processes(
    task: Task[Item, Result], items: Sequence[Item], *, workers: int, on_progress: Progress
) -> list[Result]:
    # Spawned, not forked: torch and HDF5 hold locks and threads that a fork would copy in an unknown state.
    context = get_context("spawn")
    results: dict[int, Result] = {}
    waiting = iter(enumerate(items))
    processes: dict[Connection, Any] = {}
    busy: list[Connection] = []
    try:
        for _ in range(workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(task, theirs), daemon=True)
            process.start()
            theirs.close()
            processes[ours] = process
            busy.append(ours)
            ours.send(next(waiting))
        while busy:
            for channel in cast(list[Connection], connection.wait(busy)):
                kind, content = _receive(channel, processes[channel])
                if kind == "progress":
                    on_progress(content)
                elif kind == "error":
                    raise content
                else:
                    index, results[index] = content
                    channel.send(item := next(waiting, None))
                    if item is None:
                        busy.remove(channel)
        return [results[i] for i in range(len(items))]
    finally:
        for channel, process in processes.items():
            channel.close()
            process.terminate()
            process.join()


def _receive(channel: Connection, process: Any) -> tuple[str, Any]:
    try:
        message: tuple[str, Any] = channel.recv()
        return message
    except (EOFError, ConnectionError) as reason:
        process.join()
        raise DataError(
            f"expected a worker to finish, got its end with exit code {process.exitcode}; if that is -9, memory was "
            "short: use fewer workers; if it is 1, call this under `if __name__ == '__main__':`. The same call resumes"
        ) from reason


def _work(task: Callable[[Any, Progress], Any], channel: Connection) -> None:
    """Main function of a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told of Ctrl-C too, and ends us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    try:
        while (message := channel.recv()) is not None:
            index, item = message
            result = task(item, lambda count: channel.send(("progress", count)))
            channel.send(("result", (index, result)))
    except Exception as error:
        error.add_note(f"in a worker process:\n{traceback.format_exc()}")
        channel.send(("error", error))


def _end_with_parent() -> None:
    """A parent that is killed cannot end its workers; without this they would go on writing."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
