"""A file mended into another one: checked, repaired in passes until nothing more is offered, checked again, put in place.

The given file is only read. Whatever is written lies in a dot-folder beside the new file until it is whole; then one
rename puts it in place. A crash or a full disk leaves the given file, and at most a dot-folder that nobody reads.
"""

import difflib
import errno
import os
import shutil
import stat
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from core.errors import LoradError, RefusedError, UsageError
from rendering.specs import Spec
from store.durable import sync_dir
from validation import commands
from validation.checks import CHECKS
from validation.examination import Examined
from validation.findings import Level
from validation.repairs.catalogue import REPAIRS, offered
from validation.repairs.passes import DOUBLE, Applied, Outcome, PassPlan, run_pass
from validation.repairs.units import UNROLL_BROKEN
from validation.report import Report, as_it_is

MOST_PASSES = 6  # a file in a wrong encoding that holds an array of stringified rows of another layout needs four
BY_LINE = "its line was named"
_SEEN_AT_QUICK = frozenset({"bom", "unroll", "decode", "convert", "nulls", "columns", "roles"})

Examine = Callable[[Path, Level, bool], Examined]
"""Examines a file at a level; True keeps which rows have which findings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a person asked for. `repairs` are asked for by name; `ids` and `lines` say which rows are to be dropped."""

    repairs: frozenset[str] = frozenset()
    ids: tuple[str, ...] = ()
    lines: tuple[int, ...] = ()
    level: Level = Level.STANDARD
    force: bool = False
    is_schema_said: bool = True
    """Whether a person said what the rows are: without that, none is converted into what nobody asked for."""

    def __post_init__(self) -> None:
        if ("drop" in self.repairs) != bool(self.ids or self.lines):
            what = "--repair drop does not say which rows" if "drop" in self.repairs else "--ids and --lines say which rows to drop, but nothing drops them"
            raise UsageError(what, hint="write --repair drop with --ids D01,N02 (rows with these findings) or --lines 3,7", code="DROP_WHICH")
        known = sorted({check.id for check in CHECKS})
        for id in self.ids:
            if id not in known:
                near = difflib.get_close_matches(id, known, n=1)
                raise UsageError(
                    f"there is no check {id!r}", hint=f"did you mean {near[0]!r}?" if near else f"checks: {', '.join(known)}", code="CHECK_UNKNOWN"
                )

    @property
    def depth(self) -> Level:
        """The level, or a deeper one that the named checks need."""
        levels = list(Level)
        return max([self.level, *(check.level for check in CHECKS if check.id in self.ids)], key=levels.index)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mended:
    """What was done: rows in and out, those left out by reason, what each repair did, and the report on the new file."""

    file: str
    out: str
    rows_in: int
    rows_out: int
    dropped: Mapping[str, int]
    applied: Sequence[Applied]
    report: Report
    notes: Sequence[str] = ()

    def to_plain(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "file": self.file,
            "out": self.out,
            "repairs": [
                {"name": one.name, "title": REPAIRS[one.name].title, "rows": one.rows, "lines": one.lines, "before": one.before, "after": one.after}
                for one in self.applied
            ],
            "notes": list(self.notes),
            "rows": {"in": self.rows_in, "out": self.rows_out, "dropped": dict(self.dropped)},
            "report": self.report.to_plain(),
        }


def mend(file: Path, out: Path, spec: Spec, wish: Wish, examine: Examine) -> Mended:
    """Write a mended copy of `file` to `out`.

    Raises UsageError for places and wishes that cannot be, RefusedError for a file that has no rows to mend, LoradError
    UNROLL_BROKEN, COUNTS_DIFFER, FILE_CHANGED, DISK_FULL; in each case nothing was written.
    """
    _check_places(file, out, wish.force)
    workshop = _Workshop(file, out, spec, wish, examine)
    try:
        return workshop.work()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise LoradError(f"no space left for {str(out)!r}", hint="free disk space and try again; nothing was changed", code="DISK_FULL") from None
        raise LoradError(
            f"{str(error.filename or out)!r}: {error.strerror or error}", hint="check the path and the disk; nothing was changed", code="IO_ERROR"
        ) from None
    finally:
        workshop.clear()


