"""A process that works for another one: at low priority, and no longer than that one lives.

The starter gives the policy as one line of JSON on standard input and keeps that pipe open. The pipe closes when it
ends, however it ends, on every system; there is no number of a process to be mistaken for another one's.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from lib_toolkit.autoprune.policy import Policy
from lib_toolkit.errors import UsageError

_NICE = 15
_IDLE_PRIORITY_CLASS = 0x40
_PROCESS_IO_PRIORITY, _LOW = 33, 1
_LONGEST_LINE = 1 << 20


def lower_priority() -> None:
    """Give way to everything else, for processor and disk; a system that refuses is left alone.

    On Linux the disk's priority follows the processor's (ioprio_set(2)). On Windows both are set; the disk's in the
    way of psutil's ``ionice``.
    """
    if hasattr(os, "nice"):
        with suppress(OSError):
            os.nice(_NICE)
    if sys.platform == "win32":
        import ctypes

        with suppress(OSError, AttributeError):
            process = ctypes.windll.kernel32.GetCurrentProcess()
            ctypes.windll.kernel32.SetPriorityClass(process, _IDLE_PRIORITY_CLASS)
            low = ctypes.c_ulong(_LOW)
            ctypes.windll.ntdll.NtSetInformationProcess(process, _PROCESS_IO_PRIORITY, ctypes.byref(low), 4)


def read_policy(stdin: int = 0) -> Policy:
    """The policy that the starter sent. Raises UsageError when it is none."""
    line = b""
    while not line.endswith(b"\n") and len(line) < _LONGEST_LINE:
        byte = os.read(stdin, 1)  # no buffer: what follows belongs to ``asked_to_stop``
        if not byte:
            break
        line += byte
    if not line.strip():
        raise UsageError("No policy came on standard input; --child is for programs that start this one.")
    return Policy.from_json(line.decode("utf-8", "replace"))


@contextmanager
def asked_to_stop(stdin: int = 0) -> Iterator[Callable[[], bool]]:
    """Tells whether the starter has gone, or has asked for an end (SIGTERM, CTRL_BREAK, Ctrl+C)."""
    stop = threading.Event()

    def listen() -> None:
        # Read without Python's buffers: a thread that waits in them would keep the interpreter from ending.
        with suppress(OSError):
            while os.read(stdin, 4096):
                pass
        stop.set()

    def ask(number: int, frame: FrameType | None) -> None:
        stop.set()

    names = [name for name in ("SIGTERM", "SIGINT", "SIGBREAK") if hasattr(signal, name)]
    before = {name: signal.signal(getattr(signal, name), ask) for name in names}
    threading.Thread(target=listen, name="starter", daemon=True).start()
    try:
        yield stop.is_set
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)
