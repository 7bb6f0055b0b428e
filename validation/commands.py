"""Commands that a report tells people to type: `lorad fix`, taken apart and put together again."""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

Options = tuple[tuple[str, str], ...]
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
        """With the options that the person typed for the check, where the command does not name them itself."""
        named = {name for name, _ in self.options}
        return replace(self, options=self.options + tuple(option for option in typed if option[0] not in named))


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
