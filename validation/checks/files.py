"""F: the file itself, before and beside its rows."""

from collections.abc import Iterator

from validation.checks.registry import Check, Line, Need, Opened, Totals, entered
from validation.findings import Problem, Severity, shown

ROWS_WANTED = 10
LARGE_ROW_BYTES = 256 << 10
BOM = b"\xef\xbb\xbf"
_UNFINISHED = (".part", ".tmp", ".partial", ".crdownload", ".download", ".swp", "~")

_MAGIC = (
    (b"\x1f\x8b", "gzip", "gunzip -c {file} > {out}"),
    (b"PK\x03\x04", "a zip archive (or a spreadsheet)", "unzip {file}"),
    (b"PK\x05\x06", "an empty zip archive", ""),
    (b"\x28\xb5\x2f\xfd", "zstd", "zstd -dc {file} > {out}"),
    (b"BZh", "bzip2", "bunzip2 -c {file} > {out}"),
    (b"\xfd7zXZ\x00", "xz", "xz -dc {file} > {out}"),
    (b"\x04\x22\x4d\x18", "lz4", "lz4 -dc {file} > {out}"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "7z x {file}"),
    (b"Rar!\x1a\x07", "a RAR archive", "unrar x {file}"),
    (
        b"PAR1",
        "Parquet",
        """python3 -c "import pandas, sys; pandas.read_parquet(sys.argv[1]).to_json(sys.argv[2], orient='records', lines=True)" {file} {out}""",
    ),
    (b"ARROW1", "Arrow", ""),
    (b"FEA1", "Feather", ""),
    (b"ORC", "ORC", ""),
    (b"Obj\x01", "Avro", ""),
    (b"\x89HDF", "HDF5", ""),
    (b"\x93NUMPY", "a NumPy array", ""),
    (b"GGUF", "a model (GGUF)", ""),
    (b"\x80\x02", "a Python pickle", ""),
    (b"\x80\x03", "a Python pickle", ""),
    (b"\x80\x04", "a Python pickle", ""),
    (b"\x80\x05", "a Python pickle", ""),
    (b"\x89PNG", "a PNG picture", ""),
    (b"\xff\xd8\xff", "a JPEG picture", ""),
    (b"GIF8", "a GIF picture", ""),
    (b"RIFF", "a RIFF file (WebP, WAV)", ""),
    (b"%PDF-", "a PDF", ""),
    (b"{\\rtf", "a text document (RTF)", ""),
    (b"SQLite format 3\x00", "an SQLite database", ""),
    (b"\xd0\xcf\x11\xe0", "an old Office document", ""),
    (b"\x7fELF", "a program", ""),
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer, not the data that it points to", "git lfs pull --include {file}"),
    (b"\xff\xfe\x00\x00", "UTF-32", "iconv -f UTF-32 -t UTF-8 {file} > {out}"),
    (b"\x00\x00\xfe\xff", "UTF-32", "iconv -f UTF-32 -t UTF-8 {file} > {out}"),
    (b"\xff\xfe", "UTF-16", "iconv -f UTF-16 -t UTF-8 {file} > {out}"),
    (b"\xfe\xff", "UTF-16", "iconv -f UTF-16 -t UTF-8 {file} > {out}"),
)
_NO_ROWS = {"wrapper", "message", "api_error"}  # layouts whose lines are not rows
_WEB = (b"<!doctype html", b"<html", b"<?xml", b"<head", b"<body", b"<error")


@entered(
    Check(
        "F11",
        "file.link",
        Severity.ERROR,
        Need.FILE,
        "copy the file itself into the inbox, readable for the user that runs lorad",
        why="what is behind a link or a pipe can change while it is read",
    )
)
def not_a_readable_file(opened: Opened) -> Problem | None:
    """A symlink, directory, FIFO or device, or no permission to read."""
    return Problem(message=opened.obstacle) if opened.obstacle else None


@entered(
    Check(
        "F12",
        "file.size",
        Severity.ERROR,
        Need.FILE,
        "split it, or raise validation.max_file_bytes in config.json",
        why="the limit keeps one file from filling the disk",
        rank=1,
    )
)
def too_large(opened: Opened) -> Problem | None:
    """The file is over the limit."""
    if opened.size_bytes > opened.limits.max_file_bytes:
        return Problem(message=f"the file has {opened.size_bytes:,} bytes; the limit is {opened.limits.max_file_bytes:,}")
    return None


_UNSTABLE_HINT = "write to a temporary name, rename it when it is whole, and check it then"
_UNSTABLE_WHY = "half a file may look like a whole one"


@entered(Check("F01", "file.unstable", Severity.WARNING, Need.FILE, _UNSTABLE_HINT, why=_UNSTABLE_WHY, rank=2))
def still_being_written(opened: Opened) -> Problem | None:
    """The name is one of a file that is not finished."""
    if opened.obstacle or not opened.name.lower().endswith(_UNFINISHED):
        return None
    return Problem(message=f"the name {shown(opened.name)} says that the file is still being written")


@entered(Check("F01", "file.unstable", Severity.ERROR, Need.END, "something writes to it: check it again once it is quiet", why=_UNSTABLE_WHY, rank=9))
def changed_while_read(totals: Totals) -> Problem | None:
    """Size or time of the last change moved between the first byte and the last."""
    how = totals.moved()
    return Problem(message=f"the file changed while it was read: {how}", kind="moved") if how else None


