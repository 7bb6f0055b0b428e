"""commands/: wishes of people, one file each; the daemon consumes them and answers beside.

A wish that takes longer than a tick is moved to `.begun/` until it is answered: it is neither late any more nor asked again, and a
daemon that starts goes on with it.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from core.commands import Answer, Command
from store.codec import read_if_whole, write
from store.durable import move
from store.paths import Home

ANSWER = ".answer.json"
BEGUN = ".begun"


def put_command(home: Home, command: Command) -> Path:
    """Write a wish for the daemon. Returns where its answer will appear."""
    write(home.commands / f"{command.id}.json", command)
    return home.commands / f"{command.id}{ANSWER}"


def read_commands(home: Home) -> Iterator[Command]:
    """The waiting wishes in the order of their ids. What is no command, or may not be read, is moved aside as `.bad`."""
    for path in sorted(home.commands.glob("*.json")):
        if path.name.endswith(ANSWER) or path.name.startswith("."):
            continue
        try:
            command = read_if_whole(Command, path)
        except OSError:  # of somebody whose files the daemon may not read; a folder
            command = None
        if command is not None:
            yield command
            continue
        with suppress(OSError):  # fetched in between, or not ours to move: the next look tries again
            path.rename(path.with_suffix(".bad"))


def begin_command(home: Home, command: Command) -> None:
    """Take the wish out of those that wait, until it is answered. Durable; a repeat changes nothing. Raises OSError."""
    waiting, begun = home.commands / f"{command.id}.json", home.commands / BEGUN / f"{command.id}.json"
    if begun.exists():
        waiting.unlink(missing_ok=True)
    elif waiting.exists():
        move(waiting, begun)
    else:  # whoever asked took it back meanwhile: it is begun all the same
        begun.parent.mkdir(exist_ok=True)
        write(begun, command)


def begun_commands(home: Home) -> list[Command]:
    """The wishes that were begun and have no answer yet, oldest first. For a start: those that were answered are consumed."""
    found = []
    for path in sorted((home.commands / BEGUN).glob("*.json")):
        if (home.commands / f"{path.stem}{ANSWER}").exists():
            path.unlink(missing_ok=True)
        elif not path.name.startswith(".") and (command := read_if_whole(Command, path)) is not None:
            found.append(command)
    return found


def put_answer(home: Home, answer: Answer) -> None:
    """Answer durably, then consume the wish: a repeat after a crash answers again and changes nothing."""
    write(home.commands / f"{answer.command}{ANSWER}", answer)
    for folder in (home.commands, home.commands / BEGUN):
        (folder / f"{answer.command}.json").unlink(missing_ok=True)


def read_answer(path: Path) -> Answer | None:
    """The answer, once it is there."""
    return read_if_whole(Answer, path)


def sweep_answers(home: Home, older_than_s: float, now_s: float) -> None:
    """Delete answers that nobody fetched."""
    for path in home.commands.glob(f"*{ANSWER}"):
        with suppress(FileNotFoundError):  # fetched in between
            if now_s - path.stat().st_mtime > older_than_s:
                path.unlink()
