"""The format of a home: an older one is brought up to date after a backup of its records, a newer one is refused.

To change the format: raise FORMAT in store.paths, add to STEPS the function that makes format N+1 of format N (it may be run
again after a crash in its middle), and keep a record set of format N under tests/data/homes/.
"""

import json
from collections.abc import Callable, Mapping
from datetime import datetime

from core.errors import StateError
from store.archives import SUFFIX, back_up
from store.durable import replace_file
from store.paths import FORMAT, Home
from store.snapshots import new_id

STEPS: dict[int, Callable[[Home], None]] = {}  # format -> what makes the next one of it


def format_of(home: Home) -> int | None:
    """The home's format; None where there is no home yet. Raises StateError for a mark that cannot be read."""
    try:
        return int(json.loads(home.format_mark.read_text())["format"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        hint = f'write {{"format": {FORMAT}}} into it if no other lorad ever ran on this home, else restore a backup'
        raise StateError(f"{home.format_mark} cannot be read: {error}", hint=hint, code="HOME_FORMAT") from None


def migrate(home: Home, now: datetime, steps: Mapping[int, Callable[[Home], None]] = STEPS, target: int = FORMAT) -> str:
    """Bring the home to format `target`, one format after another. Only for the process that holds it.

    Returns the name of the backup that was made before, empty where there was nothing to do. Raises StateError: a newer home,
    or an older one that nobody knows how to bring up to date; nothing has changed then.
    """
    found = format_of(home)
    if found is None or found == target:
        return ""
    if found > target:
        hint = "upgrade lorad, or name another home in the config"
        raise StateError(f"{home.root} has format {found}; this lorad knows up to {target}", hint=hint, code="HOME_NEWER")
    missing = [number for number in range(found, target) if number not in steps]
    if missing:
        hint = "start the lorad that wrote it, or a version between that and this one, first"
        raise StateError(f"{home.root} has format {found}; this lorad cannot read it", hint=hint, code="HOME_TOO_OLD")
    name = new_id(now, f"before-format-{target}{SUFFIX}")
    home.snapshots.mkdir(exist_ok=True)
    if not (home.snapshots / name).exists():
        back_up(home, home.snapshots / name, now, home.tmp / f"{name}.aside")
    for number in range(found, target):
        steps[number](home)
        replace_file(home.format_mark, json.dumps({"format": number + 1}) + "\n")
    return name
