"""V01 to V03: pictures of a row that are there, as many as the row shows, and inside its own folder. What they hold is V04's."""

import re
from collections.abc import Iterator
from typing import Any

from rendering.rowtypes import VisionRow
from validation.album import Album
from validation.case import Case
from validation.checks.registry import Check, Need, Value, entered
from validation.checks.shape import text_that_holds
from validation.findings import Problem, Severity, shown
from validation.folding import pictures

_VISION = ("vision",)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
_DRIVE = re.compile(r"[A-Za-z]:")
_MARK = "<image>"

_COUNT_HINT = "each part of type image, or each <image> in a text, stands for the next of the list images"
_COUNT_WHY = "the run stops at such a row, or shows the model another picture"
_PATH_HINT = "copy the picture into a folder beside the file and write its path relative to the file, with /"
_PATH_WHY = "a run has no network, and reads nothing outside the folder of its drop"


def leads_elsewhere(name: str) -> str:
    """Why a path is not one inside the file's folder; empty: it is."""
    if name[:5].lower() == "data:":
        return "is a picture written as text (data: URI)"
    if _DRIVE.match(name) and not _SCHEME.match(name):
        return "is a path of another machine"
    if _SCHEME.match(name):
        return "is an address (URL)"
    if "\\" in name:
        return "has backslashes"
    if name.startswith(("/", "~")):
        return "is an absolute path"
    if ".." in name.split("/"):
        return "leaves the folder (..)"
    return "holds a NUL character" if "\0" in name else ""


@entered(Check("V03", "img.path", Severity.ERROR, Need.ROW, _PATH_HINT, why=_PATH_WHY, families=_VISION, rank=40))
def picture_from_elsewhere(case: Case) -> Iterator[Problem]:
    """An absolute path, one that leaves the folder, a URL, or a picture behind a link."""
    assert isinstance(case.row, VisionRow)
    for path, name in pictures(case.row):
        fault = leads_elsewhere(name)
        if fault:
            yield Problem(message=f"the picture {shown(name)} {fault}", path=path, kind=fault)
        elif name and case.album and case.album.trouble(name) == "link":
            hint = "copy the picture itself; links are never followed"
            yield Problem(message=f"the picture {shown(name)} is a link, or lies behind one", path=path, kind="link", hint=hint)


@entered(
    Check(
        "V01",
        "img.missing",
        Severity.ERROR,
        Need.ROW,
        "paths are relative to the file; name another folder with --images DIR",
        why="a run would stop at this row, or learn the answer without the picture",
        families=_VISION,
        rank=41,
    )
)
def missing_picture(case: Case) -> Iterator[Problem]:
    """A picture that is not there, or has no bytes."""
    assert isinstance(case.row, VisionRow)
    for path, name in pictures(case.row):
        if not name:
            yield Problem(message="the path of a picture is empty", path=path, kind="no name", hint="write the picture's path, or remove the row")
        elif case.album and not leads_elsewhere(name):
            trouble = case.album.trouble(name)
            if trouble in _TROUBLES:
                yield Problem(message=f"the picture {shown(name)} {_TROUBLES[trouble]}", path=path, kind=trouble, hint=_hint(trouble, name, case.album))


_TROUBLES = {
    "missing": "is not there",
    "folder": "is not there, nor is its folder",
    "empty": "has no bytes",
    "kind": "is no file",
    "closed": "may not be read",
}


def _hint(trouble: str, name: str, album: Album) -> str:
    if trouble == "empty":
        return "the copy was cut off: copy the picture again"
    if trouble == "missing" and (near := album.nearest(name)):
        return f"there is {shown(near)}: capitals and endings count"
    return ""


@entered(Check("V02", "img.count", Severity.ERROR, Need.ROW, _COUNT_HINT, why=_COUNT_WHY, families=_VISION, rank=42))
def other_count_of_pictures(case: Case) -> Problem | None:
    """Placeholders and pictures differ in number."""
    row = case.row
    assert isinstance(row, VisionRow)
    bare = own = marks = 0
    for turn in row.messages:
        if isinstance(turn.content, str):
            marks += turn.content.count(_MARK)
            continue
        for part in turn.content or ():
            bare += part.type == "image" and not part.image
            own += part.type == "image" and bool(part.image)
            marks += part.text.count(_MARK)
    num_pictures = len(row.images)
    if bare + own:
        fits = num_pictures in (bare, bare + own)
        places = bare if num_pictures or bare else 0
    else:
        fits, places = num_pictures == marks, marks
    if fits:
        return None
    return Problem(message=f"the row has {_counted(places, 'place')} for pictures and {_counted(num_pictures, 'picture')}", path="$.images")


def _counted(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


@entered(Check("V02", "img.count", Severity.ERROR, Need.VALUE, _COUNT_HINT, why=_COUNT_WHY, families=_VISION, rank=20))
def pictures_as_one_text(value: Value) -> Problem | None:
    """The list images is one text: a reader would count its letters."""
    images = value.plain.get("images") if isinstance(value.plain, dict) else None
    if not isinstance(images, str) or text_that_holds(images):
        return None
    return Problem(
        message=f"images is a text, not a list: {shown(images)}", path="$.images", kind="text", hint=f"write a list, also for one picture: [{_quoted(images)}]"
    )


def _quoted(text: str) -> str:
    return '"' + shown(text)[1:-1] + '"'


@entered(Check("V03", "img.path", Severity.ERROR, Need.VALUE, _PATH_HINT, why=_PATH_WHY, families=_VISION, rank=21))
def picture_from_elsewhere_in_a_foreign_part(value: Value) -> Iterator[Problem]:
    """A URL in a part as other tools write it (image_url, source), or in images that are a text."""
    plain = value.plain if isinstance(value.plain, dict) else {}
    images = plain.get("images")
    names = (
        [("$.images", images)]
        if isinstance(images, str)
        else [(f"$.images[{index}]", one) for index, one in enumerate(images if isinstance(images, list) else ())]
    )
    for path, name in [*names, *_foreign_parts(plain)]:
        fault = leads_elsewhere(name) if isinstance(name, str) else ""
        if fault:
            yield Problem(message=f"the picture {shown(name)} {fault}", path=path, kind=fault)


def _foreign_parts(plain: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    messages = plain.get("messages")
    for index, message in enumerate(messages if isinstance(messages, list) else ()):
        content = message.get("content") if isinstance(message, dict) else None
        for number, part in enumerate(content if isinstance(content, list) else ()):
            for key in ("image_url", "image", "url", "path", "source") if isinstance(part, dict) else ():
                held = part.get(key)
                name = held.get("url") if isinstance(held, dict) else held
                if isinstance(name, str):
                    yield f"$.messages[{index}].content[{number}].{key}", name
