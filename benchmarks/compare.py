"""The row *compare*: two dense FP16 models, all figures at once, against one sha256 over the bytes of both.

Run as a script it is the job, in a process of its own: compare.py A B prints a JSON line with the seconds of its work
and the peak of its memory in MiB.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

LIMIT, MEMORY = 2.0, 150


def job(a: Path, b: Path) -> None:
    """Compare, and print what it took; imports are a row of their own."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from benchmarks.job import peak
    from lib_toolkit.analysis.compare.pairs import compare
    from lib_toolkit.formats import open_model
    from lib_toolkit.identify import identify

    start = time.perf_counter()
    with open_model(a) as first, open_model(b) as second:
        found = compare((first, second), (identify(first), identify(second)))
        total = found.total()
    seconds = time.perf_counter() - start
    if len(found.compared) != len(first.tensors) or total.measures.changed < total.measures.elements // 2:
        raise SystemExit("the comparison is not complete")
    print(json.dumps({"seconds": seconds, "peak": peak(), "torch": "torch" in sys.modules}))


def second_model(a: Path) -> Path:
    """A copy of a dense FP16 model in which every value is another one of the same size."""
    import numpy as np

    b = a.with_name(f"{a.stem}-other{a.suffix}")
    if not b.exists():
        with a.open("rb") as source, b.open("wb") as target:
            head = source.read(8)
            target.write(head + source.read(int.from_bytes(head, "little")))
            while block := source.read(8 << 20):
                bits = np.frombuffer(block, "<u2")
                # The last bits of the fraction: a step of training.
                target.write((bits ^ np.uint16(5)).tobytes())
    return b


def pair_of_models(
    a: Path, pairs: int, timed: Callable[[list[str]], dict[str, float]], digest: Callable[[Path, int], float]
) -> tuple[str, str, str, bool]:
    """Task, measured, budget and whether it was met; job and yardstick in turn."""
    b = second_model(a)
    ratios, memory = [], 0.0
    for _ in range(pairs):
        result = timed([str(Path(__file__).resolve()), str(a), str(b)])
        ratios.append(result["seconds"] / sum(digest(path, path.stat().st_size) for path in (a, b)))
        memory = max(memory, result["peak"])
        if result["torch"]:
            raise SystemExit("compare imported torch")
    middle = statistics.median(ratios)
    shown = f"{middle:.2f} ({min(ratios):.2f} to {max(ratios):.2f}) × digest, {memory:.0f} MiB"
    task = f"compare two {a.stat().st_size / 1e9:.2f} GB FP16 models, all figures"
    return task, shown, f"{LIMIT:.1f} × digest of both, {MEMORY} MiB", middle <= LIMIT and memory <= MEMORY


if __name__ == "__main__":
    job(Path(sys.argv[1]), Path(sys.argv[2]))
