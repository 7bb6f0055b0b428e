"""`paused.json`: the pause of the whole queue. The daemon writes it; a restart finds it."""

from datetime import UTC, datetime

from core.errors import IntegrityError
from core.queue import QueuePause
from store.codec import read, write
from store.durable import sync_dir
from store.paths import Home


def read_pause(home: Home) -> QueuePause | None:
    """The pause, or None. A damaged file counts as one: whoever paused must not find a trainer at work."""
    try:
        return read(QueuePause, home.paused)
    except FileNotFoundError:
        return None
    except IntegrityError:
        at = datetime.fromtimestamp(home.paused.stat().st_mtime, UTC)
        return QueuePause(at=at, reason=f"{home.paused} is damaged; `lorad jobs resume` takes it away")


def write_pause(home: Home, pause: QueuePause) -> None:
    """Pause durably."""
    write(home.paused, pause)


def clear_pause(home: Home) -> None:
    """Take the pause away durably. A repeat changes nothing."""
    home.paused.unlink(missing_ok=True)
    sync_dir(home.root)
