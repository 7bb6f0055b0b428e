"""Pictures that do not decode, and ways out of the folder that are never followed."""

import os
import struct
import zlib
from io import BytesIO
from pathlib import Path

import pytest
from content_rows import ids, question, standard
from gate_cases import Check, found
from PIL import Image

from validation.checks.pictures import read_inside
from validation.context import Surroundings


def picture(kind: str = "PNG", size: tuple[int, int] = (32, 24), mode: str = "RGB") -> bytes:
    """A sound picture with some detail."""
    image = Image.effect_noise(size, 80).convert(mode)
    buffer = BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def row(name: str, number: int = 0) -> dict[str, object]:
    asked = [{"type": "image"}, {"type": "text", "text": question(number)}]
    return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": f"It shows number {number}."}], "images": [name]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for number in range(12):
        (tmp_path / "images" / f"good{number}.png").write_bytes(picture())
    return tmp_path


def rows(*names: str) -> list[object]:
    """Twelve rows with sound pictures, then these as line 13 and on."""
    good: list[object] = [row(f"images/good{number}.png", number) for number in range(12)]
    return [*good, *(row(name, 50 + number) for number, name in enumerate(names))]


def png_of(width: int, height: int) -> bytes:
    """The header of a PNG of any size, without its pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(b"\0" * 99))
        + chunk(b"IEND", b"")
    )


def animated(frames: int) -> bytes:
    """A GIF of some frames."""
    buffer = BytesIO()
    shades = [Image.new("L", (4, 4), number % 250) for number in range(frames)]
    shades[0].save(buffer, "GIF", save_all=True, append_images=shades[1:])
    return buffer.getvalue()


BAD = {
    "cut off": (picture()[:-200], "broken", "does not decode to its end"),
    "a JPEG cut off": (picture("JPEG", (200, 200))[:2000], "broken", "does not decode"),
    "a WebP cut off": (picture("WEBP", (200, 200))[:2000], "broken", "does not decode"),
    "a byte changed": (picture()[:60] + b"XXXX" + picture()[64:], "broken", "does not decode"),
    "text": (b"not a picture at all", "type", "is no picture: it begins with"),
    "SVG": (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"></svg>', "type", "an SVG drawing"),
    "a PDF": (b"%PDF-1.7 ...", "type", "a PDF"),
    "a web page": (b"<!DOCTYPE html><html>404</html>", "type", "a web page"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "type", "Git LFS pointer"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "type", "is no picture"),
    "a bomb": (png_of(20_000, 20_000), "bomb", "pixels"),
    "a small bomb": (png_of(9_000, 6_000), "bomb", "9,000 by 6,000 pixels; the limit is 50 megapixels"),
    "a line": (picture(size=(300, 1)), "side", "300 by 1 pixels"),
    "a dot": (picture("GIF", (1, 1), "L"), "side", "1 by 1 pixels"),
    "a film": (animated(300), "bomb", " frames"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_picture_that_cannot_be_learnt_from_is_refused(kind: str, folder: Path, check: Check) -> None:
    content, _, says = BAD[kind]
    (folder / "images" / "bad.png").write_bytes(content)
    finding = found(standard(check, rows("images/bad.png"), "vision_v1"), "V04")
    assert (finding.severity, finding.lines, finding.path) == ("error", (13,), "$.images[0]")
    assert says in finding.message
    assert "'images/bad.png'" in finding.message


def test_each_row_with_the_same_bad_picture_counts_and_it_is_read_once(folder: Path, check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "images" / "bad.png").write_bytes(b"nothing")
    read: list[str] = []

    def counted(images: Path, name: str) -> bytes:
        read.append(name)
        return read_inside(images, name)

    monkeypatch.setattr("validation.checks.pictures.read_inside", counted)
    finding = found(standard(check, rows(*["images/bad.png"] * 4), "vision_v1"), "V04")
    assert (finding.count, finding.lines) == (4, (13, 14, 15, 16))
    assert read.count("images/bad.png") == 1


@pytest.mark.parametrize(
    ("kind", "mode", "name"),
    [
        ("PNG", "RGBA", "a.png"),
        ("PNG", "P", "a.png"),
        ("PNG", "1", "a.png"),
        ("JPEG", "L", "a.jpg"),
        ("JPEG", "CMYK", "a.jpeg"),
        ("WEBP", "RGB", "a.webp"),
        ("GIF", "P", "a.gif"),
        ("BMP", "RGB", "a.bmp"),
        ("TIFF", "RGB", "a.tif"),
        ("JPEG", "RGB", "a.png"),
        ("PNG", "RGB", "Bild мир 图 🏳️‍🌈.png"),
    ],
)
def test_sound_pictures_of_every_kind_say_nothing(kind: str, mode: str, name: str, folder: Path, check: Check) -> None:
    (folder / "images" / name).write_bytes(picture(kind, (40, 2), mode))
    assert "V04" not in ids(standard(check, rows(f"images/{name}", f"./images//{name}"), "vision_v1"))


def test_a_short_animation_is_a_picture(folder: Path, check: Check) -> None:
    (folder / "images" / "a.gif").write_bytes(animated(20))
    assert "V04" not in ids(standard(check, rows("images/a.gif"), "vision_v1"))


def test_links_are_never_followed(folder: Path, check: Check) -> None:
    (folder / "images" / "link.png").symlink_to(folder / "images" / "good0.png")
    (folder / "elsewhere").symlink_to("/")
    (folder / "images" / "text.png").symlink_to("/etc/hostname")
    (folder / "images" / "nothing.png").symlink_to(folder / "none.png")
    names = ("images/link.png", "elsewhere/etc/hostname", "images/text.png", "images/nothing.png", "./images//text.png")
    assert ids(standard(check, rows(*names), "vision_v1")) == {"V03"}
    for name in ("images/link.png", "elsewhere/etc/hostname"):
        with pytest.raises(OSError, match=r"symbolic links|Not a directory"):
            read_inside(folder, name)


def test_other_checks_name_what_is_missing_or_outside(folder: Path, check: Check) -> None:
    os.mkfifo(folder / "images" / "pipe.png")
    (folder / "images" / "empty.png").write_bytes(b"")
    names = ("images/none.png", "../x.png", "/etc/hostname", "https://example.org/a.png", "images/pipe.png", "images", "images/empty.png", "a\0b", "x" * 300)
    assert "V04" not in ids(standard(check, rows(*names), "vision_v1"))


def test_a_picture_of_more_bytes_than_the_limit_is_not_read(folder: Path, check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("validation.checks.pictures.LARGEST_FILE", 5_000)
    (folder / "images" / "large.png").write_bytes(b"\x89PNG" + b"\0" * 6_000)
    assert "has over 0 MB" in found(standard(check, rows("images/large.png"), "vision_v1"), "V04").message


def test_pictures_may_lie_in_another_folder(folder: Path, tmp_path: Path, check: Check) -> None:
    other = tmp_path / "other"
    (other / "images").mkdir(parents=True)
    for number in range(12):
        (other / "images" / f"good{number}.png").write_bytes(b"nothing")
    report = check(rows(), "vision_v1", level="standard", around=Surroundings(images=str(other)))
    assert found(report, "V04").count == 12


def test_pictures_in_parts_are_read_too(folder: Path, check: Check) -> None:
    (folder / "bad.png").write_bytes(b"nothing")
    inside = {
        "messages": [{"role": "user", "content": [{"type": "image", "image": "bad.png"}, {"type": "text", "text": "q"}]}, {"role": "assistant", "content": "a"}]
    }
    assert found(standard(check, [*rows(), inside], "vision_v1"), "V04").path == "$.messages[0].content[0].image"


def test_without_pillow_the_report_says_so(folder: Path, check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("validation.checks.pictures.find_spec", lambda name: None)
    assert "pillow is not installed" in standard(check, rows(), "vision_v1").stats["checks_not_run"]["V04"]
