"""V05: the same picture with two answers is found, saved anew or scaled; pictures that differ in colours or details are not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gate_cases import Check, found

from validation import Report
from validation.findings import Severity

Image = pytest.importorskip("PIL.Image")
Draw = pytest.importorskip("PIL.ImageDraw")
WHAT = "What is in this picture?"


def scene(number: int, colour: tuple[int, int, int] = (200, 60, 40)) -> Any:
    """A picture of a few shapes; each number has shapes of its own."""
    picture = Image.new("RGB", (96, 64), (230, 230 - number % 7 * 9, 200))
    draw = Draw.Draw(picture)
    for step in range(5):
        left, top = (number * 37 + step * 23) % 80, (number * 11 + step * 31) % 50
        draw.rectangle((left, top, left + 5 + (number * step) % 20, top + 9 + number % 5), fill=tuple((value + step * 31) % 256 for value in colour))
    return picture


def row(name: str, answer: str, question: str = WHAT) -> dict[str, object]:
    asked = [{"type": "image"}, {"type": "text", "text": question}]
    return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}], "images": [f"images/{name}"]}


@pytest.fixture
def look(check: Check, tmp_path: Path) -> Callable[..., Report]:
    """A deep check of rows whose pictures lie beside them; scenes 0 to 29 do already."""
    (tmp_path / "images").mkdir()
    for number in range(30):
        scene(number).save(tmp_path / "images" / f"{number}.png")
    return lambda rows: check([*(row(f"{number}.png", f"It is scene {number}.") for number in range(30)), *rows], "vision_v1", level="deep")


def doubles(report: Report) -> list[Any]:
    return [finding for finding in report.findings if finding.id == "V05"]


def test_a_picture_saved_anew_with_another_answer_is_found(look: Callable[..., Report], tmp_path: Path) -> None:
    scene(4).save(tmp_path / "images" / "anew.jpg", quality=85)
    scene(7).resize((192, 128)).save(tmp_path / "images" / "larger.png")
    finding = found(look([row("anew.jpg", "It is a cat."), row("larger.png", "It is a dog.")]), "V05")
    assert (finding.severity, finding.count, finding.lines) == (Severity.WARNING, 4, (5, 8, 31, 32))
    assert "line 5 ('It is scene 4.') and line 31 ('It is a cat.')" in finding.message


def test_one_of_many_pictures_is_let_pass_below_the_share(check: Check, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in range(250):
        scene(number).save(tmp_path / "images" / f"{number}.png")
    scene(4).save(tmp_path / "images" / "anew.png")
    rows = [*(row(f"{number}.png", f"It is scene {number}.") for number in range(250)), row("anew.png", "It is a cat.")]
    assert doubles(check(rows, "vision_v1", level="deep")) == []


VALID: dict[str, Callable[[Path], list[object]]] = {
    "the same answer": lambda folder: [row("anew.png", "it is scene 4")],
    "another question": lambda folder: [row("anew.png", "Red.", "Which colour has it?")],
    "other colours": lambda folder: [row("recoloured.png", "It is a cat.")],
    "plain pictures in two colours": lambda folder: [row("white.png", "white"), row("grey.png", "grey")],
    "a picture that does not decode": lambda folder: [row("torn.png", "It is a cat."), row("none.png", "It is a dog.")],
    "a way out of the folder": lambda folder: [row("../../etc/passwd", "It is a cat.")],
}


@pytest.mark.parametrize("make", VALID.values(), ids=VALID)
def test_pictures_that_do_not_contradict_are_let_pass(make: Callable[[Path], list[object]], look: Callable[..., Report], tmp_path: Path) -> None:
    images = tmp_path / "images"
    scene(4).save(images / "anew.png")
    scene(4, (40, 90, 220)).save(images / "recoloured.png")
    Image.new("RGB", (96, 64), (255, 255, 255)).save(images / "white.png")
    Image.new("RGB", (96, 64), (128, 128, 128)).save(images / "grey.png")
    (images / "torn.png").write_bytes((images / "3.png").read_bytes()[:60])
    assert doubles(look(make(images))) == []


def test_rows_of_one_file_are_left_to_the_check_of_prompts(look: Callable[..., Report]) -> None:
    assert doubles(look([row("4.png", "It is a cat.")])) == []
