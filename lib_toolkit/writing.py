"""Carry out a plan: check, stream, sync, read back, verify, rename. A failure at any step leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from lib_toolkit.casting import Cast, Narrowing
from lib_toolkit.counting import counted
from lib_toolkit.dtypes import DType
from lib_toolkit.errors import FormatError, TargetError, VerificationError
from lib_toolkit.formats.layout import Layout, Slot
from lib_toolkit.formats.opening import open_model
from lib_toolkit.hashing import FileHashes, SourceHasher
from lib_toolkit.plan import Changed, Plan
from lib_toolkit.progress import SILENT, Progress
from lib_toolkit.streaming import Outcome, Sink, source_bytes, stream, verified_reads
from lib_toolkit.target import check_target
from lib_toolkit.temporary import TemporaryFile
from lib_toolkit.tensors import numel
from lib_toolkit.verifying import frame_tiles, read_back, read_back_hashed

_GROWTH_FACTOR, _GROWTH_FLOOR = 4, 1 << 30
"""A result may be four times its source and 1 GiB: tied and expanded tensors of a hostile file must not fill a disk."""

_KNOWN_TO_OLD_LIBRARIES = frozenset(DType) - {
    DType.C64,
    DType.F4,
    DType.F6_E2M3,
    DType.F6_E3M2,
    DType.F8_E8M0,
    DType.F8_E4M3FNUZ,
    DType.F8_E5M2FNUZ,
}


class OutgrownError(TargetError):
    """The result would be far larger than its source: not the target but the source is to blame."""


@dataclass(frozen=True)
class WriteOptions:
    """How to write. ``strict`` refuses to keep a tensor at its type when a cast would overflow or empty it.
    ``hash_source`` reads the whole source for its hashes, ``hash_result`` takes those of the result while it is read
    back. ``in_use`` tells of files that may never be replaced."""

    file_format: str = "safetensors"
    force: bool = False
    strict: bool = False
    hash_source: bool = False
    hash_result: bool = False
    read_back: bool = True
    workers: int | None = None
    in_use: Callable[[Path], bool] | None = None


@dataclass(frozen=True)
class Written:
    """A finished file. ``plan`` is what was carried out: tensors that would overflow, or of which most would become
    zero, have kept their type in it, and what a cast would have lost of them is in ``narrowing`` too. ``hashes`` are
    those of the source, ``result_hashes`` those of the file, where they were asked for."""

    path: Path
    size: int
    plan: Plan
    narrowing: Mapping[str, Narrowing] = field(default_factory=dict)
    hashes: FileHashes | None = None
    result_hashes: FileHashes | None = None


def check(plan: Plan, path: Path, options: WriteOptions) -> Path:
    """Everything about the target that can be known before any work; returns the path with links resolved.

    Raises UsageError or TargetError with the reason.
    """
    return _check(plan, plan.layout(options.file_format, options.hash_source), path, options)


def _check(plan: Plan, layout: Layout, path: Path, options: WriteOptions, at_once: bool = False) -> Path:
    if not plan.tensors and options.file_format == "ckpt":
        raise TargetError(
            f"{plan.source.name} holds no tensors, and a .ckpt without any is no model; write a .safetensors instead."
        )
    _check_growth(plan, layout)
    sources = tuple(m.origin.path for m in plan.sources)
    return check_target(path, layout.size, sources, options.force, options.in_use, at_once)


def look_ahead(plan: Plan, options: WriteOptions, progress: Progress = SILENT) -> tuple[Plan, Mapping[str, Narrowing]]:
    """What a write would find out about casts, without writing: the plan as it would be carried out.

    Raises TargetError when ``strict`` is asked for and a tensor has to keep its type.
    """
    casts = [s for s in plan.layout(options.file_format, options.hash_source).slots if isinstance(s.tensor, Cast)]
    progress.start("looking for values that do not fit", source_bytes(casts))
    outcome = _verified_stream(plan, casts, None, options, progress)
    return _settle(plan, outcome, options.strict), outcome.narrowing


def write(plan: Plan, path: Path, options: WriteOptions | None = None, progress: Progress = SILENT) -> Written:
    """Write the plan to ``path`` in one streaming pass.

    The final name appears only when the file is complete, synced and verified. Raises UsageError, TargetError,
    FormatError, VerificationError or CancelledError; in each case nothing is left behind.
    """
    options = options or WriteOptions()
    layout = plan.layout(options.file_format, options.hash_source)
    path = _check(plan, layout, path, options, at_once=True)
    origin = plan.source.origin
    with ExitStack() as stack:
        hasher = None
        if options.hash_source:
            if origin.file is None:
                raise TargetError(f"{plan.source.name} is not open, so its hashes cannot be taken; load it again.")
            hasher = SourceHasher(origin.file, origin.format == "safetensors")
            stack.callback(hasher.stop)
        kept: dict[str, Narrowing] = {}
        while True:
            with TemporaryFile(path) as file:
                outcome = _fill(plan, layout, file, options, progress)
                revised = _settle(plan, outcome, options.strict)
                if revised is not plan:
                    kept |= {
                        key: lost
                        for key, lost in outcome.narrowing.items()
                        if revised.tensors[key] is not plan.tensors[key]
                    }
                    plan = revised
                    layout = plan.layout(options.file_format, options.hash_source)
                    _check(plan, layout, path, options, at_once=True)
                    continue
                hashes = hasher.result(progress) if hasher else None
                own = _finish(plan, layout, file, outcome, hashes, options, progress)
                file.commit(options.force)
            return Written(path, layout.size, plan, kept | outcome.narrowing, hashes, own)


def _fill(plan: Plan, layout: Layout, file: TemporaryFile, options: WriteOptions, progress: Progress) -> Outcome:
    progress.start("writing", source_bytes(layout.slots))
    return _verified_stream(plan, layout.slots, file.write_at, options, progress, layout.needs_crcs)


def _verified_stream(
    plan: Plan,
    slots: Sequence[Slot],
    sink: Sink | None,
    options: WriteOptions,
    progress: Progress,
    by_key: bool = False,
) -> Outcome:
    """A pass in which every checksum that the sources state for their parts is compared with what was read."""
    with_crcs = sink is not None and (options.read_back or options.hash_result)
    with ExitStack() as stack:
        checks = [stack.enter_context(verified_reads(m.origin.file, m.checksums)) for m in plan.sources]
        outcome = stream(slots, sink, progress, options.workers, by_key, with_crcs)
        for verify in checks:
            verify()
    return outcome


def _finish(
    plan: Plan,
    layout: Layout,
    file: TemporaryFile,
    outcome: Outcome,
    hashes: FileHashes | None,
    options: WriteOptions,
    progress: Progress,
) -> FileHashes | None:
    """Write what stands around the tensors, sync, verify; returns the hashes of the result if they are wanted."""
    metadata = plan.final_metadata(options.file_format, hashes.as_dict() if hashes else None)
    frame = layout.frame(metadata, outcome.crcs if layout.needs_crcs else {})
    for offset, data in frame:
        file.write_at(offset, memoryview(data))
    file.sync()
    for model in plan.sources:
        if model.origin.file is not None:
            model.origin.file.check_unchanged()
    tiles, hashed = (*frame_tiles(frame), *outcome.tiles), None
    if options.hash_result:
        is_safetensors = options.file_format == "safetensors"
        hashed = read_back_hashed(file.path, layout.size, tiles, is_safetensors, options.workers, progress)
    elif options.read_back:
        read_back(file.path, layout.size, tiles, options.workers, progress)
    _reopen(plan, file.path, options.file_format)
    progress.check()
    return hashed


def _settle(plan: Plan, outcome: Outcome, strict: bool) -> Plan:
    """The plan in which tensors that a cast would spoil keep their type; the same object when there is none."""
    large = outcome.overflowed
    small = {
        key: lost.vanished
        for key, lost in outcome.narrowing.items()
        if key not in large and lost.empties(numel(plan.tensors[key]))
    }
    if not (large or small):
        return plan
    told = [
        *_spoilt(plan, large, "too large for {}"),
        *_spoilt(plan, small, "too small for {}, where most of a tensor would become zero"),
    ]
    if strict:
        raise TargetError(
            f"{plan.source.name}: {', and '.join(told)}; nothing was written. Choose bf16 or fp32, or leave out "
            "--strict."
        )
    tensors, changed = dict(plan.tensors), []
    for kept, fate in ((large, "overflow"), (small, "become zero")):
        for key, count in kept.items():
            cast = tensors[key]
            assert isinstance(cast, Cast)
            tensors[key] = cast.source
            changed.append(Changed(key, f"kept at {cast.source.dtype.name}: {counted(count, 'value')} would {fate}"))
    return replace(
        plan,
        tensors=tensors,
        changed=(*(one for one in plan.changed if one.key not in large and one.key not in small), *changed),
        warnings=(*plan.warnings, *(f"{sentence}; such tensors keep their type." for sentence in told)),
    )


def _spoilt(plan: Plan, counts: Mapping[str, int], what: str) -> Iterator[str]:
    """A sentence on values that do not fit, without its end; ``counts`` has their number for each tensor."""
    if not counts:
        return
    number = sum(counts.values())
    names = ", ".join(list(counts)[:3]) + (" …" if len(counts) > 3 else "")
    kind = plan.tensors[next(iter(counts))].dtype.name
    are = "is" if number == 1 else "are"
    yield f"{counted(number, 'value')} in {counted(len(counts), 'tensor')} {are} {what.format(kind)} ({names})"


def _check_growth(plan: Plan, layout: Layout) -> None:
    size = sum(model.origin.size for model in plan.sources)
    bound = _GROWTH_FACTOR * size + _GROWTH_FLOOR
    if layout.size > bound:
        raise OutgrownError(
            f"{plan.source.name} would grow from {size:,} to {layout.size:,} bytes, beyond all that "
            "an honest model needs; it repeats the same values as many tensors, and was refused."
        )


def _reopen(plan: Plan, path: Path, file_format: str) -> None:
    """Our own strict reader, and for safetensors the library that everybody else uses, must accept the file."""
    try:
        with open_model(path) as model:
            found = {key: (tensor.dtype, tensor.shape) for key, tensor in model.tensors.items()}
    except FormatError as error:
        raise VerificationError(f"The new file could not be opened again ({error}); it was removed.") from error
    if found != {key: (tensor.dtype, tensor.shape) for key, tensor in plan.tensors.items()}:
        raise VerificationError("The new file does not hold the tensors that were written; it was removed.")
    if file_format == "safetensors" and all(t.dtype in _KNOWN_TO_OLD_LIBRARIES for t in plan.tensors.values()):
        _open_with_library(path, set(plan.tensors))


def _open_with_library(path: Path, keys: set[str]) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="np") as file:
            found = set(file.keys())
    except (SafetensorError, OSError) as error:
        raise VerificationError(f"The safetensors library refuses the new file ({error}); it was removed.") from error
    if found != keys:
        raise VerificationError("The safetensors library finds other tensors in the new file; it was removed.")
