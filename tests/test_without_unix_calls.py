"""The same tests again without the system calls that Windows lacks: positional I/O, hard links, file locks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


IN_MEMORY = (
    "--ignore=tests/formats/test_pickles.py",
    "--deselect=tests/formats/test_checkpoint_out.py::test_more_entries_than_old_zip_counts",
)
"""What takes long and hardly touches a file."""


@pytest.mark.parametrize("tests", ["tests/test_writing.py", "tests/test_target.py", "tests/formats"])
def test_reading_and_writing_work_without_them(tests):
    command = [sys.executable, "-m", "pytest", "--bare-os", "-x", "-p", "no:cacheprovider", *IN_MEMORY, tests]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