def _check_places(file: Path, out: Path, force: bool) -> None:
    if not os.path.lexists(file):
        raise UsageError(f"there is no file {str(file)!r}", hint="name a JSON Lines file", code="FILE_MISSING")
    if out.exists() and out.samefile(file):
        raise UsageError(f"{str(out)!r} is the file itself", hint="give the mended file another name: nothing is changed in place", code="OUT_IS_FILE")
    if out.is_dir():
        raise UsageError(f"{str(out)!r} is a folder", hint="name a file in it", code="OUT_KIND")
    if os.path.lexists(out) and not stat.S_ISREG(out.lstat().st_mode):
        raise UsageError(f"{str(out)!r} is a link, a device or a pipe, not a file", hint="name a new file, or one to replace", code="OUT_KIND")
    if not out.parent.is_dir():
        raise UsageError(f"there is no folder {str(out.parent)!r}", hint="make it first, or name another place", code="OUT_FOLDER")
    if os.path.lexists(out) and not force:
        raise UsageError(f"{str(out)!r} exists already", hint="name another file, or replace it with --force", code="OUT_EXISTS")


@dataclass(slots=True)
class _Work:
    """The file as it stands after some passes, and all that was done so far."""

    path: Path
    origins: "array[int] | None" = None
    rows_in: int = -1
    rows_out: int = -1
    dropped: Counter[str] = field(default_factory=Counter)
    applied: dict[str, Applied] = field(default_factory=dict)


