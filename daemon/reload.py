"""Reads config.json again while the daemon runs. A bad file changes nothing; jobs that exist go on by what they froze."""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from core.commands import Answer, Command
from core.config import Config
from core.errors import LoradError
from daemon.index import Incident, Index
from daemon.links import Links
from daemon.notify import Notifier
from store.commands import put_answer
from store.config import Reread
from store.durable import replace_file
from store.journal import write_entry
from store.paths import Home

log = logging.getLogger(__name__)

SHOWN_KEYS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a reload came to."""

    ok: bool
    message: str
    hint: str = ""
    code: str = ""


@dataclass(slots=True, kw_only=True)
class Reloader:
    """Takes over what config.json says now, in the main loop between two ticks. `tell` is called with what came of it."""

    index: Index
    links: Links
    notifier: Notifier
    tell: Callable[..., None]
    _refused: str = ""  # the code of the refusal that is shown as the incident

    def reload(self, now: datetime) -> Outcome:
        """Read the file and go by it, or keep the old config and say why. Journal and status tell either."""
        self.notifier.reloading()
        try:
            reread = self.index.loader.reread()
            self.index.follow(reread.resolved)
        except LoradError as error:
            outcome = Outcome(ok=False, message=f"{error.what}; the config in force stays", hint=error.hint, code=error.code)
            self._note(now, "config.refused", code=error.code, reason=error.what)
            self.index.incident = Incident(now, error.code, outcome.message, f"{error.hint}; then `lorad reload`")
            self._refused = error.code
        else:
            self.index.loader.adopt(reread)
            write_in_force(self.index.home, reread.resolved.config)
            self.links.follow(reread.resolved.config.deploy.targets)
            if self.index.incident is not None and self.index.incident.code == self._refused:
                self.index.incident = None
            outcome = Outcome(ok=True, message=in_words(reread))
            self._note(now, "config.reloaded", changed=", ".join(reread.changed), waiting=", ".join(reread.waiting))
        self.notifier.ready(outcome.message)
        return outcome

    def answer(self, command: Command, now: datetime) -> None:
        """Carry out `lorad reload`."""
        outcome = self.reload(now)
        put_answer(self.index.home, Answer(command=command.id, ok=outcome.ok, message=outcome.message, hint=outcome.hint, code=outcome.code))

    def _note(self, now: datetime, action: str, **fields: str) -> None:
        write_entry(self.index.home.journal, now, action, **fields)
        self.tell(now, action, **fields)
        words = " ".join(f"{key}={value!r}" for key, value in fields.items() if value)
        log.info("%s %s", action, words, extra={"action": action})


def in_words(reread: Reread) -> str:
    """What a reload changed, and what waits for which restart."""
    if not reread.changed and not reread.waiting:
        return "nothing has changed"
    parts = []
    if reread.changed:
        left = len(reread.changed) - SHOWN_KEYS
        parts.append(f"changed: {', '.join(reread.changed[:SHOWN_KEYS])}{f' and {left} more' if left > 0 else ''}")
    for what in sorted({*reread.waiting.values()}):
        keys = ", ".join(key for key, needed in reread.waiting.items() if needed == what)
        parts.append(f"as before until a restart of {what}: {keys}")
    return "; ".join(parts)


def write_in_force(home: Home, config: Config) -> None:
    """Put down the config that the daemon goes by, for its links and for people."""
    replace_file(home.config_in_force, json.dumps(config.model_dump(mode="json"), indent=1) + "\n", durable=False)
