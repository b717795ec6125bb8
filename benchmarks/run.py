"""Run the benchmarks and print the table of the README. See README.md beside this file."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from benchmarks import models  # noqa: E402
from benchmarks.autoprune import many_files  # noqa: E402
from benchmarks.compare import pair_of_models, second_model  # noqa: E402
from benchmarks.matrix import set_of_models  # noqa: E402
from benchmarks.tab import clicks  # noqa: E402
from lib_toolkit.architectures.registry import architecture  # noqa: E402


@dataclass(frozen=True)
class Sizes:
    """Which models a run uses."""

    sd1: str = "sd1"
    sdxl: str = "sdxl"
    large: int = 24_000_000_000


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    task: str
    measured: str
    budget: str
    met: bool


# An installed package has its bytecode; a variable of the shell must not make every start compile the sources.
ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}


def timed(command: list[str]) -> dict[str, float]:
    whole = [sys.executable, *command]
    done = subprocess.run(whole, capture_output=True, text=True, check=False, cwd=HERE.parent, env=ENVIRONMENT)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    print(done.stderr, end="", file=sys.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def whole_process(arguments: list[str]) -> tuple[float, float]:
    """Wall seconds and peak MiB of a process that runs the command line, started anew."""
    code = (
        "import sys, time, json; start = time.perf_counter(); sys.path.insert(0, '.')\n"
        "from lib_toolkit.cli.main import main\n"
        f"status = main({arguments!r})\n"
        "from benchmarks.job import peak\n"
        "print(); print(json.dumps({'peak': peak(), 'torch': 'torch' in sys.modules, 'status': status}))"
    )
    start = time.perf_counter()
    result = timed(["-c", code])
    seconds = time.perf_counter() - start
    if result["torch"] or result["status"]:
        raise SystemExit(f"{arguments} imported torch or failed")
    return seconds, result["peak"]


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def repeated(arguments: list[str], runs: int) -> tuple[float, float]:
    """Median wall seconds and largest peak of several runs, after one that is not counted."""
    whole_process(arguments)
    results = [whole_process(arguments) for _ in range(runs)]
    return statistics.median(seconds for seconds, _ in results), max(memory for _, memory in results)


START = {
    "inspect": "lib_toolkit.formats, lib_toolkit.identify, lib_toolkit.edits.repair, "
    "lib_toolkit.reports.identification",
    "prune": "lib_toolkit.formats.safetensors_out, lib_toolkit.edits.recipes, lib_toolkit.writing, "
    "lib_toolkit.reports.plans, safetensors",
}
"""What the verbs import."""


def start_row(folder: Path, pairs: int, sizes: Sizes) -> list[Row]:
    """The start of Python and every import that a verb needs."""
    rows = []
    for verb, modules in START.items():
        code = (
            "import sys; sys.path.insert(0, '.')\n"
            f"import json, lib_toolkit.cli.main, {modules}\n"
            "from benchmarks.job import peak\n"
            "print(json.dumps({'peak': peak()}))"
        )
        seconds, memory = [], 0.0
        for _ in range(pairs + 1):
            start = time.perf_counter()
            memory = max(memory, timed(["-c", code])["peak"])
            seconds.append(time.perf_counter() - start)
        middle = statistics.median(seconds[1:])
        task = f"start of Python and imports of `{verb}`"
        rows.append(Row(task, f"{middle:.2f} s, {memory:.0f} MiB", "0.35 s, 45 MiB", middle <= 0.35 and memory <= 45))
    return rows


def inspect_rows(folder: Path, pairs: int, sizes: Sizes) -> list[Row]:
    rows = []
    for path, limit in (
        (models.sparse_safetensors(folder / "xl-sparse.safetensors", sizes.sdxl), 0.35),
        (models.dense_checkpoint(folder / "bloated.ckpt", sizes.sd1), 0.6),
    ):
        seconds, memory = repeated(["inspect", str(path)], pairs)
        size = path.stat().st_size / 1e9
        met = seconds <= limit and memory <= 60
        task = f"`inspect` of a {size:.1f} GB {path.suffix}"
        rows.append(Row(task, f"{seconds:.2f} s, {memory:.0f} MiB", f"{limit} s, 60 MiB", met))
    return rows


WAYS: tuple[tuple[list[str], float, int], ...] = (
    ([], 2.6, 120),
    (["noback"], 2.0, 120),
    (["torch"], 1.6, 320),
    (["torch", "noback"], 1.0, 320),
)
"""Flags of job.py with the budget: times copy, and MiB."""


def convert_rows(folder: Path, pairs: int, sizes: Sizes) -> list[Row]:
    """A dense FP32 .safetensors."""
    source, target = models.dense_safetensors(folder / "dense.safetensors", sizes.sd1), folder / "result.safetensors"
    rows = [_write_row(source, target, source.stat().st_size, *way, pairs) for way in WAYS]
    target.unlink()
    return rows


def prune_rows(folder: Path, pairs: int, sizes: Sizes) -> list[Row]:
    """A dense FP32 + EMA .ckpt; the yardstick reads the bytes that are kept, and every tensor is checked."""
    kept = models.dense_safetensors(folder / "dense.safetensors", sizes.sd1).stat().st_size
    source, target = models.dense_checkpoint(folder / "bloated.ckpt", sizes.sd1), folder / "result.safetensors"
    rows = [_write_row(source, target, kept, *way, pairs) for way in WAYS]
    check_values(source, target, models.buffers(sizes.sd1))
    target.unlink()
    return rows


def yardstick(source: Path, *counts: int) -> float:
    """Seconds of copy(read, written) beside ``source``, or of digest(read), in a process of its own."""
    command = [sys.executable, str(HERE / "yardstick.py"), str(source), *map(str, counts)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _write_row(
    source: Path, target: Path, kept: int, flags: list[str], limit: float, memory_limit: int, pairs: int
) -> Row:
    ratios, memory = [], 0.0
    for _ in range(pairs):
        result = timed([str(HERE / "job.py"), "prune", str(source), str(target), *flags])
        ratios.append(result["seconds"] / yardstick(source, kept, target.stat().st_size))
        memory = max(memory, result["peak"])
    how = ("torch loaded" if "torch" in flags else "no torch") + (", no reading back" if "noback" in flags else "")
    content = "FP32 + EMA" if source.suffix == ".ckpt" else "FP32"
    return Row(
        f"{source.stat().st_size / 1e9:.2f} GB {source.suffix} ({content}) → FP16, {how}",
        f"{spread(ratios)} × copy, {memory:.0f} MiB",
        f"{limit} × copy, {memory_limit} MiB",
        statistics.median(ratios) <= limit and memory <= memory_limit,
    )


def report_rows(folder: Path, pairs: int, sizes: Sizes) -> list[Row]:
    """Metric, fingerprints, hashes and health at once, against one sha256 of the same bytes."""
    source = models.dense_safetensors(folder / "half.safetensors", sizes.sd1, "F16")
    size = source.stat().st_size
    ratios, memory = [], 0.0
    for _ in range(pairs):
        result = timed([str(HERE / "job.py"), "report", str(source)])
        ratios.append(result["seconds"] / yardstick(source, size))
        memory = max(memory, result["peak"])
        if result["torch"]:
            raise SystemExit("the report imported torch")
    met = statistics.median(ratios) <= 3 and memory <= 150
    task = f"full report of a {size / 1e9:.2f} GB FP16 model"
    return [Row(task, f"{spread(ratios)} × digest, {memory:.0f} MiB", "3 × digest, 150 MiB", met)]


def import_rows(folder: Path, pairs: int, sizes: Sizes) -> list[Row]:
    """Replace the VAE, with reading back."""
    model = models.dense_safetensors(folder / "half.safetensors", sizes.sd1, "F16")
    vae = models.dense_safetensors(folder / "half.vae.safetensors", sizes.sd1, "F16", "first_stage_model.")
    cls = next(cls for cls in architecture(sizes.sd1).classes if cls.startswith("VAE"))
    target = folder / "replaced.safetensors"
    ratios, memory = [], 0.0
    for _ in range(pairs):
        result = timed([str(HERE / "job.py"), "import", str(model), str(target), cls, str(vae)])
        written = target.stat().st_size
        ratios.append(result["seconds"] / yardstick(model, written, written))
        memory = max(memory, result["peak"])
    target.unlink()
    task = f"replace the VAE of a {model.stat().st_size / 1e9:.2f} GB FP16 model, with reading back"
    met = statistics.median(ratios) <= 2
    return [Row(task, f"{spread(ratios)} × copy, {memory:.0f} MiB", "2.0 × copy", met)]


def check_values(source: Path, result: Path, buffers: set[str]) -> None:
    """Every tensor of the pruned file against PyTorch's own reading and cast of the source."""
    import torch
    from safetensors import safe_open

    state = torch.load(source, mmap=True, weights_only=True)["state_dict"]
    wanted = {key for key in state if not key.startswith("model_ema.")}
    with safe_open(str(result), framework="pt") as file:
        if set(file.keys()) != wanted:
            raise SystemExit("the pruned file does not hold the keys that it should")
        for key in wanted:
            expected = state[key]
            if expected.dtype == torch.float32 and key not in buffers:
                expected = expected.half()
            found = file.get_tensor(key)
            if found.dtype != expected.dtype or not torch.equal(found, expected):
                raise SystemExit(f"{key} is wrong in the pruned file")
    print(f"checked {len(wanted)} tensors of {source.name}: all equal to an independent cast", file=sys.stderr)


