"""V05: pictures that look the same, under the same question, with different answers.

A picture is known by its gradients (8 by 8, each pixel against its right neighbour: dHash) and by its colours (4 by 4): two
flags may have the same stripes in other colours. Rows that name the same file are told by B03 already.
"""

import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from io import BytesIO
from typing import TYPE_CHECKING

import xxhash

from rendering.rowtypes import VisionRow
from validation.case import Case
from validation.checks.pictures import FORMATS, UNREADABLE, read_inside
from validation.checks.registry import Check, Need, entered
from validation.context import Batch, Context, Sheet
from validation.findings import Level, Problem, Severity, shown
from validation.folding import folded, pictures

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from validation.survey import Survey

MOST_PIXELS = 50_000_000
MOST_PICTURES = 20_000  # that one process decodes
REMEMBERED = 20_000
COLOURS = 6  # columns of eight bytes: 4 by 4 pixels of red, green, blue
LINE, GRADIENT, ASKED, ANSWER, PATHS, COLOUR = "V05.line", "V05.gradient", "V05.asked", "V05.answer", "V05.paths", "V05.colour"
MOST_BITS = 3  # of 64, in which gradients of one picture may differ
MEAN_COLOUR, MOST_COLOUR = 4.0, 16  # of 255
MOST_RUN = 500  # pictures with one part of their gradient in common
SHOWN_PAIRS = 3

Look = tuple[int, bytes]  # gradient, colours


def _ready(context: Context) -> str:
    return "" if find_spec("PIL") else "the package pillow is not installed"


class _Looks:
    """Pictures looked at by this process, by path."""

    def __init__(self) -> None:
        self.known: dict[str, Look | None] = {}
        self.num_decoded = 0

    def of(self, name: str, context: Context) -> Look | None:
        """None where it cannot be read: other checks say so."""
        if name not in self.known:
            if self.num_decoded >= MOST_PICTURES:
                return None
            if len(self.known) >= REMEMBERED:
                self.known.clear()
            self.num_decoded += 1
            self.known[name] = _look(name, context)
        return self.known[name]


def _look(name: str, context: Context) -> Look | None:
    from PIL import Image

    if not name or name.startswith("/") or ".." in name.split("/") or "://" in name or "\0" in name:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd metadata
        try:
            with Image.open(BytesIO(read_inside(context.images, name)), formats=FORMATS) as picture:
                if picture.width * picture.height > MOST_PIXELS:
                    return None
                picture.draft("RGB", (64, 64))
                plain = picture.convert("RGB")
        except (Image.DecompressionBombError, *UNREADABLE):
            return None
    grey = plain.convert("L").resize((9, 8), Image.Resampling.BOX).tobytes()
    bits = "".join("1" if grey[place] < grey[place + 1] else "0" for row in range(8) for place in range(9 * row, 9 * row + 8))
    return int(bits, 2), plain.resize((4, 4), Image.Resampling.BOX).tobytes()


def _names(case: Case) -> list[str]:
    return [name for _, name in pictures(case.row)] if isinstance(case.row, VisionRow) else []


def _look_of(case: Case, context: Context) -> Look | None:
    """Of a row with one picture; of several, one that is equal only where all are."""
    looks = [context.once("V05", _Looks).of(name, context) for name in _names(case)]
    if not looks or None in looks:
        return None
    known = [look for look in looks if look is not None]
    if len(known) == 1:
        return known[0]
    return xxhash.xxh3_64_intdigest(b"".join(gradient.to_bytes(8) + colours for gradient, colours in known)), known[0][1]


def _conclude(survey: "Survey") -> Iterator[Problem]:
    import numpy as np

    sheet = survey.sheet
    lines, gradients, asked, answers, paths = (np.array(sheet.column(name), dtype=np.uint64) for name in (LINE, GRADIENT, ASKED, ANSWER, PATHS))
    survey.stats["pictures_compared"] = len(lines)
    if len(lines) < 2:
        return
    colours = np.stack([np.array(sheet.column(f"{COLOUR}{place}"), dtype=np.uint64) for place in range(COLOURS)], axis=1).view(np.uint8).astype(np.int16)
    torn: dict[int, int] = {}
    for one, other in _near(gradients):
        apart = np.abs(colours[one] - colours[other])
        is_torn = asked[one] == asked[other] and answers[one] != answers[other] and paths[one] != paths[other]
        if is_torn and apart.mean() <= MEAN_COLOUR and apart.max() <= MOST_COLOUR:
            torn.setdefault(int(lines[one]), int(lines[other]))
            torn.setdefault(int(lines[other]), int(lines[one]))
    share = len(torn) / len(lines)
    if share <= survey.context.limit("V05", "share"):
        return
    cases = survey.rows_at([*sorted(torn)[:SHOWN_PAIRS], *(torn[line] for line in sorted(torn)[:SHOWN_PAIRS])])
    first = min(torn)
    both = f"line {first} ({shown(cases[first].answer)}) and line {torn[first]} ({shown(cases[torn[first]].answer)})"
    yield Problem(
        message=f"{len(torn):,} of {len(lines):,} rows ({share:.1%}) show another row's picture and answer the same question differently: {both}",
        lines=tuple(sorted(torn)),
        count=len(torn),
    )


def _near(gradients: "NDArray[np.uint64]") -> Iterator[tuple[int, int]]:
    """Pairs of places whose gradients differ in at most MOST_BITS bits: then one of four parts is equal."""
    import numpy as np

    seen: set[tuple[int, int]] = set()
    for part in range(4):
        piece = (gradients >> np.uint64(16 * part)) & np.uint64(0xFFFF)
        order = np.argsort(piece, kind="stable")
        for run in np.split(order, np.flatnonzero(np.diff(piece[order])) + 1):
            for place, one in enumerate(run[:MOST_RUN].tolist()):
                rest = run[place + 1 : MOST_RUN]
                apart = np.array([int(value).bit_count() for value in gradients[rest] ^ gradients[one]])
                for other in rest[apart <= MOST_BITS].tolist() if len(rest) else ():
                    pair = (min(one, other), max(one, other))
                    if pair not in seen:
                        seen.add(pair)
                        yield pair


@entered(
    Check(
        "V05",
        "img.dup",
        Severity.WARNING,
        Need.BATCH,
        "look at these rows side by side; keep the answer that is right",
        why="the model sees the same picture with two answers, and learns to guess",
        level=Level.DEEP,
        families=("vision",),
        limits={"share": 0.01},
        ready=_ready,
        conclude=_conclude,
    )
)
def same_pictures(batch: Batch, sheet: Sheet) -> None:
    """Notes what each row's picture looks like, what is asked and what is answered."""
    for case in batch.cases:
        look = _look_of(case, batch.context)
        if look is None or not case.answer:
            continue
        gradient, colours = look
        numbers = {
            LINE: case.line,
            GRADIENT: gradient,
            ASKED: xxhash.xxh3_64_intdigest(folded(case.prompt)),
            ANSWER: xxhash.xxh3_64_intdigest(folded(case.answer).strip(b" .!?")),
            PATHS: xxhash.xxh3_64_intdigest("\n".join(_names(case)).encode()),
        }
        for name, number in numbers.items():
            sheet.column(name).append(number)
        for place in range(COLOURS):
            sheet.column(f"{COLOUR}{place}").frombytes(colours[8 * place : 8 * place + 8])
