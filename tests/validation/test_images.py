"""Pictures beside a file: each is there, inside the folder, and stands where the row shows one."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from gate_cases import as_bytes, found
from stories import ANSWER, USER, Row, dialog

from validation import DataValidator, Report
from validation.context import Surroundings
from validation.examination import Setting

PNG = b"\x89PNG\r\n\x1a\n" + b"x" * 60
See = Callable[..., Report]


def shown(*images: str, parts: int = 1, **extra: object) -> Row:
    """A row that shows pictures in as many parts."""
    content = [*[{"type": "image"}] * parts, {"type": "text", "text": "What is this?"}]
    return dialog({"role": "user", "content": content}, ANSWER, images=list(images), **extra)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two pictures in `images/`."""
    (tmp_path / "drop" / "images").mkdir(parents=True)
    for name in ("a.png", "Photo.PNG"):
        (tmp_path / "drop" / "images" / name).write_bytes(PNG)
    return tmp_path / "drop"


@pytest.fixture
def see(folder: Path) -> See:
    """Check twelve good rows and those given, as a file beside the pictures."""

    def run(*rows: object, images: str = "") -> Report:
        path = folder / "rows.jsonl"
        path.write_bytes(as_bytes([*[shown("images/a.png", id=number) for number in range(12)], *rows]))
        setting = Setting(around=Surroundings(images=images))
        return DataValidator(setting=setting).check_file(path, "vision_v1", "quick", name="rows.jsonl")

    return run


@pytest.mark.parametrize(
    "row",
    [
        shown("images/a.png", "images/Photo.PNG", parts=2),
        shown("./images/a.png"),
        shown("images//a.png"),
        dialog({"role": "user", "content": [{"type": "image", "image": "images/a.png"}, {"type": "text", "text": "q"}]}, ANSWER),
        dialog({"role": "user", "content": [{"type": "image", "image": "images/a.png"}]}, ANSWER, images=["images/a.png"]),
        dialog({"role": "user", "content": "<image>\nWhat is this?"}, ANSWER, images=["images/a.png"]),
        dialog({"role": "user", "content": [{"type": "image"}]}, ANSWER, images=["images/a.png"]),  # no text: the picture is the question
        dialog(USER, ANSWER),  # rows without a picture keep the model's words
        dialog(USER, ANSWER, {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "and this?"}]}, ANSWER, images=["images/a.png"]),
    ],
    ids=lambda row: json.dumps(row)[:60],
)
def test_right_rows_pass_without_a_word(row: Row, see: See) -> None:
    report = see(row)
    assert report.findings == (), report.to_text()


@pytest.mark.parametrize(
    ("row", "id", "path", "says"),
    [
        (shown("images/b.png"), "V01", "$.images[0]", "is not there"),
        (shown("pictures/a.png"), "V01", "$.images[0]", "nor is its folder"),
        (shown("images/photo.png"), "V01", "$.images[0]", "there is 'Photo.PNG'"),
        (shown("images/a.jpg"), "V01", "$.images[0]", "there is 'a.png'"),
        (shown("images/empty.png"), "V01", "$.images[0]", "has no bytes"),
        (shown("images"), "V01", "$.images[0]", "is no file"),
        (shown(""), "V01", "$.images[0]", "path of a picture is empty"),
        (dialog({"role": "user", "content": [{"type": "image", "image": "images/b.png"}]}, ANSWER), "V01", "$.messages[0].content[0].image", "is not there"),
        (shown("images/a.png", parts=2), "V02", "$.images", "2 places for pictures and 1 picture"),
        (shown("images/a.png", "images/a.png"), "V02", "$.images", "1 place for pictures and 2 pictures"),
        (shown(), "V02", "$.images", "1 place for pictures and 0 pictures"),
        (dialog(USER, ANSWER, images=["images/a.png"]), "V02", "$.images", "0 places"),
        (dialog({"role": "user", "content": "<image> <image> q"}, ANSWER, images=["images/a.png"]), "V02", "$.images", "2 places"),
        (dialog({"role": "user", "content": [{"type": "image"}]}, ANSWER, images="images/a.png"), "V02", "$.images", 'also for one picture: ["images/a.png"]'),
        (shown("/data/a.png"), "V03", "$.images[0]", "absolute"),
        (shown("../secret.png"), "V03", "$.images[0]", "leaves the folder"),
        (shown("images/../../secret.png"), "V03", "$.images[0]", "leaves the folder"),
        (shown("https://example.com/a.png"), "V03", "$.images[0]", "URL"),
        (shown("file:///data/a.png"), "V03", "$.images[0]", "URL"),
        (shown("data:image/png;base64,iVBORw0KGgo="), "V03", "$.images[0]", "data: URI"),
        (shown("images\\a.png"), "V03", "$.images[0]", "backslashes"),
        (shown("C:/pictures/a.png"), "V03", "$.images[0]", "another machine"),
        (shown("~/a.png"), "V03", "$.images[0]", "absolute"),
        (shown("images/link.png"), "V03", "$.images[0]", "links are never followed"),
        (shown("elsewhere/secret.png"), "V03", "$.images[0]", "link"),
    ],
)
def test_a_wrong_picture_is_named(row: Row, id: str, path: str, says: str, see: See, folder: Path) -> None:
    (folder / "images" / "empty.png").write_bytes(b"")
    (folder.parent / "secret.png").write_bytes(PNG)
    (folder / "images" / "link.png").symlink_to(folder.parent / "secret.png")
    (folder / "elsewhere").symlink_to(folder.parent)
    report = see(row)
    finding = found(report, id)
    assert (finding.severity, finding.lines, finding.path) == ("error", (13,), path)
    assert says in f"{finding.message} {finding.hint}"
    assert {other.id for other in report.findings} == {id}, report.to_text()


def test_a_picture_as_openai_writes_it_is_named_with_its_address(see: See) -> None:
    part = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    report = see(dialog({"role": "user", "content": [part]}, ANSWER))
    assert found(report, "V03").path == "$.messages[0].content[0].image_url"
    assert "'image_url'" in found(report, "S04").message
    assert len(report.findings) == 2


def test_another_folder_of_pictures(see: See, folder: Path, tmp_path: Path) -> None:
    assert found(see(images=str(tmp_path / "nothing")), "V01").count == 12
    (tmp_path / "other" / "images").mkdir(parents=True)
    (tmp_path / "other" / "images" / "a.png").write_bytes(PNG)
    assert see(images=str(tmp_path / "other")).findings == ()


def test_a_folder_that_is_itself_behind_a_link_is_fine(see: See, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "by_link").symlink_to(folder)
    assert see(images=str(tmp_path / "by_link")).findings == ()