def memory_rows(folder: Path, pairs: int, sizes: Sizes) -> list[Row]:
    peaks = {}
    for name, source in (
        ("SD1", models.sparse_safetensors(folder / "sd1-sparse.safetensors", sizes.sd1)),
        ("SDXL", models.sparse_safetensors(folder / "xl-sparse.safetensors", sizes.sdxl)),
        (
            f"{sizes.large / 1e9:.0f} GB",
            models.sparse_safetensors(folder / "large.safetensors", sizes.sdxl, sizes.large),
        ),
    ):
        target = folder / "memory.safetensors"
        peaks[name] = timed([str(HERE / "job.py"), "prune", str(source), str(target)])["peak"]
        target.unlink()
    growth = max(peaks.values()) - min(peaks.values())
    text = ", ".join(f"{name} {peak:.0f}" for name, peak in peaks.items())
    return [
        Row("growth of peak memory with the size of the model", f"{growth:.0f} MiB ({text})", "30 MiB", growth <= 30)
    ]


def compare_row(folder: Path, pairs: int, sizes: Sizes) -> list[Row]:
    """Two models that differ everywhere."""
    model = models.dense_safetensors(folder / "half.safetensors", sizes.sd1, "F16")
    return [Row(*pair_of_models(model, pairs, timed, yardstick))]