@entered(
    Check(
        "F03",
        "file.magic",
        Severity.ERROR,
        Need.HEAD,
        "give plain JSON Lines: UTF-8 text, one object a line",
        why="there are no rows in it that could be read",
    )
)
def another_format(head: bytes) -> Problem | None:
    """The first bytes are those of another kind of file."""
    for magic, kind, fix in _MAGIC:
        if head.startswith(magic):
            return Problem(message=f"the file is {kind}", kind=kind, fix=fix, lines=(1,), count=1)
    if head[257:262] == b"ustar":
        return Problem(message="the file is a tar archive", kind="tar", fix="tar xf {file}", lines=(1,), count=1)
    if encoding := _wide(head):
        hint = "save it as UTF-8"
        return Problem(
            message=f"the file is {encoding[:6]}", kind="wide", hint=hint, fix=f"iconv -f {encoding} -t UTF-8 {{file}} > {{out}}", lines=(1,), count=1
        )
    if head.removeprefix(BOM).lstrip()[:15].lower().startswith(_WEB):
        hint = "a download saved the page around the data: fetch the raw file"
        return Problem(message="the file is a web page (HTML or XML)", kind="web", hint=hint, lines=(1,), count=1)
    return None


def _wide(head: bytes) -> str:
    """The name of an encoding of two or four bytes a letter, where the bytes are one without a mark."""
    sample = head[: len(head) // 4 * 4]
    if len(head) < 4:
        return {b"{\x00": "UTF-16LE", b"\x00{": "UTF-16BE"}.get(head[:2], "")
    zeros = [sample[place::4].count(0) / (len(sample) // 4) for place in range(4)]
    for encoding, filled in (("UTF-32LE", (0,)), ("UTF-32BE", (3,)), ("UTF-16LE", (0, 2)), ("UTF-16BE", (1, 3))):
        if all((share < 0.2) if place in filled else (share > 0.6) for place, share in enumerate(zeros)):
            return encoding
    return ""


@entered(
    Check(
        "F04",
        "file.bom",
        Severity.INFO,
        Need.HEAD,
        "a Windows editor saved it so; harmless, the mark is skipped",
        why="other readers refuse such a file",
        rank=1,
    )
)
def byte_order_mark(head: bytes) -> Problem | None:
    """A UTF-8 byte order mark."""
    return Problem(message="the file begins with a byte order mark", lines=(1,), count=1) if head.startswith(BOM) else None


@entered(
    Check(
        "F02", "file.empty", Severity.ERROR, Need.END, "the program that exported it wrote nothing: export again", why="there is nothing to learn from", rank=0
    )
)
def empty(totals: Totals) -> Problem | None:
    """No bytes, or blanks only."""
    if totals.rows:
        return None
    return Problem(message="the file has no bytes" if not totals.size_bytes else f"the file has no rows: its {totals.size_bytes:,} bytes are blank")


@entered(
    Check(
        "F09",
        "file.rows_min",
        Severity.WARNING,
        Need.END,
        "an adapter needs tens to hundreds of rows to learn from",
        why="so few rows are learnt by heart",
        rank=1,
    )
)
def too_few_rows(totals: Totals) -> Problem | None:
    """One row is refused, a handful is warned about. Silent where the number of lines is not the number of rows."""
    if totals.unreadable_rows or not 0 < totals.rows < ROWS_WANTED or _NO_ROWS & totals.layouts.keys():
        return None
    if totals.rows == 1:
        hint = "one row cannot be split into rows to learn and rows to judge by"
        return Problem(message="the file has one row", lines=(1 + totals.num_blank_inside,), count=1, severity=Severity.ERROR, hint=hint, kind="one")
    return Problem(message=f"the file has only {totals.rows} rows")


@entered(
    Check(
        "F08",
        "file.blank_inside",
        Severity.WARNING,
        Need.END,
        "files were joined, or rows were deleted: look whether rows are missing",
        why="harmless by itself, but a blank line stands where a row was, or where one file met another",
        rank=2,
    )
)
def blank_between_rows(totals: Totals) -> Problem | None:
    """Blank lines between rows; those at the end do not count."""
    if not totals.num_blank_inside:
        return None
    return Problem(message="blank lines stand between the rows", lines=tuple(totals.blank_inside), count=totals.num_blank_inside)


@entered(
    Check(
        "F07",
        "file.newline",
        Severity.INFO,
        Need.END,
        "harmless: it is read as if it were right",
        why="other readers count such lines in another way",
        rank=3,
    )
)
def line_ends(totals: Totals) -> Iterator[Problem]:
    """CRLF, no newline behind the last row, blank lines at the end. Silent where rows could not be read: those say more."""
    if totals.unreadable_rows or not totals.rows:
        return
    if totals.carriage_returns:
        yield Problem(message="lines end as Windows writes them (CRLF)", kind="crlf", count=totals.carriage_returns)
    at_the_end = totals.blank_lines - totals.num_blank_inside
    if at_the_end:
        yield Problem(message="blank lines stand at the end of the file", kind="blank", count=at_the_end)
    elif not totals.ended:
        yield Problem(message="the last row has no newline behind it", kind="last", lines=(totals.lines,), count=1)


@entered(
    Check(
        "F10",
        "row.bytes",
        Severity.ERROR,
        Need.LINE,
        "a whole file was pasted into one row? Split it; the limit is validation.max_row_bytes in config.json",
        why="such a row fits no model's context, and one of them can fill the memory",
    )
)
def large_row(line: Line) -> Problem | None:
    """A row over the limit is not read; one over 256 KiB is warned about."""
    if line.size_bytes > line.limits.max_row_bytes:
        return Problem(message=f"a row has {line.size_bytes:,} bytes; the limit is {line.limits.max_row_bytes:,}")
    if line.size_bytes > LARGE_ROW_BYTES:
        message = f"a row has {line.size_bytes:,} bytes; rows of more than {LARGE_ROW_BYTES:,} rarely fit a model's context"
        hint = "split it into rows of a few thousand words"
        return Problem(message=message, kind="large", severity=Severity.WARNING, hint=hint, why="what is over the context is cut off and not learnt")
    return None
