"""forgets/<id>/: orders to forget, their signed records, and the tombstones of the drops that they replaced.

forgets/<id>/order.json     the order as it stands; written by the daemon
forgets/<id>/rows.txt       fingerprints of the rows of whole drops, by the chore that searches; deleted once it is done
forgets/<id>/record.json    the same for people and auditors, signed; it says pending until all have done
drops/forgotten/<drop>.json a tombstone: the bytes of this hash are not taken in again unless a person forces it
"""

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from core.errors import IntegrityError
from core.forgets import Forget, Stage, Tombstone
from store.codec import read_if_whole, to_plain, write
from store.durable import replace_file, sync_dir
from store.keys import canonical, sign, verify
from store.paths import Home

ORDER = "order.json"
ROWS = "rows.txt"
RECORD = "record.json"
FORMAT = 1
OUTSIDE = (
    "backups, exports and copies outside this home: delete them by hand",
    "disk blocks that were freed: they are not overwritten",
    "tombstones, verdicts and ledgers: they keep hashes, numbers and times, and no text",
)


def order_folder(home: Home, order: str) -> Path:
    """Where an order lies."""
    return home.root / "forgets" / order


def read_orders(home: Home) -> Iterator[Forget]:
    """Every order, oldest first."""
    for path in sorted((home.root / "forgets").glob(f"*/{ORDER}")):
        order = read_if_whole(Forget, path)
        if order is not None:
            yield order


def write_order(home: Home, order: Forget, now: datetime, confirmed: dict[str, list[str]] | None = None) -> None:
    """Make an order durable as it stands, then its record; one that is done after its record, as nobody looks at it again.

    Args: confirmed: target -> releases that it has confirmed not to hold. Side effects: a done order loses the fingerprints of its rows.
    """
    folder = order_folder(home, order.id)
    if not folder.is_dir():
        folder.mkdir(parents=True)
        sync_dir(folder.parent)
    values = _told(order, now, confirmed or {})
    text = json.dumps(values | {"signature": sign(home.keys, canonical(values))}, indent=1, ensure_ascii=False)
    if order.stage is Stage.DONE:
        replace_file(folder / RECORD, text + "\n")
        write(folder / ORDER, order)
        drop_rows(home, order.id)
    else:
        write(folder / ORDER, order)
        replace_file(folder / RECORD, text + "\n")


def _told(order: Forget, now: datetime, confirmed: dict[str, list[str]]) -> dict[str, Any]:
    plain = to_plain(order)
    known = {key: plain[key] for key in ("id", "at", "actor", "reason", "at_once", "stage", "drops", "parts", "jobs", "releases", "retraining", "removed")}
    state = "done" if order.stage is Stage.DONE else "pending"
    more = {"waits": order.waits, "confirmed": confirmed, "outside": list(OUTSIDE), "written_at": now.isoformat(), "ended_at": plain["ended_at"]}
    return {"format": FORMAT, "state": state} | known | more


def read_record(home: Home, order: str) -> dict[str, Any]:
    """The record of an order, its signature verified. Raises IntegrityError where it is missing, damaged or foreign."""
    path = order_folder(home, order) / RECORD
    try:
        values: dict[str, Any] = json.loads(path.read_bytes())
        signature = str(values.pop("signature"))
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise IntegrityError(f"{path}: {error}", hint="the daemon writes it again with the order's next step", code="RECORD_DAMAGED") from None
    verify(home.keys, canonical(values), signature)
    return values


# ---------------------------------------------------------------- tombstones


def tombs(home: Home) -> Iterator[Tombstone]:
    """Every tombstone, by drop."""
    for path in sorted((home.root / "drops" / "forgotten").glob("*.json")):
        stone = read_if_whole(Tombstone, path)
        if stone is not None:
            yield stone


def entomb(home: Home, stone: Tombstone) -> None:
    """Make a tombstone durable. A repeat changes nothing."""
    path = home.root / "drops" / "forgotten" / f"{stone.drop}.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, stone)


# ---------------------------------------------------------------- fingerprints


def drop_rows(home: Home, order: str) -> None:
    """Delete the fingerprints of an order that is done. A repeat changes nothing."""
    (order_folder(home, order) / ROWS).unlink(missing_ok=True)


def read_rows(home: Home, order: str) -> frozenset[str] | None:
    """Fingerprints of the rows of whole drops; None where nobody has worked them out yet."""
    try:
        return frozenset((order_folder(home, order) / ROWS).read_text().split())
    except FileNotFoundError:
        return None


def write_rows(home: Home, order: str, rows: Sequence[str]) -> None:
    """Keep the fingerprints of the rows of whole drops: the drops will be gone when they are needed again."""
    replace_file(order_folder(home, order) / ROWS, "".join(f"{row}\n" for row in rows))
