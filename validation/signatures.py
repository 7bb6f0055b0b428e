"""What an accepted drop keeps so that later drops of its adapter can be compared with it: `signatures.npz`.

The file is NumPy's archive of plain arrays, never pickled:

    version       one number: GRAMS_VERSION * 1000 + SIGNATURE_VERSION; another one is not read
    lines         physical line of each signed row
    groups        the first 64 bits of its conversation group (index.jsonl names it in full)
    exact         one hash a row, equal for rows that differ in case and blanks only
    sketch, bands the row's near-duplicate signature (validation/minhash.py)
    gate_lines    physical line of each text of the rows that acceptance put into the gate split
    gate_sizes    words of its grams
    gate_kinds    0 question, 1 further turn, 2 answer
    gate_offsets  where its grams begin in gate_grams; one more than texts
    gate_grams    hashed word n-grams (validation/grams.py)

A drop without the file, or with one of another version, is read again from its rows, up to MOST_ROWS of them.
"""

import io
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zstandard

from core.errors import IntegrityError
from core.tasks import RowsOf
from rendering.rows import BOM, INDEX, ROWS, read_index, spec_of
from rendering.specs import BAD_JSON, Spec
from store.durable import replace_file
from validation.case import Case
from validation.context import Batch, Context, Known, Sheet, Surroundings
from validation.control import ControlTokens
from validation.grams import GRAMS_VERSION
from validation.itemindex import Unit, Units, units_of
from validation.minhash import SIGNATURE_VERSION, Signatures
from validation.references import Item, Kind, Reference
from validation.rowtexts import RowWords, Templates, texts_of
from validation.signed import ROW, SignedRows, sign_rows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from validation.grams import Hashes

SIGNATURES = "signatures.npz"
VERSION = GRAMS_VERSION * 1000 + SIGNATURE_VERSION
MOST_ROWS = 100_000  # of a drop that are read again where it keeps no signatures
TEMPLATE_SAMPLE = 2_000
BATCH_ROWS = 512
GATE = "gate"
_KINDS: tuple[Kind, ...] = ("question", "further", "answer")


@dataclass(frozen=True, slots=True)
class Stored:
    """What is kept of one drop. `cut` is how many of its rows were looked at, where that is not all."""

    lines: "NDArray[np.int64]"
    groups: "Hashes"
    exact: "Hashes"
    signatures: Signatures
    gate: Units
    cut: int = 0


def write_signatures(folder: Path, spec: Spec, sheet: Sheet | None = None, source: Path | None = None) -> None:
    """Write `signatures.npz` into the folder of an accepted drop that is not sealed yet. A repeat writes the same bytes.

    Args: sheet: of the survey of this drop; where near duplicates were looked for, rows are read for the gate split alone.
    source: the folder that holds rows and index, if it is another one. Raises IntegrityError where they are damaged, OSError.
    """
    replace_file(folder / SIGNATURES, _packed(_gathered(source or folder, spec.with_any_columns(), sheet)))


def read_signatures(known: Known) -> Stored:
    """What is kept of a drop, worked out anew where it keeps nothing of this version. Raises IntegrityError."""
    folder = Path(known.folder)
    try:
        stored = _unpacked((folder / SIGNATURES).read_bytes())
    except FileNotFoundError:
        stored = None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise IntegrityError(f"{folder / SIGNATURES}: {error}", hint="delete the file; it is worked out anew", code="SIGNATURES_DAMAGED") from None
    if stored is not None:
        return stored
    return _gathered(folder, _spec(known), None, MOST_ROWS)


def _spec(known: Known) -> Spec:
    source = RowsOf(drop=known.folder, sha256=known.sha256, folder=known.folder, schema_id=known.schema_id)
    return spec_of(source).with_any_columns()


def _gathered(folder: Path, spec: Spec, sheet: Sheet | None, most: int = 0) -> Stored:
    import numpy as np

    index = {row.line: row for row in read_index(folder / INDEX)}
    wanted = sorted(index)
    looked = wanted[:most] if most else wanted
    is_signed = sheet is not None and sheet.num_rows == len(sheet.column(ROW))
    rows = SignedRows.of(sheet) if sheet is not None and is_signed else _signed(folder, spec, set(looked))
    kept = np.isin(rows.lines, looked)
    lines = rows.lines[kept]
    signatures = Signatures(rows.signatures.sketch[kept], rows.signatures.bands[kept])
    groups = np.array([_short(index[line].group) for line in lines.tolist()], dtype=np.uint64)
    gate = {line for line in looked if index[line].split == GATE}
    return Stored(lines, groups, rows.exact[kept], signatures, _gate_units(folder, spec, gate), len(looked) if len(looked) < len(wanted) else 0)


def _short(group: str) -> int:
    return int(group[:16], 16)


