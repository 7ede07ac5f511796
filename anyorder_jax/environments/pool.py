"""Pool: worker processes that play seeds, and give their results in the order of the seeds.

    worker 0 |  seeds 0..3    8..11   ...
    worker 1 |  seeds 4..7   12..15   ...     ->     0 1 2 3 4 5 6 7 8 ...

The protocol: a worker reads lines "FIRST END" from stdin, and for every seed in [FIRST, END) writes one
line to stdout, "+" and a result or "-" and a reason. When stdin closes it ends, so a killed parent takes it
along.
"""

from __future__ import annotations

import collections
import contextlib
import os
import queue
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

# Small, so that the last block of a shard finishes soon after the others; it costs one line through a pipe.
_SEEDS_PER_BLOCK = 4
_BLOCKS_AHEAD_PER_WORKER = 64  # how far the others may run ahead of one slow episode


class Result(NamedTuple):
    """What a worker found for one seed. line: what the worker wrote if it is solved, else the reason."""

    seed: int
    is_solved: bool
    line: bytes


def worker_variables() -> dict[str, str]:
    """The variables of a worker process: ours, what can be imported here can be there, and one thread."""
    package_root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(dict.fromkeys((package_root, *filter(os.path.isdir, sys.path))))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class _Worker:
    """A process that plays blocks of seeds.

    A plain subprocess, not multiprocessing: "spawn" would import the caller's main module (and with it JAX)
    in every worker, and "fork" is unsafe once JAX has started its threads.
    """

    def __init__(self, arguments: Sequence[str]):
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is the parent's to handle
            env=worker_variables(),
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._requests, self._replies = self._process.stdin, self._process.stdout

    def play(self, seeds: range) -> list[Result]:
        """Results in the order of `seeds`. Raises RuntimeError when the process is dead."""
        lines = []
        with contextlib.suppress(BrokenPipeError):
            self._requests.write(f"{seeds.start} {seeds.stop}\n".encode())
            self._requests.flush()
            lines = [self._replies.readline() for _ in seeds]
        if len(lines) < len(seeds) or not all(line.endswith(b"\n") for line in lines):
            raise RuntimeError(
                f"pool: a worker died (exit code {self._process.wait()}) on seeds {seeds.start}.."
                f"{seeds.stop - 1}; its last words stand above. Run the same command again to go on."
            )
        return [Result(seed, line.startswith(b"+"), line[1:-1]) for seed, line in zip(seeds, lines, strict=True)]

    def close(self) -> None:
        self._process.kill()  # nothing is lost: a worker owns no file
        self._process.wait()
        for pipe in (self._requests, self._replies):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


class Pool:
    """Workers behind one verb, `results`. They start when it is first called."""

    def __init__(self, arguments: Sequence[str], num_workers: int, seeds_per_block: int = _SEEDS_PER_BLOCK):
        """
        Args:
          arguments: of the Python interpreter, such that it serves the protocol above.
          num_workers: processes, >= 1. No result depends on it.
          seeds_per_block: asked of a worker at once, >= 1. Nor on this.
        """
        self._seeds_per_block = seeds_per_block
        self._arguments = arguments
        self._num_workers = num_workers
        self._threads = ThreadPoolExecutor(num_workers)
        self._workers: list[_Worker] = []
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *exception: object) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.close()

    def _play(self, seeds: range) -> list[Result]:
        worker = self._idle.get()
        try:
            return worker.play(seeds)
        finally:
            self._idle.put(worker)

    def results(self, seeds: range, num_needed: int) -> Iterator[Result]:
        """Yields results in the order of `seeds`, until `num_needed` are solved or none is left.

        No more seeds are under way than are still needed, so without failures none is played in vain.
        """
        while len(self._workers) < self._num_workers:
            self._workers.append(_Worker(self._arguments))
            self._idle.put(self._workers[-1])
        pending: collections.deque[Future[list[Result]]] = collections.deque()
        next_seed, num_under_way = seeds.start, 0
        while num_needed > 0:
            while (
                num_under_way < num_needed
                and next_seed < seeds.stop
                and len(pending) < _BLOCKS_AHEAD_PER_WORKER * self._num_workers
            ):
                size = min(self._seeds_per_block, num_needed - num_under_way, seeds.stop - next_seed)
                pending.append(self._threads.submit(self._play, range(next_seed, next_seed + size)))
                next_seed, num_under_way = next_seed + size, num_under_way + size
            if not pending:
                return
            for result in pending.popleft().result():
                num_under_way -= 1
                num_needed -= result.is_solved
                yield result


def serve(play: Callable[[int], tuple[bool, bytes]]) -> None:
    """The worker's side: answers requests on stdin until it closes.

    Args:
      play: seed -> (solved, line), the line without its newline. Whatever it prints goes to stderr.
    """
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a simulator prints must not reach the replies
    try:
        for request in sys.stdin:
            first, end = map(int, request.split())
            for seed in range(first, end):
                is_solved, line = play(seed)
                replies.write((b"+" if is_solved else b"-") + line + b"\n")
            replies.flush()
    except BrokenPipeError:
        os._exit(1)  # the parent is gone; a normal exit would try to flush once more
