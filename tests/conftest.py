"""Options of the suite."""

from __future__ import annotations

import os

UNIX_CALLS = ("preadv", "pread", "pwritev", "pwrite", "link", "posix_fallocate")


def pytest_addoption(parser):
    parser.addoption("--bare-os", action="store_true", help="run without the system calls that Windows lacks")


def pytest_configure(config):
    if config.getoption("--bare-os"):
        for name in UNIX_CALLS:
            if hasattr(os, name):
                delattr(os, name)
        from lib_toolkit import target

        target.fcntl = None
