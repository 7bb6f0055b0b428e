"""Asking the daemon: one command file, one answer."""

import getpass
import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import click

from cli.options import show_json
from core.commands import EXPIRES_S, Answer, Command, CommandKind
from core.errors import LoradError, RefusedError, StateError
from store.commands import put_command, read_answer
from store.locks import is_locked
from store.paths import Home

PATIENCE_S = 15.0


def require_daemon(home: Home) -> None:
    """Raises StateError when no daemon runs on this home."""
    if not is_locked(home.lock):
        raise StateError(f"no daemon runs on {str(home.root)!r}", hint="start `lorad daemon` with the same config", code="DAEMON_DOWN")


def ask(home: Home, kind: CommandKind, patience_s: float = PATIENCE_S, **fields: str | Mapping[str, str] | None) -> Answer:
    """Put a command and wait for its answer. Raises RefusedError when the answer is no, StateError without a daemon."""
    require_daemon(home)
    now = datetime.now(UTC)  # noqa: TID251 - a person acts now
    identity = f"command-{now:%Y%m%d-%H%M%S}-{now.microsecond // 1000:03d}-{secrets.token_hex(3)}"
    made: dict[str, object] = {"actor": getpass.getuser(), **fields}
    command = Command(id=identity, kind=kind, made_at=now, expires_at=now + timedelta(seconds=EXPIRES_S), **made)  # type: ignore[arg-type]
    path = put_command(home, command)
    deadline = time.monotonic() + patience_s
    while (answer := read_answer(path)) is None:
        if time.monotonic() > deadline:
            raise LoradError("the daemon has not answered", hint="`lorad status` shows whether it hangs", code="NO_ANSWER")
        time.sleep(0.05)
    path.unlink(missing_ok=True)
    if not answer.ok:
        raise RefusedError(answer.message, hint=answer.hint, code=answer.code)
    return answer


def say(answer: Answer, output: str) -> None:
    """Print what the daemon answered."""
    if output == "json":
        show_json({"ok": answer.ok, "message": answer.message, "made": answer.made})
    else:
        click.echo(answer.message)
