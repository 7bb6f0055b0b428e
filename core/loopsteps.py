"""What the daemon may do about the loop: signals, triggers, skills, iterations. Steps like those of `core.steps`, which names them all."""

from dataclasses import dataclass

from core.commands import Command
from core.iterations import Iteration


@dataclass(frozen=True, slots=True, kw_only=True)
class SetLevel:
    """Let a skill go on at the level of the command (details skill, level), then answer."""

    command: Command


@dataclass(frozen=True, slots=True, kw_only=True)
class HearFeedback:
    """Carry out what a person asks about signals (details.what of the command), then answer; at once or once its chore has ended."""

    command: Command


@dataclass(frozen=True, slots=True, kw_only=True)
class FireTrigger:
    """Make a drop of all that is pending for the adapter of the command (details name: the trigger), then answer."""

    command: Command


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordIteration:
    """Make an iteration durable as it stands now."""

    iteration: Iteration


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkIteration:
    """Let a chore measure the training, the verdict and the weights of an iteration's job."""

    iteration: str
    job: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetContinuous:
    """Let the loop of an adapter run by itself, or stop it (details what: start, stop), then answer."""

    command: Command


LoopStep = SetLevel | HearFeedback | FireTrigger | RecordIteration | WorkIteration | SetContinuous
