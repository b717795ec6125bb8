"""Small files, several at a time: while some are hashed or written, the next one is looked at.

The work on a file is a generator. What it yields can be done in any thread: reading, hashing and writing of bytes. All
the rest, which is names, journal, moves and what is told, happens in one thread and in the order of the files, so that
the outcome is that of one file after another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Any, TypeAlias

from lib_toolkit.autoprune.steps import Step
from lib_toolkit.errors import CancelledError
from lib_toolkit.progress import Progress

SEVERAL = "small files"
"""How the phase ends whose progress is that of many files, whichever was begun last."""

Task: TypeAlias = Callable[[], Any]
"""Something that may be done in another thread; the work goes on with what it returns or raises."""

Work: TypeAlias = "Generator[Task | None, Any, Step]"
"""The work on one file. It yields None to wait until every file before it is done with."""


def its_turn() -> None:
    """A task that does nothing: the work goes on when its turn comes, with no need for files behind it to wait."""


def alone(work: Work) -> Step:
    """Do the work in this thread, from its beginning to its end. Raises what the work raises."""
    resume: Task = work.__next__
    try:
        while True:
            task = resume()
            try:
                result = task() if task is not None else None
            except BaseException as error:
                resume = _throwing(work, error)
            else:
                resume = _sending(work, result)
    except StopIteration as end:
        step: Step = end.value
        return step


class Stoppable(Progress):
    """Counts for nobody: many files at a time have no phase in common. Is cancelled with ``whole``, or by ``stop``."""

    def __init__(self, whole: Progress) -> None:
        super().__init__()
        self._whole = whole
        self._stopped = False

    def start(self, phase: str, total: int) -> None:
        """Raises CancelledError when the user has asked to stop."""
        self.check()

    def advance(self, count: int) -> None:
        """Raises CancelledError when the user has asked to stop."""
        self.check()

    def check(self) -> None:
        """Raise CancelledError when the user has asked to stop."""
        if self._stopped:
            raise CancelledError("Cancelled; nothing was left behind.")
        self._whole.check()

    def stop(self) -> None:
        """Let every step that asks end with a CancelledError."""
        self._stopped = True


class Line:
    """Works on up to ``threads`` files at a time, and one more that is looked at; ``ended`` gets each one's step.

    At the end of a ``with`` block all are done with; where it ends with an error, nothing more is begun, what is being
    written is removed, and the sources lie where they lay.
    """

    def __init__(self, threads: int, progress: Stoppable, ended: Callable[[Step], None]) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="autoprune")
        self._most = threads + 1
        self._progress = progress
        self._ended = ended
        self._waiting: deque[tuple[Work, Future[Any]]] = deque()

    def put(self, work: Work) -> None:
        """Begin with another file. Raises what the work on it or on one before it raises."""
        while len(self._waiting) >= self._most or (self._waiting and self._waiting[0][1].done()):
            self._go_on_with_oldest()
        self._resume(work, work.__next__, is_oldest=not self._waiting)

    def drain(self) -> None:
        """End the work on all files that were put."""
        while self._waiting:
            self._go_on_with_oldest()

    def _go_on_with_oldest(self) -> None:
        work, future = self._waiting[0]
        error = future.exception()
        self._waiting.popleft()
        resume = _sending(work, future.result()) if error is None else _throwing(work, error)
        self._resume(work, resume, is_oldest=True)

    def _resume(self, work: Work, resume: Task, is_oldest: bool) -> None:
        try:
            while (task := resume()) is None or (task is its_turn and is_oldest):
                if task is None:
                    self.drain()
                resume = _sending(work, None)
        except StopIteration as end:
            self._ended(end.value)
        else:
            # Those behind it do not overtake it.
            keep = self._waiting.appendleft if is_oldest else self._waiting.append
            keep((work, self._pool.submit(task)))

    def __enter__(self) -> Line:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.drain()
        except CancelledError:
            self._leave(cancelled=True)
            raise
        finally:
            self._leave(isinstance(error, CancelledError))

    def _leave(self, cancelled: bool) -> None:
        """Stop what is being done. A result that is in place is told of, when the user only wants no more of them."""
        self._progress.stop()
        self._pool.shutdown(cancel_futures=True)
        while self._waiting:
            work, future = self._waiting.popleft()
            if cancelled and not future.cancelled() and future.exception() is None:
                with suppress(CancelledError):
                    self._end(work, future.result())
            work.close()

    def _end(self, work: Work, result: object) -> None:
        try:
            work.send(result)
        except StopIteration as end:
            self._ended(end.value)


def _sending(work: Work, result: object) -> Task:
    return lambda: work.send(result)


def _throwing(work: Work, error: BaseException) -> Task:
    return lambda: work.throw(error)