def _signed(folder: Path, spec: Spec, lines: set[int]) -> SignedRows:
    """The rows of a drop as the survey would have signed them."""
    step = max(1, len(lines) // TEMPLATE_SAMPLE)
    chosen = set(sorted(lines)[::step])
    found = Templates(RowWords.of([texts_of(case) for case in _cases(folder, spec, chosen)]))
    sheet, context, cases = Sheet(), Context(spec, folder / ROWS, Surroundings(), {}), []
    for case in _cases(folder, spec, lines):
        cases.append(case)
        if len(cases) >= BATCH_ROWS:
            sign_rows(Batch(cases, [], context), found, sheet)
            cases = []
    sign_rows(Batch(cases, [], context), found, sheet)
    return SignedRows.of(sheet)


def _gate_units(folder: Path, spec: Spec, lines: set[int]) -> Units:
    reference = Reference(folder.parent.name if folder.name == "rows" else folder.name)
    for case in _cases(folder, spec, lines):
        questions = [message.content for message in case.messages if message.role == "user" and message.content]
        texts: list[tuple[Kind, str]] = [("further" if place else "question", text) for place, text in enumerate(questions)]
        texts += [("answer", answer) for answer in case.answers]
        reference.items.append(Item(case.line, case.line, tuple(texts)))
    return units_of([reference])


def _cases(folder: Path, spec: Spec, lines: set[int]) -> Iterator[Case]:
    control = ControlTokens()
    if not lines:
        return
    last = max(lines)
    for number, raw in enumerate(_raw_lines(folder / ROWS), start=1):
        if number > last:
            return
        if number in lines:
            try:
                yield Case(number, raw, spec.decode(raw.removeprefix(BOM) if number == 1 else raw), spec, control)
            except BAD_JSON as error:
                raise IntegrityError(f"line {number} of {folder / ROWS}: {error}", hint="drop the file again", code="ROWS_DAMAGED") from None


def _raw_lines(path: Path) -> Iterator[bytes]:
    try:
        with open(path, "rb") as file, zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True) as stream:
            rest = b""
            while block := stream.read(1 << 18):
                *whole, rest = (rest + block).split(b"\n")
                yield from whole
            if rest:
                yield rest
    except (OSError, zstandard.ZstdError) as error:
        raise IntegrityError(f"{path}: {error}", hint="restore the drop from a backup, or drop the file again", code="ROWS_DAMAGED") from None


# --- the file


def _packed(stored: Stored) -> bytes:
    import numpy as np

    units, grams = stored.gate.units, stored.gate.grams
    arrays: dict[str, NDArray[Any]] = {
        "version": np.array([VERSION], dtype=np.uint32),
        "lines": stored.lines,
        "groups": stored.groups,
        "exact": stored.exact,
        "sketch": stored.signatures.sketch,
        "bands": stored.signatures.bands,
        "gate_lines": np.array([unit.line for unit in units], dtype=np.int64),
        "gate_sizes": np.array([unit.n for unit in units], dtype=np.uint8),
        "gate_kinds": np.array([_KINDS.index(unit.kind) for unit in units], dtype=np.uint8),
        "gate_offsets": np.cumsum([0, *(len(one) for one in grams)], dtype=np.int64),
        "gate_grams": np.concatenate(grams) if grams else np.zeros(0, dtype=np.uint64),
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:  # not np.savez: it writes the time of day into the file
        for name, values in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w") as file:
                np.lib.format.write_array(file, values, allow_pickle=False)
    return buffer.getvalue()


def _unpacked(content: bytes) -> Stored | None:
    """None where the version is another one. Raises ValueError, KeyError, BadZipFile for a damaged file."""
    import numpy as np

    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        arrays: Mapping[str, NDArray[np.uint64]] = {name: archive[name] for name in archive.files}
    if arrays["version"].tolist() != [VERSION]:
        return None
    offsets = arrays["gate_offsets"].astype(np.int64).tolist()
    described = zip(arrays["gate_lines"].tolist(), arrays["gate_sizes"].tolist(), arrays["gate_kinds"].tolist(), strict=True)
    units = [Unit(0, line, line, _KINDS[kind], n) for line, n, kind in described]
    grams = [arrays["gate_grams"][begin:end] for begin, end in pairwise(offsets)]
    signatures = Signatures(arrays["sketch"], arrays["bands"])
    lines = arrays["lines"].astype(np.int64)
    if len({len(lines), len(arrays["groups"]), len(signatures.sketch), len(signatures.bands)}) != 1 or len(units) != len(grams):
        raise ValueError("its arrays do not fit together")
    return Stored(lines, arrays["groups"], arrays["exact"], signatures, Units(units, grams))


# --- the union of earlier drops


@dataclass(frozen=True, slots=True)
class Earlier:
    """What the adapter's earlier drops keep. `faults` tell of drops that could not be read, or not wholly."""

    known: tuple[Known, ...]
    stored: tuple[Stored, ...]
    faults: tuple[str, ...]

    def name(self, place: int) -> str:
        """What a drop is called: the folder of its rows is `rows`, below the drop's own."""
        folder = Path(self.known[place].folder)
        return folder.parent.name if folder.name == "rows" else folder.name

    def groups(self) -> set[str]:
        """Every conversation group that earlier drops know."""
        return {row.group for known in self.known for row in read_index(Path(known.folder, INDEX))}

    def cases(self, place: int, lines: set[int]) -> Iterator[Case]:
        """Rows of an earlier drop, read again, in order. Raises IntegrityError."""
        return _cases(Path(self.known[place].folder), _spec(self.known[place]), lines)


def earlier_drops(context: Context) -> Earlier:
    """What the adapter's earlier drops keep, read once a process."""
    return context.once("earlier drops", lambda: _read_earlier(context.around.known))


def _read_earlier(drops: tuple[Known, ...]) -> Earlier:
    known, stored, faults = [], [], []
    for drop in drops:
        try:
            found = read_signatures(drop)
        except IntegrityError as error:
            faults.append(f"{error.what}: {error.hint}")
            continue
        known.append(drop)
        stored.append(found)
        if found.cut:
            faults.append(f"only the first {found.cut:,} rows of {drop.folder} were compared: it keeps no signatures")
    return Earlier(tuple(known), tuple(stored), tuple(faults))
