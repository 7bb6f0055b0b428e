"""Every error that lorad raises on purpose.

    LoradError                     what happened, what to do next, a stable code, the exit status of a command
    ├── UsageError                 exit 3: the words or the config of the caller are wrong
    │   └── ConfigError            a key or value of config.json or of a sidecar
    ├── RefusedError               exit 2: a verdict of no (file refused, job refused)
    ├── StateError                 the home is not in a state that allows this
    │   ├── IllegalTransition      an event that the job's or drop's state does not accept
    │   └── LockHeldError          exit 75: another process holds the lock
    ├── BaseMissingError           the base model is not in models_dir
    ├── IntegrityError             bytes are not what their seal, manifest or signature says
    └── ChildError                 raised inside a child; carries the exit code of the protocol

To add one: subclass the nearest class, say in one sentence when it is raised, give `hint` and `code` at the raise.
"""

from core.exits import ChildExit


class LoradError(Exception):
    """A failure that a person can act on.

    Args: what: one sentence with the offending value in `!r` and the path. hint: what to do next.
    code: stable, UPPER_SNAKE, for API and scripts.
    """

    exit_status = 1

    def __init__(self, what: str, *, hint: str, code: str) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint
        self.code = code

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.hint, self.code)


def _rebuild(kind: type[LoradError], what: str, hint: str, code: str) -> LoradError:
    return kind(what, hint=hint, code=code)


class UsageError(LoradError):
    """The command line is wrong."""

    exit_status = 3


class ConfigError(UsageError):
    """A key or value of a config file or sidecar is wrong."""


class RefusedError(LoradError):
    """The answer is no: the file or the job was refused."""

    exit_status = 2


class StateError(LoradError):
    """The home, or a record in it, is not in a state that allows this."""


class IllegalTransition(StateError):
    """The event is not accepted in this state; nothing was changed."""


class LockHeldError(StateError):
    """Another process holds the lock."""

    exit_status = 75


class BaseMissingError(LoradError):
    """The base model is not sealed in models_dir."""


class IntegrityError(LoradError):
    """Bytes on disk are not those that the seal, manifest or signature names."""


class ChildError(LoradError):
    """Ends a child with a code of the exit protocol."""

    def __init__(self, what: str, *, hint: str, code: str, exit_code: ChildExit) -> None:
        super().__init__(what, hint=hint, code=code)
        self.exit_code = exit_code

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_child, (self.what, self.hint, self.code, self.exit_code)


def _rebuild_child(what: str, hint: str, code: str, exit_code: ChildExit) -> ChildError:
    return ChildError(what, hint=hint, code=code, exit_code=exit_code)
