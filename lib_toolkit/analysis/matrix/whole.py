"""A whole set from files to result: open, align, sweep, and say what it means."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from lib_toolkit.analysis.compare.alignment import align
from lib_toolkit.analysis.matrix.merges import find_merges
from lib_toolkit.analysis.matrix.results import GroupResult, SetResult, group_results, members
from lib_toolkit.analysis.matrix.sources import Failure, Opened, model_files, open_set
from lib_toolkit.analysis.matrix.state import Keeper, key_of
from lib_toolkit.analysis.matrix.sums import Sums
from lib_toolkit.analysis.matrix.sweep import Sweep
from lib_toolkit.analysis.matrix.tasks import BLOCK, COMPONENT, TOTAL, Work, work_of
from lib_toolkit.errors import CancelledError, FormatError, ToolkitError, UsageError
from lib_toolkit.progress import SILENT, Progress
from lib_toolkit.streaming import verified_reads


def measure_set(
    named: Sequence[Path], progress: Progress = SILENT, workers: int | None = None, keep_in: Path | None = None
) -> SetResult:
    """Measure files, and the model files of folders, each against each, in one pass.

    ``keep_in``: a folder that exists, in which the sums are kept now and then, and from which an interrupted pass is
    taken up again; ``forget`` them once the results are safe. A file that cannot be opened, or fails while it is read,
    is reported in the result and the rest goes on. Raises UsageError for fewer than two usable models or where there
    is nothing to compare, TargetError when the folder cannot be written to, CancelledError.
    """
    paths = model_files(named)
    with ExitStack() as stack:
        opened = open_set(paths, stack, progress)
        work = work_of(align(opened.models, opened.found))
        sums = Sums.zeros(len(work.groups), len(opened.models))
        keeper = Keeper(keep_in, key_of(opened.models, work))
        failed: dict[int, str] = {}
        _sweep(opened, work, sums, failed, keeper, progress, workers)
        keeper.save(sums, failed, len(work.tasks))
        return _result(opened, work, sums, failed)


def _sweep(
    opened: Opened,
    work: Work,
    sums: Sums,
    failed: dict[int, str],
    keeper: Keeper,
    progress: Progress,
    workers: int | None,
) -> None:
    done = keeper.load(sums, failed)

    def after(count: int) -> None:
        nonlocal done
        done = count
        keeper.note(sums, failed, done)

    with ExitStack() as stack:
        verify = [stack.enter_context(verified_reads(one.origin.file, one.checksums)) for one in opened.models]
        try:
            Sweep(sums, failed, progress, workers, len(opened.models)).run(work.tasks, done, after)
        except CancelledError:
            if keeper.folder is None or not done:
                raise
            keeper.save(sums, failed, done)
            raise CancelledError(
                f"Cancelled; what was measured so far is kept in {keeper.folder}: the same command goes on from there."
            ) from None
        for place, (model, check) in enumerate(zip(opened.models, verify, strict=True)):
            try:
                check()
                if model.origin.file is not None:
                    model.origin.file.check_unchanged()
            except FormatError as error:
                failed.setdefault(place, str(error))


def _result(opened: Opened, work: Work, sums: Sums, failed: dict[int, str]) -> SetResult:
    living = [place for place in range(len(opened.models)) if place not in failed]
    late = [Failure(opened.names[place], opened.models[place].origin.path, why) for place, why in failed.items()]
    if len(living) < 2:
        raise ToolkitError(f"Fewer than two models could be read to their end: {late[0].reason}")
    if not work.groups:
        raise UsageError("The models have no weights to compare; name files with tensors.")
    kept = sums.only(living)
    groups = group_results(work, kept, living)
    models, found, names = ([one[place] for place in living] for one in (opened.models, opened.found, opened.names))
    result = SetResult(
        members=members(models, found, names, kept),  # type: ignore[arg-type]
        failures=(*opened.failures, *late),
        total=_total(groups[TOTAL], groups[COMPONENT]),
        components=tuple(groups[COMPONENT]),
        blocks=tuple(groups[BLOCK]),
    )
    # Of copies people know the one with the shortest name: the others' tell what else they are.
    rank = [len(member.name) for member in result.members]
    return replace(result, merges=find_merges(result.components, result.blocks, rank))


def _total(totals: Sequence[GroupResult], components: Sequence[GroupResult]) -> GroupResult:
    """All weights; a set of schedules alone has none, and its first component stands in."""
    return (*totals, *components)[0]
