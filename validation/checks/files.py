"""F: the file itself, before and beside its rows."""

from validation.checks.registry import Check, Line, Need, Opened, Totals, entered
from validation.findings import Problem, Severity

ROWS_WANTED = 10
LARGE_ROW_BYTES = 256 << 10
BOM = b"\xef\xbb\xbf"

_MAGIC = (
    (b"\x1f\x8b", "gzip", "gunzip -c {file} > {out}"),
    (b"PK\x03\x04", "a zip archive", "unzip {file}"),
    (b"\x28\xb5\x2f\xfd", "zstd", "zstd -dc {file} > {out}"),
    (b"BZh", "bzip2", "bunzip2 -c {file} > {out}"),
    (b"\xfd7zXZ\x00", "xz", "xz -dc {file} > {out}"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "7z x {file}"),
    (
        b"PAR1",
        "Parquet",
        """python3 -c "import pandas, sys; pandas.read_parquet(sys.argv[1]).to_json(sys.argv[2], orient='records', lines=True)" {file} {out}""",
    ),
    (b"ARROW1", "Arrow", ""),
    (b"\x89PNG", "a PNG picture", ""),
    (b"\xff\xd8\xff", "a JPEG picture", ""),
    (b"%PDF-", "a PDF", ""),
    (b"SQLite format 3\x00", "an SQLite database", ""),
    (b"\xd0\xcf\x11\xe0", "an old Office document", ""),
    (b"\x7fELF", "a program", ""),
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer, not the data that it points to", "git lfs pull --include {file}"),
    (b"\xff\xfe\x00\x00", "UTF-32", "iconv -f UTF-32 -t UTF-8 {file} > {out}"),
    (b"\x00\x00\xfe\xff", "UTF-32", "iconv -f UTF-32 -t UTF-8 {file} > {out}"),
    (b"\xff\xfe", "UTF-16", "iconv -f UTF-16 -t UTF-8 {file} > {out}"),
    (b"\xfe\xff", "UTF-16", "iconv -f UTF-16 -t UTF-8 {file} > {out}"),
    (b"{\x00", "UTF-16", "iconv -f UTF-16LE -t UTF-8 {file} > {out}"),
    (b"\x00{", "UTF-16", "iconv -f UTF-16BE -t UTF-8 {file} > {out}"),
)


@entered(Check("F11", "file.link", Severity.ERROR, Need.FILE, "copy the file itself into the inbox, readable for the user that runs lorad"))
def not_a_readable_file(opened: Opened) -> Problem | None:
    """A symlink, directory, FIFO or device, or no permission to read."""
    return Problem(message=opened.obstacle) if opened.obstacle else None


@entered(Check("F12", "file.size", Severity.ERROR, Need.FILE, "split it, or raise validation.max_file_bytes in config.json", rank=1))
def too_large(opened: Opened) -> Problem | None:
    """The file is over the limit."""
    if opened.size_bytes > opened.limits.max_file_bytes:
        return Problem(message=f"the file has {opened.size_bytes:,} bytes; the limit is {opened.limits.max_file_bytes:,}")
    return None


@entered(Check("F03", "file.magic", Severity.ERROR, Need.HEAD, "give plain JSON Lines: UTF-8 text, one object a line"))
def another_format(head: bytes) -> Problem | None:
    """The first bytes are those of another kind of file."""
    for magic, kind, fix in _MAGIC:
        if head.startswith(magic):
            return Problem(message=f"the file is {kind}", fix=fix, lines=(1,), count=1)
    if head.removeprefix(BOM).lstrip()[:15].lower().startswith((b"<!doctype html", b"<html", b"<?xml")):
        hint = "a download saved the page around the data: fetch the raw file"
        return Problem(message="the file is a web page (HTML or XML)", hint=hint, lines=(1,), count=1)
    return None


@entered(Check("F04", "file.bom", Severity.INFO, Need.HEAD, "a Windows editor saved it so; harmless, the mark is skipped"))
def byte_order_mark(head: bytes) -> Problem | None:
    """A UTF-8 byte order mark."""
    return Problem(message="the file begins with a byte order mark", lines=(1,), count=1) if head.startswith(BOM) else None


@entered(Check("F02", "file.empty", Severity.ERROR, Need.END, "the program that exported it wrote nothing: export again"))
def empty(totals: Totals) -> Problem | None:
    """No bytes, or blanks only."""
    if totals.rows:
        return None
    return Problem(message="the file has no bytes" if not totals.size_bytes else f"the file has no rows: its {totals.size_bytes:,} bytes are blank")


@entered(Check("F09", "file.rows_min", Severity.WARNING, Need.END, "an adapter needs tens to hundreds of rows to learn from"))
def too_few_rows(totals: Totals) -> Problem | None:
    """One row is refused, a handful is warned about. Silent where the number of lines is not the number of rows."""
    if totals.unreadable_rows or not 0 < totals.rows < ROWS_WANTED:
        return None
    if totals.rows == 1:
        return Problem(
            message="the file has one row", lines=(1,), severity=Severity.ERROR, hint="one row cannot be split into rows to learn and rows to judge by"
        )
    return Problem(message=f"the file has only {totals.rows} rows")


@entered(
    Check("F08", "file.blank_inside", Severity.WARNING, Need.END, "harmless by itself; files were joined, or rows were deleted: look whether rows are missing")
)
def blank_between_rows(totals: Totals) -> Problem | None:
    """Blank lines between rows; those at the end do not count."""
    if not totals.num_blank_inside:
        return None
    return Problem(message="blank lines stand between the rows", lines=tuple(totals.blank_inside), count=totals.num_blank_inside)


@entered(
    Check("F10", "row.bytes", Severity.ERROR, Need.LINE, "a whole file was pasted into one row? Split it; the limit is validation.max_row_bytes in config.json")
)
def large_row(line: Line) -> Problem | None:
    """A row over the limit is not read; one over 256 KiB is warned about."""
    if line.size_bytes > line.limits.max_row_bytes:
        return Problem(message=f"a row has {line.size_bytes:,} bytes; the limit is {line.limits.max_row_bytes:,}")
    if line.size_bytes > LARGE_ROW_BYTES:
        message = f"a row has {line.size_bytes:,} bytes; rows of more than {LARGE_ROW_BYTES:,} rarely fit a model's context"
        return Problem(message=message, kind="large", severity=Severity.WARNING)
    return None
