"""Autoprune on many small files, against writing, syncing and renaming the same files one by one."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.job import peak
from lib_toolkit.architectures.registry import architecture
from lib_toolkit.autoprune import Policy, run_once
from lib_toolkit.edits.recipes import Wishes, plan_prune
from lib_toolkit.formats import open_model
from lib_toolkit.identify import identify
from lib_toolkit.writing import WriteOptions, write

COUNT = 1000
RANK = 8
LIMIT = 1.5


@dataclass(frozen=True)
class Result:
    """Seconds of the run, of writing the results, of the least that the task takes and of pruning one by one; the
    outcome of each file."""

    seconds: float
    yardstick: float
    least: float
    pruning: float
    counts: dict[str, int]
    size: int


def lora(seed: int, dtype: str) -> dict[str, np.ndarray]:
    """A LoRA for the cross attention of SD1."""
    unet = architecture("sd1").parts[0].component.family
    assert unet is not None
    random = np.random.default_rng(seed)
    arrays: dict[str, np.ndarray] = {}
    for key, shape in unet.within("diffusers").table(rare=False).items():
        if ".attn2.to_" not in key or not key.endswith(".weight"):
            continue
        module = "lora_unet_" + key.removesuffix(".weight").replace(".", "_")
        arrays[f"{module}.lora_down.weight"] = random.standard_normal((RANK, shape[1])).astype(dtype)
        arrays[f"{module}.lora_up.weight"] = random.standard_normal((shape[0], RANK)).astype(dtype)
        arrays[f"{module}.alpha"] = np.array(RANK, dtype)
    return arrays


def measure(folder: Path, count: int, dtype: str) -> Result:
    """Make ``count`` LoRAs, write and rename copies of their results, then let Autoprune deal with them."""
    from safetensors.numpy import save

    shutil.rmtree(folder, ignore_errors=True)
    drop = folder / "Autoprune"
    drop.mkdir(parents=True)
    for seed in range(count):
        (drop / f"{seed:04}.safetensors").write_bytes(save(lora(seed, dtype)))
    data = save(lora(0, "<f2"))
    seconds, pruning = _write_all(folder / "yardstick", count, data), _prune_all(drop, folder / "pruned")
    least = _least(drop, folder / "least", dtype)
    start = time.perf_counter()
    run = run_once(Policy(drop, {"component": folder / "Lora"}), pause=0.0)
    result = Result(time.perf_counter() - start, seconds, least, pruning, run.counts, len(data))
    shutil.rmtree(folder)
    return result


def _write_all(folder: Path, count: int, data: bytes) -> float:
    folder.mkdir()
    start = time.perf_counter()
    for number in range(count):
        temporary = folder / f"{number}.tmp"
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(folder / f"{number}.safetensors")
    return time.perf_counter() - start


def _least(drop: Path, folder: Path, dtype: str) -> float:
    """Read, cast, write, sync, rename, read back, and the two hashes of source and result: as bare bytes, in one
    thread, with nothing looked at, decided, checked or recorded."""

    def hashes(data: bytes) -> None:
        hashlib.sha256(data).digest()
        hashlib.sha256(memoryview(data)[8 + int.from_bytes(data[:8], "little") :]).digest()

    folder.mkdir()
    start = time.perf_counter()
    for path in sorted(drop.glob("*.safetensors")):
        source = path.read_bytes()
        hashes(source)
        if dtype == "<f2":
            path.rename(folder / path.name)
            (folder / path.name).rename(path)
            continue
        begin = 8 + int.from_bytes(source[:8], "little")
        temporary = folder / f"{path.name}.tmp"
        with temporary.open("wb") as file:
            file.write(source[:begin])
            file.write(np.frombuffer(source, dtype, offset=begin).astype("<f2").data)
            file.flush()
            os.fsync(file.fileno())
        hashes(temporary.read_bytes())
        temporary.rename(folder / path.name)
    return time.perf_counter() - start


def _prune_all(drop: Path, folder: Path) -> float:
    """What the command ``prune --hash`` does, without the start of a process for each file."""
    folder.mkdir()
    start = time.perf_counter()
    for path in sorted(drop.glob("*.safetensors")):
        with open_model(path) as model:
            write(plan_prune(model, identify(model), Wishes()), folder / path.name, WriteOptions(hash_source=True))
    return time.perf_counter() - start


def measure_rows(folder: Path, small: bool) -> list[tuple[str, str, str, bool]]:
    """Task, measured, budget, met: files that need nothing, and files that are halved."""
    rows = []
    for dtype, what in (("<f2", "clean"), ("<f4", "FP32")):
        result = measure(folder / "autoprune", 20 if small else COUNT, dtype)
        outcome = "moved" if dtype == "<f2" else "written"
        files = sum(result.counts.values())
        if result.counts != {outcome: files}:
            raise SystemExit(f"Autoprune did not deal with all files: {result.counts}")
        ratio = result.seconds / result.yardstick
        least, each = result.seconds / result.least, 1000 * result.seconds / files
        bare = result.least / result.yardstick
        told = (
            f"{ratio:.2f} × writing, {each:.1f} ms a file, {peak():.0f} MiB; {least:.2f} × the bare work on the bytes, "
        )
        told += f"which is {bare:.2f} × writing; {result.seconds / result.pruning:.2f} × `prune` of each"
        task = f"Autoprune of {files:,} LoRAs ({what}, {result.size / 1e6:.1f} MB at FP16)"
        rows.append((task, told, f"{LIMIT} × writing, syncing and renaming them", ratio <= LIMIT))
    return rows


def many_files(folder: Path, small: bool) -> list[str]:
    """The arguments of a process of its own that prints the rows as JSON."""
    return ["-m", "benchmarks.autoprune", str(folder), *(["small"] if small else [])]


if __name__ == "__main__":
    print(json.dumps(measure_rows(Path(sys.argv[1]), "small" in sys.argv[2:])))