def tab_rows(folder: Path, pairs: int, sizes: Sizes) -> list[Row]:
    """In Chromium, with the models of the other rows."""
    checkpoint = models.dense_checkpoint(folder / "bloated.ckpt", sizes.sd1)
    model = models.dense_safetensors(folder / "half.safetensors", sizes.sd1, "F16")
    command = clicks(folder / "tab", checkpoint, model, second_model(model), pairs)
    return [Row(*row) for row in timed(command)]


ROWS = {
    "start": start_row,
    "inspect": inspect_rows,
    "convert": convert_rows,
    "prune": prune_rows,
    "report": report_rows,
    "import": import_rows,
    "memory": memory_rows,
    "compare": compare_row,
    "matrix": lambda folder, pairs, sizes: [Row(*row) for row in timed(set_of_models(folder, sizes.sd1, pairs))],
    "tab": tab_rows,
    "autoprune": lambda folder, pairs, sizes: [Row(*row) for row in timed(many_files(folder, sizes != Sizes()))],
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=HERE / "work")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--small", action="store_true", help="tiny models, to see that the harness works")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    sizes = Sizes("sd-v1-demo", "sdxl-demo", 600_000_000) if options.small else Sizes()
    rows = [row for name in options.rows for row in ROWS[name](options.folder, options.pairs, sizes)]
    print("| task | measured | at most | |\n|---|---|---|---|")
    for row in rows:
        print(f"| {row.task} | {row.measured} | {row.budget} | {'met' if row.met else '**missed**'} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
