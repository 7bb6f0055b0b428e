"""Commands that a report tells people to type: `lorad fix`, taken apart and put together again."""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from validation.context import Surroundings

Options = tuple[tuple[str, str], ...]
_OF_ROWS = ("--schema", "--columns")
_LISTS = ("--ids", "--lines", "--columns")  # their values are joined by commas


@dataclass(frozen=True, slots=True, kw_only=True)
class FixCommand:
    """`lorad fix FILE -o OUT` with its options, each with its value, in order."""

    file: str
    out: str
    options: Options = ()

    def text(self) -> str:
        """As it is typed."""
        words = ["lorad", "fix", self.file, "-o", self.out]
        for name, value in self.options:
            words += [name, value]
        return shlex.join(words)

    def completed(self, typed: Options) -> "FixCommand":
        """With the options of the check, where the command does not name them itself; what the rows are comes first."""
        own = {name for name, _ in self.options}
        every = (*self.options, *(option for option in typed if option[0] not in own))
        first = [option for name in _OF_ROWS for option in every if option[0] == name]
        return replace(self, options=(*first, *(option for option in every if option[0] not in _OF_ROWS)))

    @property
    def is_dropping(self) -> bool:
        """Whether rows are left out by it, for what was found in them."""
        return ("--repair", "drop") in self.options

    def without_drop(self) -> "FixCommand | None":
        """The same without that; None where nothing else was asked for."""
        left = tuple(option for option in self.options if option != ("--repair", "drop") and option[0] not in ("--ids", "--lines"))
        return replace(self, options=left) if any(name == "--repair" for name, _ in left) else None


def named(schema: str, columns: Iterable[str] = (), around: "Surroundings | None" = None) -> Options:
    """The options that say how a file is to be checked again as it was checked. `around`: what was named besides, if it matters."""
    found = [("--schema", schema)]
    if joined := ",".join(columns):
        found.append(("--columns", joined))
    if around is not None:
        found += [("--max-length", str(around.max_length))] if around.max_length else []
        found += [("--model", around.base)] if around.base else []
        found += [("--reference", file) for file in around.references]
        found += [("--train", around.train)] if around.train else []
    return tuple(found)


def told(text: str, options: Options) -> str:
    """A command of lorad's own with the options that it does not name itself; any other as it is."""
    try:
        words = shlex.split(text)
    except ValueError:
        return text
    if words[:2] == ["lorad", "fix"]:
        command = parse(text)
        return command.completed(options).text() if command else text
    if words[:2] != ["lorad", "check"]:
        return text
    known = {word for word in words if word.startswith("--")}
    schema = words[words.index("--schema") + 1] if "--schema" in words[:-1] else ""
    for name, value in options:
        if name not in known and (value := _without_own_keys(name, value, schema)):
            words += [name, value]
    return shlex.join(words)


def _without_own_keys(name: str, value: str, schema: str) -> str:
    """Columns of one schema may be keys of another."""
    from rendering.specs import SPECS

    if name != "--columns" or schema not in SPECS:
        return value
    return ",".join(column for column in value.split(",") if column not in SPECS[schema].keys)


def quoted(file: str) -> str:
    """A file as a word of a command; one that begins with a dash is no option."""
    return shlex.quote(f"./{file}" if file.startswith("-") else file)


def parse(text: str) -> FixCommand | None:
    """The command in this text; None where it is another one."""
    try:
        words = shlex.split(text)
    except ValueError:
        return None
    if words[:2] != ["lorad", "fix"] or len(words) < 5 or words[3] != "-o" or len(words) % 2 == 0:
        return None
    rest = words[5:]
    options = tuple(zip(rest[::2], rest[1::2], strict=True))
    return FixCommand(file=words[2], out=words[4], options=options) if all(name.startswith("--") for name, _ in options) else None


def merged(commands: Sequence[FixCommand]) -> FixCommand:
    """One command that does what all of them do; the first names file and output."""
    options: list[tuple[str, str]] = []
    for command in commands:
        for name, value in command.options:
            _add(options, name, value)
    return replace(commands[0], options=tuple(options))


def _add(options: list[tuple[str, str]], name: str, value: str) -> None:
    for place, (known, before) in enumerate(options):
        if known == name and name in _LISTS:
            options[place] = (name, ",".join(dict.fromkeys((*before.split(","), *value.split(",")))))
            return
    if (name, value) not in options and not (name == "--schema" and any(known == name for known, _ in options)):
        options.append((name, value))


def dropping(file: str, out: str, ids: Iterable[str]) -> FixCommand:
    """The command that leaves out the rows with findings of these ids."""
    file = f"./{file}" if file.startswith("-") else file
    return FixCommand(file=file, out=out, options=(("--repair", "drop"), ("--ids", ",".join(dict.fromkeys(ids)))))
