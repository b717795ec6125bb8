"""The row ``matrix``: a set of dense FP16 models, every byte of which is read once, in memory that its formula tells.

matrix.py FOLDER NAME RUNS: makes the set of the named architecture, measures it, prints the rows as JSON.
matrix.py job FILE…: one run in a process of its own, as JSON: seconds, bytes that were read, and the growth of peak
memory over what the imports take beside the formula's bound, both in MiB.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODELS = 4
HEADER = 2 << 10
"""Bytes that an opened tensor may cost; the formula of the sweep leaves headers out."""


def set_of_models(folder: Path, name: str, runs: int) -> list[str]:
    """The command that measures the row."""
    return [str(HERE / "matrix.py"), str(folder), name, str(runs)]


def job(paths: list[Path]) -> dict[str, float]:
    """Sweep the set and count what is read."""
    from benchmarks.job import peak
    from lib_toolkit.analysis.matrix.sweep import memory_bound
    from lib_toolkit.analysis.matrix.whole import measure_set
    from lib_toolkit.files import SourceFile
    from lib_toolkit.formats import open_model
    from lib_toolkit.streaming import default_workers

    count, lock, read_at = [0], threading.Lock(), SourceFile.read_at

    def counted(self, offset: int, out: memoryview) -> None:
        with lock:
            count[0] += len(out)
        read_at(self, offset, out)

    with open_model(paths[0]) as model:
        tensors = len(model.tensors)
    before, start = peak(), time.perf_counter()
    SourceFile.read_at = counted
    result = measure_set(paths)
    seconds = time.perf_counter() - start
    groups = 1 + len(result.components) + len(result.blocks)
    bound = memory_bound(len(paths), groups, default_workers()) + HEADER * tensors * len(paths)
    return {"seconds": seconds, "read": count[0], "peak": peak() - before, "bound": bound / (1 << 20)}


def drifted(source: Path, target: Path, step: int) -> Path:
    """A copy in which the last bit of every ``step``-th FP16 value is turned, as after a little training."""
    if not target.exists():
        import numpy as np

        data = np.fromfile(source, dtype=np.uint8)
        start = 8 + int.from_bytes(data[:8].tobytes(), "little")
        data[start :: 2 * step] ^= 1
        data.tofile(target)
    return target


def rows(folder: Path, name: str, runs: int) -> list[list[object]]:
    """Task, measured, budget, met; the yardstick is one digest of all that is read."""
    from benchmarks.models import dense_safetensors

    source = dense_safetensors(folder / "half.safetensors", name, "F16")
    paths = [source, *(drifted(source, folder / f"set-{place}.safetensors", 2 + place) for place in range(1, MODELS))]
    size = sum(path.stat().st_size for path in paths)
    ratios, found = [], {}
    for _ in range(runs):
        found = _printed("matrix.py", "job", *paths)
        ratios.append(found["seconds"] / MODELS / _printed("yardstick.py", source, source.stat().st_size))
    for path in paths[1:]:
        path.unlink()
    task = f"matrix of {MODELS} models of {source.stat().st_size / 1e9:.2f} GB FP16, all metrics and merges"
    middle = sorted(ratios)[len(ratios) // 2]
    measured = f"{found['read'] / size:.3f} × the bytes, {found['peak']:.0f} MiB, {middle:.2f} × digest of all"
    # Schedules are read as all else; position ids are not.
    met = found["read"] <= 1.01 * size + (1 << 20) and found["peak"] <= found["bound"]
    return [[task, measured, f"bytes read once, {found['bound']:.0f} MiB by its formula", met]]


def _printed(script: str, *arguments: object):
    command = [sys.executable, str(HERE / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent))
    if sys.argv[1] == "job":
        print(json.dumps(job([Path(name) for name in sys.argv[2:]])))
    else:
        print(json.dumps(rows(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))))
