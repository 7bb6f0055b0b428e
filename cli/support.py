"""`lorad support-bundle`: one file that tells whoever helps how things stand, without secrets and without text of rows."""

import io
import os
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import click

from cli.options import config_option, format_option, show_json
from core.errors import UsageError


@click.command("support-bundle")
@click.option("-o", "--out", type=click.Path(path_type=Path, dir_okay=False), help="The file to write; else lorad-support-TIME.tar.zst here.")
@config_option
@format_option()
def support_bundle(out: Path | None, config: str | None, output: str) -> None:
    """Write config, status, ends of logs, doctor, versions, jobs and verdicts into one file, to be sent to whoever helps.

    Secrets and text of rows are left out; look through it (`tar -tf`) before you send it. Nothing is sent anywhere.
    """
    from cli import checkups
    from cli.bundle import entries, found_of
    from cli.checkups.registry import examine
    from cli.doctor import visit_of

    now = datetime.now(UTC)  # noqa: TID251 - a person asks now
    path = out or Path(f"lorad-support-{now:%Y%m%d-%H%M%S}.tar.zst")
    checkups.load()
    visit = visit_of(config, full=False)
    texts = dict(entries(found_of(visit, examine(visit, fix=False))))
    size = write_bundle(path, texts, now)
    if output == "json":
        show_json({"file": str(path.absolute()), "bytes": size, "files": sorted(texts)})
        return
    click.echo(f"wrote {path} ({size / 1000:,.0f} kB, {len(texts)} files)\n  look through it before you send it: tar --zstd -xf {path}")


def write_bundle(path: Path, texts: dict[str, str], now: datetime) -> int:
    """Write the texts as a tar.zst that its owner alone may read. Returns its size in bytes. Raises UsageError: it exists, or cannot be written."""
    import zstandard

    packed = io.BytesIO()
    with zstandard.ZstdCompressor(level=10).stream_writer(packed, closefd=False) as stream, tarfile.open(fileobj=stream, mode="w|") as archive:
        for name, text in sorted(texts.items()):
            raw = text.encode()
            member = tarfile.TarInfo(f"lorad-support/{name}")
            member.size, member.mode, member.mtime = len(raw), 0o600, int(now.timestamp())
            archive.addfile(member, io.BytesIO(raw))
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise UsageError(f"{str(path)!r} is there already", hint="name another file with -o", code="OUT_EXISTS") from None
    except OSError as error:
        raise UsageError(f"{str(path)!r} cannot be written: {error.strerror}", hint="name another file with -o", code="OUT_UNWRITABLE") from None
    with os.fdopen(fd, "wb") as file:
        file.write(packed.getvalue())
    return len(packed.getvalue())