class _Workshop:
    """One mending. `clear` takes away whatever did not become the new file."""

    def __init__(self, file: Path, out: Path, spec: Spec, wish: Wish, examine: Examine) -> None:
        self._file, self._out, self._spec, self._wish, self._examine = file, out, spec, wish, examine
        self._before = _stamp(file)
        self._work = _Work(file)
        self._aside = out.with_name(f".{out.name}.{os.getpid()}.mending")
        self._num_passes = 0
        self._given_up: frozenset[str] = frozenset()
        self._notes: list[str] = []

    def work(self) -> Mended:
        wish, quick = self._wish, Level.QUICK
        if "encoding" in wish.repairs:
            self._pass(frozenset({"encoding"}))
        for _ in range(MOST_PASSES):
            report = self._examine(self._work.path, quick, False).report
            names = (offered(report.findings) | wish.repairs) & _SEEN_AT_QUICK
            if not names and not report.rows:
                self._refuse(report)
            if not wish.is_schema_said and ("convert" in names or any(map(as_it_is, report.errors))):
                raise self._unsaid(report)
            if not names or not self._form_pass(names):
                break
        examined = self._examine(self._work.path, wish.depth, bool(wish.ids))
        names = (offered(examined.report.findings) - _SEEN_AT_QUICK) | (wish.repairs - _SEEN_AT_QUICK - {"encoding"})
        drop = self._to_drop(examined.rows)
        if names and self._pass(names, drop):
            self._note_missing(drop)
            examined = self._examine(self._work.path, wish.depth, False)
        if self._work.rows_out == 0:
            raise RefusedError("no row would be left", hint="nothing was written; drop fewer rows", code="NOTHING_LEFT")
        if self._work.path == self._file:
            self._pass(frozenset())
        self._put_in_place()
        return self._mended(examined.report)

    def _note_missing(self, drop: Mapping[int, str]) -> None:
        left = len(drop) - self._work.dropped.total() + self._work.dropped[DOUBLE]
        if left and self._wish.lines:
            self._notes.append(f"{left:,} of the named lines hold no row")

    def _form_pass(self, names: frozenset[str]) -> bool:
        """A pass over the form of the rows. A value that breaks off keeps its lines, and the other repairs go on."""
        try:
            return self._pass(names - self._given_up)
        except LoradError as error:
            if error.code != UNROLL_BROKEN or "unroll" in self._wish.repairs:
                raise
            self._given_up = frozenset({"unroll"})
            self._notes.append(f"unroll was not applied: {error.what}; {error.hint}")
            return self._pass(names - self._given_up)

    def _unsaid(self, report: Report) -> UsageError:
        offering = REPAIRS["convert"].offered_by
        told = next((finding for finding in report.errors if as_it_is(finding) or (finding.id in offering and commands.parse(finding.fix))), None)
        what = f"{self._file}: no schema was said, and so none of its rows is converted"
        hint = f"say what the rows are to become: --schema {self._spec.id}, or another; nothing was written"
        if told:
            what, hint = f"{what}; {told.message}", f"{told.hint}. Say which with --schema ID; nothing was written"
        return UsageError(what, hint=hint, code="SCHEMA_UNSAID")

    def _refuse(self, report: Report) -> None:
        worst = report.errors[0]
        raise RefusedError(f"{self._file} has no rows to mend: {worst.id} {worst.message}", hint=worst.fix or worst.hint, code="NOTHING_TO_MEND")

    def _to_drop(self, rows: Mapping[int, set[str]]) -> dict[int, str]:
        """Line of the file as it stands -> why its row is left out."""
        wish, origins = self._wish, self._work.origins
        drop = {line: " ".join(id for id in wish.ids if id in ids) for line, ids in rows.items() if ids & set(wish.ids)}
        wanted = set(wish.lines)
        if not wanted:
            return drop
        if origins is None:
            drop |= dict.fromkeys(wanted - drop.keys(), BY_LINE)
        else:
            drop |= {place: BY_LINE for place, line in enumerate(origins, start=1) if line in wanted and place not in drop}
        return drop

    def _pass(self, names: frozenset[str], drop: Mapping[int, str] | None = None) -> bool:
        """Run the repairs over the file as it stands. False, and nothing is kept, where they changed nothing that was asked of them."""
        work = self._work
        plan = PassPlan(spec=self._spec, active=names, drop=drop or {}, origins=work.origins)
        self._num_passes += 1
        self._aside.mkdir(exist_ok=True)
        part = self._aside / f"{self._num_passes}-{self._out.name}"
        with _opened(work.path) as source, open(part, "wb") as destination:
            outcome = run_pass(source, destination, plan)
            destination.flush()
            os.fsync(destination.fileno())
        if _stamp(self._file) != self._before:
            raise LoradError(f"{self._file} changed while it was read", hint="try again once nothing writes to it; nothing was written", code="FILE_CHANGED")
        if names and not outcome.applied:
            part.unlink()
            return False
        self._keep(part, outcome)
        return True

    def _keep(self, part: Path, outcome: Outcome) -> None:
        work = self._work
        if work.path != self._file:
            work.path.unlink()
        work.path, work.origins = part, outcome.origins
        # Taking values apart makes rows of what was none: rows are counted from there on.
        if work.rows_in < 0 or "unroll" in outcome.applied:
            work.rows_in = outcome.rows_in + work.dropped.total()
        work.rows_out = outcome.rows_out
        work.dropped += outcome.dropped
        for name, done in outcome.applied.items():
            if name in work.applied:
                work.applied[name].rows += done.rows
            else:
                work.applied[name] = done

    def _put_in_place(self) -> None:
        part, out = self._work.path, self._out
        if self._wish.force:
            os.replace(part, out)
        else:
            try:
                os.link(part, out)  # unlike a rename, it never replaces a file that came to be meanwhile
            except FileExistsError:
                raise UsageError(f"{str(out)!r} exists already", hint="name another file, or replace it with --force", code="OUT_EXISTS") from None
            except OSError:  # a file system without hard links
                os.rename(part, out)
        sync_dir(out.parent)

    def _mended(self, report: Report) -> Mended:
        work = self._work
        if work.rows_in != work.rows_out + work.dropped.total():
            raise AssertionError("each pass has compared its counts")
        order = list(REPAIRS)
        return Mended(
            file=str(self._file),
            out=str(self._out),
            rows_in=work.rows_in,
            rows_out=work.rows_out,
            dropped=work.dropped,
            applied=sorted(work.applied.values(), key=lambda one: order.index(one.name)),
            report=report,
            notes=self._notes,
        )

    def clear(self) -> None:
        """Take away what is left of the passes."""
        shutil.rmtree(self._aside, ignore_errors=True)


def _stamp(path: Path) -> tuple[int, int, int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """A regular file for reading; never waits for a writer, never follows a link."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0) as file:
        yield file
