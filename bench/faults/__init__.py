"""The fault catalogue, one recipe a fault: `scripts/bench faults [--only F01,F05] [--format json]`.

A recipe is one decorated function in a module of this folder:

    @fault("F15", "disk full while training", guard="training waits under the floor of free space", without="disk_floor")
    def disk_full(trial: Trial) -> Outcome: ...

It does the fault to a home of its own under `trial.folder` and says whether the required behaviour held, with a figure.
It runs twice. The second time the guard is off, and it must not hold: a recipe that finds nothing wrong then is blind, and
counts as not held. The guard of a started process is taken away outside the product: `without` names a function in
`unguarded/guards.py`, which a process of `trial.circle` then does without. A recipe that works in this process looks at
`trial.guarded` itself. `CannotRun` says what this machine lacks: that fault is "not run", never held.

Exit status: 1 where a fault that ran did not hold, else 0.
"""

import importlib
import json
import logging
import pkgutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "system"))  # its homes and processes
sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "crash"))  # its crash points and power cuts

from circle import Circle
from loopdisk import CannotRun
from processes import lives

UNGUARDED = Path(__file__).with_name("unguarded")

__all__ = ["CannotRun", "Outcome", "Trial", "fault", "main", "run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a recipe found. `figure` is what the catalogue asks for, as plain JSON values."""

    held: bool
    figure: Any
    note: str = ""


@dataclass(slots=True, kw_only=True)
class Trial:
    """One run of a recipe."""

    folder: Path
    guarded: bool
    without: tuple[str, ...] = ()  # guards that processes do without in an unguarded run
    _circles: list[Circle] = field(default_factory=list)

    def circle(self, *, without: tuple[str, ...] = (), **config: Any) -> Circle:
        """A home with processes of its own, which end with the trial. `without`: guards taken away in the guarded run too."""
        made = Circle(self.folder / f"circle-{len(self._circles)}", **config)
        gone = without if self.guarded else (*without, *self.without)
        made.env["PYTHONPATH"] = f"{UNGUARDED}:{made.env['PYTHONPATH']}"
        made.env["LORAD_BENCH_WITHOUT"] = ",".join(gone)
        self._circles.append(made)
        return made

    def end(self) -> None:
        """End every process that the recipe has started; and what outlives it because a guard is gone, or because it is not
        the daemon but a program that holds the daemon (`circle.prefix`)."""
        for circle in self._circles:
            is_loose = "tether" in circle.env["LORAD_BENCH_WITHOUT"] or circle.prefix
            for process in circle._started:
                process.kill()
                for child in process.children if is_loose else ():
                    if lives(child):
                        child.kill()
            circle.end()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault of the catalogue with its recipe."""

    id: str
    what: str
    guard: str
    without: tuple[str, ...]
    recipe: Callable[[Trial], Outcome]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A line of the table. `state`: held, failed, not run."""

    id: str
    what: str
    state: str
    figure: Any
    note: str
    seconds: float

    def plain(self) -> dict[str, Any]:
        """As JSON shows it; of a fault that could not run the note says `not run: …`."""
        return {"held": self.state == "held", "figure": self.figure, "note": self.note}


FAULTS: dict[str, Fault] = {}


def fault(id: str, what: str, *, guard: str, without: str | tuple[str, ...] = ()) -> Callable[[Callable[[Trial], Outcome]], Callable[[Trial], Outcome]]:
    """Put a recipe into the table. `guard`: in words, what keeps the fault from doing harm."""

    def put(recipe: Callable[[Trial], Outcome]) -> Callable[[Trial], Outcome]:
        assert id not in FAULTS, f"{id} has a recipe already"
        names = (without,) if isinstance(without, str) else without
        FAULTS[id] = Fault(id=id, what=what, guard=guard, without=names, recipe=recipe)
        return recipe

    return put


def table() -> dict[str, Fault]:
    """Every fault that has a recipe, by id."""
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if not module.ispkg:
            importlib.import_module(f"{__name__}.{module.name}")
    return dict(sorted(FAULTS.items()))


def run(one: Fault) -> Result:
    """The fault with its guard, then without."""
    started = time.monotonic()
    try:
        outcome = _try(one, guarded=True)
        state, note = ("held" if outcome.held else "failed"), outcome.note
        if outcome.held and (blind := _bites(one)):
            state, note = "failed", blind
        figure = outcome.figure
    except CannotRun as lack:
        state, figure, note = "not run", None, f"not run: {lack}"
    except Exception as error:  # the harness is a border: the next fault has its turn
        traceback.print_exc()
        state, figure, note = "failed", None, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return Result(id=one.id, what=one.what, state=state, figure=figure, note=note, seconds=time.monotonic() - started)


def _bites(one: Fault) -> str:
    """Empty where the recipe fails without the guard, as it must; else why it proves nothing."""
    unguarded = _try(one, guarded=False)
    return f"holds without its guard too ({one.guard}): the recipe proves nothing; figure {unguarded.figure}" if unguarded.held else ""


def _try(one: Fault, *, guarded: bool) -> Outcome:
    with tempfile.TemporaryDirectory(prefix=f"{one.id}-") as name:
        trial = Trial(folder=Path(name), guarded=guarded, without=one.without)
        try:
            return one.recipe(trial)
        except AssertionError as error:
            if guarded:
                raise
            return Outcome(held=False, figure=None, note=str(error))
        finally:
            trial.end()


def main(only: str, form: str, faults: dict[str, Fault] | None = None) -> int:
    """Run the faults named in `only` (all where it is empty) and print what held. Returns the exit status."""
    faults = table() if faults is None else faults
    names = [name.strip() for name in only.split(",") if name.strip()] or list(faults)
    if unknown := [name for name in names if name not in faults]:
        print(f"no recipe for {', '.join(unknown)}; there is one for {', '.join(faults)}", file=sys.stderr)
        return 2
    results = []
    logging.disable(logging.CRITICAL)  # of recipes in this process
    try:
        for name in names:
            results.append(run(faults[name]))
            print(f"{name} {results[-1].state} after {results[-1].seconds:.0f} s", file=sys.stderr, flush=True)
    finally:
        logging.disable(logging.NOTSET)
    print(json.dumps({result.id: result.plain() for result in results}, indent=1) if form == "json" else "\n".join(_lines(results)))
    return 1 if any(result.state == "failed" for result in results) else 0


def _lines(results: Iterable[Result]) -> list[str]:
    rows = [("id", "what", "held", "figure", "note")]
    for result in results:
        held = {"held": "yes", "failed": "NO"}.get(result.state, result.state)
        figure = ", ".join(f"{key} {value}" for key, value in result.figure.items()) if isinstance(result.figure, dict) else str(result.figure)
        rows.append((result.id, result.what, held, figure, result.note))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, (*widths, 0), strict=True)).rstrip() for row in rows]
