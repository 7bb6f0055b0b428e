"""How children end, and what that means for the next attempt: hang, memory, blame. Pure.

The memory ladder: a child that ran out of memory is started again with half the rows in a forward pass (and half the
tokens), down to one row; the effective batch stays, the trainer only accumulates more. Out of memory is what the child
says itself (exit 20), or a kill by signal 9 that lorad did not send: so the kernel ends a process where memory is short.
"""

import signal

from core.config import Config
from core.exits import ChildExit
from core.facts import Facts
from core.records import Kind
from core.tasks import ChildSeen

LOAD_FACTOR = 2  # before the first step, while it loads, a child may be silent for so many times hang_s
SIGKILL = 9
LOGS_HINT = "`lorad jobs logs ID` shows the end of the log; `lorad jobs retry ID` tries again"
MEMORY_HINT = "lower max_length or lora.r, use a smaller base, or free memory; then `lorad jobs retry ID`"


# ---------------------------------------------------------------- hang


def silence_limit_s(child: ChildSeen, config: Config) -> float:
    """Silence, in seconds, that is taken for a hang: by its median step once it has made one, longer while it loads."""
    least, factor = (config.training.hang_s, config.training.hang_factor) if child.patience is None else child.patience
    median = child.median_step_s
    return LOAD_FACTOR * least if median is None else max(least, factor * median)


def hang(child: ChildSeen, config: Config) -> str:
    """The silence of a living child that hangs, in words; empty: it may go on."""
    limit_s = silence_limit_s(child, config)
    if not child.alive or child.silent_s <= limit_s:
        return ""
    steps = f"its median step takes {child.median_step_s:.1f} s" if child.median_step_s is not None else "before its first step"
    return f"no sign of life for {child.silent_s:.0f} s, {steps}, and {limit_s:.0f} s are taken for a hang"


# ---------------------------------------------------------------- ends


def code_of(child: ChildSeen) -> int | None:
    """What the child said by its end. A whole exit.json beats the exit status; None: it said nothing."""
    if child.note is not None:
        return child.note.code
    return child.status if child.status in tuple(ChildExit) else None


def was_killed(child: ChildSeen) -> bool:
    """Whether somebody else killed it: it said nothing, and this daemon sent no KILL."""
    return child.note is None and child.signal == SIGKILL and not child.killed and not _fell_with_its_parent(child)


def _fell_with_its_parent(child: ChildSeen) -> bool:
    """Whether the warm trainer was ended under it, by anything but want of memory."""
    return child.parent_lost and not child.memory_kill


def ran_out_of_memory(child: ChildSeen) -> bool:
    """Whether memory is the likely cause: it said so, or was killed as the kernel kills where memory is short."""
    return not child.hung and (code_of(child) == ChildExit.OUT_OF_MEMORY or was_killed(child))


def memory_is_proven(child: ChildSeen) -> bool:
    """Whether it said so itself, or the kernel counted such a kill while it ran."""
    return ran_out_of_memory(child) and (not was_killed(child) or child.memory_kill)


def lost_without_blame(child: ChildSeen, facts: Facts) -> bool:
    """Whether the child ended by our own stop or with an earlier daemon: then it is not an attempt."""
    if child.hung:
        return False
    if code_of(child) is not None:
        return code_of(child) == ChildExit.STOPPED
    return child.killed or child.ref.instance != facts.instance


def cause(child: ChildSeen) -> str:
    """Why a child ended, in one sentence."""
    kind = child.ref.kind.value
    if child.hung:
        return f"hung: {child.hung}"
    if was_killed(child):
        proof = "the kernel counts a kill for want of memory" if child.memory_kill else "the system does so where memory is short"
        return f"out of memory: the {kind} child was killed by signal 9, which lorad did not send; {proof}"
    if child.note is not None:
        return child.note.reason or f"the {kind} child ended with {child.note.code}"
    log = f"see runs/…/{child.ref.run}/log.txt"
    if _fell_with_its_parent(child):
        return f"the {kind} child ended with the warm trainer that had started it, which somebody killed; {log}"
    if child.signal:
        return f"the {kind} child was ended by {_name(child.signal)}; {log}"
    if child.status is not None:
        return f"the {kind} child ended with status {child.status}; {log}"
    return f"the {kind} child was killed or crashed; {log}"


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def hint_of(child: ChildSeen) -> str:
    """What to do about a child that failed for good."""
    if child.hung:
        stood = f"it stood in {' < '.join(child.stack)}; " if child.stack else ""
        return f"{stood}runs/…/{child.ref.run}/stack.txt has the whole stack; raise training.hang_s where its steps are that slow"
    if ran_out_of_memory(child):
        return MEMORY_HINT
    return (child.note.hint if child.note else "") or LOGS_HINT


def error_of(child: ChildSeen) -> str:
    """The stable code of the failure."""
    if child.hung:
        return "HUNG"
    if ran_out_of_memory(child):
        return "OUT_OF_MEMORY"
    return (child.note.error if child.note else "") or "CHILD_CRASHED"


# ---------------------------------------------------------------- the next attempt


def smaller_batch(child: ChildSeen, micro_batch: int | None, config: Config) -> int | None:
    """Rows of a forward pass of the next attempt. `micro_batch` is what the ladder had set for this one."""
    if not ran_out_of_memory(child) or child.ref.kind not in (Kind.TRAIN, Kind.SCORE):
        return micro_batch
    present = micro_batch or child.micro_batch or config.training.micro_batch or config.batch_size
    return max(1, present // 2)


def is_final(child: ChildSeen, attempts: int, micro_batch: int | None, config: Config) -> bool:
    """Whether no further attempt is made, after so many with this one.

    A proven want of memory goes down the ladder to its end, one row, whatever the count: every rung is another attempt.
    """
    if code_of(child) in (ChildExit.BAD_SPEC, ChildExit.BAD_DATA):
        return True
    if ran_out_of_memory(child) and micro_batch == 1:
        return True
    climbs = memory_is_proven(child) and child.ref.kind in (Kind.TRAIN, Kind.SCORE)
    return attempts >= config.training.max_attempts and not climbs


def steps_to_repeat(child: ChildSeen, checkpoint: str | None) -> int:
    """Steps that the child had made after its newest resume point (`NN-train/resume/step_000123`), as far as it told."""
    made = child.note.steps if child.note is not None else child.step
    name = (checkpoint or "").rpartition("step_")[2]
    return max(0, made - (int(name) if name.isdigit() else 0))
