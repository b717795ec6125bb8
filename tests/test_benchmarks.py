"""The benchmark harness works on small models; its times are never judged here."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_a_small_run_prints_its_table_and_checks_every_tensor(tmp_path):
    pytest.importorskip("torch")
    command = [sys.executable, "benchmarks/run.py", "--small", "--pairs", "1", "--folder", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 14
    assert all(re.search(r"\d", row) for row in rows)
    assert re.search(r"checked \d{3,} tensors .* equal to an independent cast", done.stderr)
