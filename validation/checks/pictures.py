"""V04: pictures that do not decode. Each is opened without following links, judged by its header, then decoded to the end, once."""

import errno
import os
import stat
import struct
import warnings
import zlib
from collections.abc import Iterator
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from rendering.rowtypes import VisionRow
from validation.album import Album
from validation.case import Case
from validation.checks.images import leads_elsewhere
from validation.checks.registry import Check, Need, entered
from validation.context import Context
from validation.findings import Level, Problem, Severity, shown
from validation.folding import pictures

if TYPE_CHECKING:
    from PIL.Image import Image

LARGEST_FILE = 64 << 20  # bytes
REMEMBERED = 100_000  # pictures
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")  # others are drawings, or run programs to decode
_ANIMATED = b"\x21\xf9\x04"  # of a GIF: the mark before each frame
# Pillow's decoders raise what their parsing stumbles over, not one error of their own.
_DECODING = (OSError, SyntaxError, ValueError, ArithmeticError, LookupError, EOFError, TypeError, AttributeError, RuntimeError, MemoryError, AssertionError)
UNREADABLE = (*_DECODING, struct.error, zlib.error)

_NO_PICTURES = (
    (b"<svg", "an SVG drawing", "draw it as a PNG first"),
    (b"%PDF-", "a PDF", "export its pages as PNG"),
    (b"<!doctype", "a web page", "a download saved the page around the picture: fetch the picture itself"),
    (b"<html", "a web page", "a download saved the page around the picture: fetch the picture itself"),
    (b"version https://git-lfs", "a Git LFS pointer", "run git lfs pull, then copy the picture itself"),
    (b"PK\x03\x04", "a zip archive", "unpack it"),
    (b"\x1f\x8b", "gzip", "unpack it"),
)
_HEIF = (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypavif")


def _ready(context: Context) -> str:
    return "" if find_spec("PIL") else "the package pillow is not installed"


@entered(
    Check(
        "V04",
        "img.decode",
        Severity.ERROR,
        Need.EACH,
        "export or download the picture again, or leave the row out",
        why="the run would stop at this row, hours in, or learn from grey squares",
        level=Level.STANDARD,
        families=("vision",),
        limits={"megapixels": 50, "frames": 256, "least_side": 2},
        ready=_ready,
    )
)
def undecodable_picture(case: Case, context: Context) -> Iterator[Problem]:
    """A picture that is none, is cut off, is a bomb, or has a side of one pixel. Missing ones are V01's, links and ways out V03's."""
    assert isinstance(case.row, VisionRow)
    seen: dict[str, tuple[str, str, str]] = context.once("V04", dict)
    for path, name in pictures(case.row):
        if name not in seen:
            if len(seen) >= REMEMBERED:
                seen.clear()
            seen[name] = _judged(context.images, name, context)
        kind, complaint, hint = seen[name]
        if complaint:
            yield Problem(message=f"{shown(name)} {complaint}", path=path, kind=kind, hint=hint)


def _judged(folder: Path, name: str, context: Context) -> tuple[str, str, str]:
    """(kind, complaint, hint) of one picture; empty for a sound one, and for one that is for other checks to name."""
    album: Album = context.once("V04.album", lambda: Album(folder))
    if not name or leads_elsewhere(name) or album.trouble(name):
        return "", "", ""  # V01 and V03 have said so
    try:
        content = read_inside(folder, name)
    except OSError as error:
        if error.errno == errno.EFBIG:
            return "size", f"has over {LARGEST_FILE >> 20} MB", "save it smaller: models see pictures at a thousand pixels or less"
        return "", "", ""
    return judged_content(content, context) if content else ("", "", "")


def read_inside(folder: Path, name: str) -> bytes:
    """The bytes of a regular file inside a folder; no step of the path may be a link. Raises OSError, EFBIG for a large one."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    *folders, last = [part for part in name.split("/") if part not in ("", ".")] or [""]
    at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for step in folders:
            below = os.open(step, flags | os.O_DIRECTORY, dir_fd=at)
            os.close(at)
            at = below
        file = os.open(last, flags, dir_fd=at)
    finally:
        os.close(at)
    with os.fdopen(file, "rb") as opened:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        if found.st_size > LARGEST_FILE:
            raise OSError(errno.EFBIG, "too large")
        return opened.read(LARGEST_FILE)


def judged_content(content: bytes, context: Context) -> tuple[str, str, str]:
    """(kind, complaint, hint) of the bytes of one picture; empty for a sound one."""
    from PIL import Image, UnidentifiedImageError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd metadata; what cannot be decoded raises
        try:
            with Image.open(BytesIO(content), formats=FORMATS) as picture:
                complaint = _header(picture, content, context)
                if not complaint[1]:
                    picture.load()
                return complaint
        except UnidentifiedImageError:
            return _no_picture(content)
        except Image.DecompressionBombError:
            return _bomb(f"is far over {context.limit('V04', 'megapixels'):g} megapixels")
        except MemoryError:
            return "memory", "needs more memory to decode than the gate has", "save it smaller"
        except UNREADABLE as error:
            return "broken", f"does not decode to its end: {shown(str(error) or type(error).__name__)}", ""


def _header(picture: "Image", content: bytes, context: Context) -> tuple[str, str, str]:
    """What the header alone says, before a pixel is decoded."""
    width, height = picture.size
    if width * height > context.limit("V04", "megapixels") * 1e6:
        return _bomb(f"has {width:,} by {height:,} pixels; the limit is {context.limit('V04', 'megapixels'):g} megapixels")
    # Pillow walks through a GIF or a TIFF to count its frames; a hostile one has millions.
    frames = content.count(_ANIMATED) if picture.format == "GIF" else 1 if picture.format == "TIFF" else int(getattr(picture, "n_frames", 1))
    if frames > context.limit("V04", "frames"):
        return _bomb(f"has {frames:,} frames")
    if min(width, height) < context.limit("V04", "least_side"):
        return "side", f"has {width:,} by {height:,} pixels", "a tracking pixel or a lost picture: put the picture itself in its place"
    return "", "", ""


def _bomb(complaint: str) -> tuple[str, str, str]:
    return "bomb", complaint, "save it smaller: a few kilobytes of such a file can fill the memory of the machine"


def _no_picture(content: bytes) -> tuple[str, str, str]:
    head = content[:1024].lstrip(b"\xef\xbb\xbf \t\r\n")
    if any(mark in content[:32] for mark in _HEIF):
        return "type", "is a HEIC or AVIF picture, which trainers rarely read", "convert it to PNG or JPEG"
    for mark, kind, hint in _NO_PICTURES:
        if head.lower().startswith(mark.lower()) or (mark == b"<svg" and b"<svg" in head.lower()):
            return "type", f"is no picture but {kind}", hint
    return "type", f"is no picture: it begins with {shown(content[:12])}", "PNG, JPEG, WebP, GIF, BMP and TIFF are read"
