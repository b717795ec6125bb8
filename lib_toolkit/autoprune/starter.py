"""A run in a process of its own, for programs that have other things to do: started, told of, and ended cleanly.

The command is always ``autoprune --child`` of this package (a dry run's says ``--dry-run`` too), run by this
interpreter. What is to be done goes as one line of JSON into its standard input, and the pipe stays open for as long as
the run is wanted (``background``).
"""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from lib_toolkit.autoprune.line import SEVERAL
from lib_toolkit.autoprune.policy import Policy
from lib_toolkit.autoprune.steps import BEGUN, Run, Step, run_of, step_of
from lib_toolkit.errors import CancelledError, ToolkitError
from lib_toolkit.progress import SILENT, Progress

_PACKAGES = Path(__file__).resolve().parents[2]

# Neither the current folder nor the environment may put another package in front of ours, and an embedded Python
# ignores both; hence the folder goes to the front by hand.
_COMMAND = """
import sys
sys.path[:] = [sys.argv.pop(1), *filter(None, sys.path)]
from lib_toolkit.cli.main import run
run()
"""

_LOOK_EVERY = 0.1
_PATIENCE = 20.0
"""Seconds in which a child that was asked to stop removes what it was writing; then it is killed."""

_LONGEST = 2000


def run_in_child(
    policy: Policy,
    progress: Progress = SILENT,
    report: Callable[[Step], None] = lambda step: None,
    dry: bool = False,
) -> Run:
    """What ``run_once`` does, dry or not, by a child of low priority; returns when it has ended.

    Raises CancelledError when it was cancelled (what was being written is removed), and ToolkitError with the
    child's own sentence when it could not do its work, or ended before its work was done.
    """
    progress.start("starting", 0)
    steps: list[Step] = []
    ended: Run | None = None
    with _running(policy, dry) as child:
        counted = _Counted(progress)
        for line in child.lines(progress):
            if "progress" in line:
                counted.take(line["progress"])
            elif "run" in line:
                ended = run_of(line["run"], tuple(steps))
            elif "step" in line:
                step = step_of(line)
                if step.outcome == BEGUN:
                    counted.file = step.file
                else:
                    steps.append(step)
                report(step)
        status, said = child.end()
    if ended is None:
        if status == 130:
            raise CancelledError(said or "Cancelled; nothing was left behind.")
        raise ToolkitError(said or f"Autoprune ended before its work was done (status {status}); look at the journal.")
    return ended


class _Counted:
    """Hands on the child's progress: a phase at a time, named by the file it is about."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._phase = ("", 0)
        self._done = 0
        self.file = ""

    def take(self, told: object) -> None:
        """One line of progress; what makes no sense is passed over."""
        if not isinstance(told, dict):
            return
        done, total = told.get("done"), told.get("total")
        if not isinstance(done, int) or not isinstance(total, int):
            return
        phase = str(told.get("phase", ""))[:_LONGEST]
        told_of = phase.endswith(SEVERAL) or self.file.rpartition("/")[2] in phase
        named = phase if told_of else f"{self.file}: {phase}"
        if (named, total) != self._phase or done < self._done:
            self._phase, self._done = (named, total), 0
            self._progress.start(named, total)
        self._progress.advance(done - self._done)
        self._done = done


class _Child:
    """The process, with what it says on both of its streams read as it comes."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._process, self._stdin = process, process.stdin
        self._came: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._said: list[bytes] = []
        readers = ((process.stdout, self._listen), (process.stderr, self._note))
        self._threads = [threading.Thread(target=reader, args=(pipe,), daemon=True) for pipe, reader in readers]
        for thread in self._threads:
            thread.start()

    def tell(self, policy: Policy) -> None:
        with contextlib.suppress(OSError):  # it has ended already; what it said tells why
            self._stdin.write(policy.to_json().encode() + b"\n")
            self._stdin.flush()

    def lines(self, progress: Progress) -> Iterator[Mapping[str, Any]]:
        """What it prints, until it closes its output. Raises CancelledError when the user has asked to stop."""
        while True:
            progress.check()
            try:
                line = self._came.get(timeout=_LOOK_EVERY)
            except queue.Empty:
                continue
            if line is None:
                return
            with contextlib.suppress(ValueError, RecursionError):
                told = json.loads(line)
                if isinstance(told, dict):
                    yield told

    def end(self) -> tuple[int, str]:
        """Wait for its end; exit status, and the last line that it said on its error stream."""
        status = self._process.wait()
        for thread in self._threads:
            thread.join()
        lines = b"".join(self._said).decode("utf-8", "replace").strip().splitlines()
        return status, lines[-1][:_LONGEST] if lines else ""

    def stop(self) -> None:
        """Ask it to stop; kill it when it does not."""
        with contextlib.suppress(OSError):
            self._stdin.close()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for thread in self._threads:
            thread.join()

    def _listen(self, pipe: IO[bytes]) -> None:
        with pipe:
            for line in pipe:
                self._came.put(line)
        self._came.put(None)

    def _note(self, pipe: IO[bytes]) -> None:
        with pipe:
            for line in pipe:
                self._said.append(line)
                del self._said[:-20]


@contextmanager
def _running(policy: Policy, dry: bool) -> Iterator[_Child]:
    """The child while it is wanted; however the block ends, it has ended too."""
    if not sys.executable:
        raise ToolkitError("Autoprune cannot find the Python that runs here; use the command model-toolkit autoprune.")
    command = [sys.executable, "-c", _COMMAND, str(_PACKAGES), "autoprune", "--child"]
    command += ["--dry-run"] if dry else []
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    if sys.platform == "win32":
        # No window, and Ctrl+C in the program's own does not reach it: it ends when the pipe closes.
        pipes["creationflags"] = subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP
    else:
        pipes["start_new_session"] = True
    try:
        process = subprocess.Popen(command, cwd=_PACKAGES, **pipes)
    except OSError as error:
        raise ToolkitError(f"Autoprune could not be started: {error.strerror or error}; try again.") from None
    child = _Child(process)
    try:
        child.tell(policy)
        yield child
    finally:
        child.stop()
