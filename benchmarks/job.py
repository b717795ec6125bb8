"""One job in a process of its own: prints a JSON line with the seconds of its work and the peak of its memory in MiB.

job.py prune SOURCE TARGET [torch] [noback]
job.py report SOURCE
job.py import MODEL TARGET CLASS SOURCE
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def peak() -> float:
    """Peak resident memory of this process in MiB (VmHWM: unlike ru_maxrss it does not begin with the parent's)."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1024)


def prune(source: Path, target: Path, read_back: bool) -> float:
    from lib_toolkit.edits.recipes import Wishes, plan_prune
    from lib_toolkit.formats import open_model
    from lib_toolkit.identify import identify
    from lib_toolkit.writing import WriteOptions, write

    start = time.perf_counter()
    with open_model(source) as model:
        plan = plan_prune(model, identify(model), Wishes())
        write(plan, target, WriteOptions(force=True, read_back=read_back))
    return time.perf_counter() - start


def report(source: Path) -> float:
    """Metric, fingerprints, hashes and health of every tensor."""
    from lib_toolkit.analysis.report import analyse
    from lib_toolkit.formats import open_model
    from lib_toolkit.identify import identify

    start = time.perf_counter()
    with open_model(source) as model:
        found = analyse(model, identify(model), names={})
    seconds = time.perf_counter() - start
    if found.hashes is None or found.metric is None or not found.fingerprints:
        raise SystemExit("the report is not complete")
    return seconds


def replace(model: Path, target: Path, cls: str, source: Path) -> float:
    """The command line ``import MODEL CLASS SOURCE``, reading back included."""
    from lib_toolkit import writing  # noqa: F401 (imports are a row of their own)
    from lib_toolkit.cli.main import main

    start = time.perf_counter()
    if main(["import", str(model), cls, str(source), "-o", str(target), "--force"]):
        raise SystemExit("the import failed")
    return time.perf_counter() - start


def main() -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    verb, source, rest = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
    if "torch" in rest:
        import torch  # noqa: F401
    if verb == "prune":
        seconds = prune(source, Path(rest[0]), "noback" not in rest)
    elif verb == "report":
        seconds = report(source)
    else:
        seconds = replace(source, Path(rest[0]), rest[1], Path(rest[2]))
    print(json.dumps({"seconds": seconds, "peak": peak(), "torch": "torch" in sys.modules}))


if __name__ == "__main__":
    main()
