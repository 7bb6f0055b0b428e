"""A drop is a folder: settling, gating, accepted, or rejected (in the inbox, for the person to see).

claim.json       which inbox entry it took; durable before the first rename
file, sidecar    the entry as it was dropped: `original` (of a drop with pictures a folder) and `original.job.json`
<state>.json     the facts of its state; settling and gating have none unless something went wrong
rows/            once accepted: the bytes (compressed), index.jsonl, report, what was put aside; sealed
"""

import contextlib
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.errors import ConfigError, IntegrityError
from core.gate import ROWS_FOLDER as ROWS
from core.jsonc import loads
from core.records import Accepted, Claim, Drop, DropState, Gating, Settling
from store.codec import dump, put, read, read_if_whole, write
from store.durable import move, replace_file, sync_dir
from store.paths import Home
from store.recall import changed_ns, names_in, recall_drops
from store.seals import SEAL, is_sealed
from store.together import inside, made_together, sync_together

CLAIM = "claim.json"
ORIGINAL = "original"
SIDECAR = "original.job.json"
MAX_SIDECAR_BYTES = 1 << 20  # of a batch of feedback it names every signal

_FACTS: dict[DropState, type[Settling | Gating | Accepted]] = {
    DropState.SETTLING: Settling,
    DropState.GATING: Gating,
    DropState.ACCEPTED: Accepted,
}


def drop_folder(home: Home, drop: Drop) -> Path:
    """Where the drop lies in its present state."""
    return home.drop(drop.state, drop.id)


def begin_claim(home: Home, claim: Claim, facts: Settling) -> Drop:
    """Make one claim durable. `facts` that say more than the claim itself are written beside it."""
    (drop,) = begin_claims(home, [claim])
    if facts != drop.facts:
        drop = replace(drop, facts=facts)
        mark_drops(home, [drop])
    return drop


def begin_claims(home: Home, claims: Sequence[Claim]) -> list[Drop]:
    """Make claims durable together; nothing in the inbox has moved yet."""
    with made_together([home.drop(DropState.SETTLING, claim.drop) for claim in claims], home.tmp) as folders:
        for claim, folder in zip(claims, folders, strict=True):
            put(folder / CLAIM, claim)
    return [Drop(claim=claim, state=DropState.SETTLING, facts=Settling(since=claim.claimed_at)) for claim in claims]


def finish_claim(home: Home, drop: Drop) -> None:
    """Finish one claim."""
    finish_claims(home, [drop])


def finish_claims(home: Home, drops: Sequence[Drop]) -> None:
    """Rename sidecars and files out of the inbox, as far as that has not happened yet. A file's own rename is the last of its claim.

    A power cut may take a rename back; then the claim is found open and is finished again.
    """
    for drop in drops:
        folder, claim = drop_folder(home, drop), drop.claim
        if claim.sidecar is not None:
            _rename_if_there(home.inbox / claim.sidecar, folder / SIDECAR)
        _rename_if_there(home.inbox / claim.source, folder / ORIGINAL)
    parents = dict.fromkeys((home.inbox / drop.claim.source).parent for drop in drops)
    sync_together((), (parent for parent in parents if parent.exists()))


def _rename_if_there(source: Path, destination: Path) -> None:
    try:
        os.rename(source, destination)
    except FileNotFoundError:
        return


def is_at_source(home: Home, claim: Claim) -> bool:
    """Whether the claimed entry still lies in the inbox (the same inode, not a namesake)."""
    try:
        found = (home.inbox / claim.source).lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return (found.st_dev, found.st_ino) == (claim.device, claim.inode)


def is_unchanged(home: Home, drop: Drop) -> bool:
    """Whether the file (or folder) still has the size, mtime and inode of the claim."""
    try:
        found = (drop_folder(home, drop) / ORIGINAL).lstat()
    except FileNotFoundError:
        return False
    return (found.st_size, found.st_mtime_ns, found.st_ino) == (drop.claim.size_bytes, drop.claim.mtime_ns, drop.claim.inode)


def forget_claim(home: Home, drop: Drop) -> None:
    """Remove a claim whose file is gone; a sidecar that was taken already goes back beside where the file lay."""
    folder = drop_folder(home, drop)
    assert not os.path.lexists(folder / ORIGINAL), "a claim that holds a file is never forgotten"
    if drop.claim.sidecar is not None and not os.path.lexists(home.inbox / drop.claim.sidecar):
        _rename_if_there(folder / SIDECAR, home.inbox / drop.claim.sidecar)
    shutil.rmtree(folder)
    sync_dir(folder.parent)


def move_drop(home: Home, before: Drop, after: Drop) -> None:
    """Make a change of state or of facts durable."""
    source = drop_folder(home, before)
    if after.claim != before.claim:
        write(source / CLAIM, after.claim)
    write(source / f"{after.state.value}.json", after.facts)
    if after.state is not before.state:
        move(source, drop_folder(home, after))


def to_gate(home: Home, before: Drop, after: Drop) -> None:
    """Move a drop to gating. What a power cut takes back is done again, so that only a count of crashes is made durable."""
    assert isinstance(after.facts, Gating)
    if after.facts.crashes:
        move_drop(home, before, after)
    elif before.state is not after.state:
        folder = drop_folder(home, before)
        (folder / "gating.json").unlink(missing_ok=True)  # of an earlier time at the gate
        os.rename(folder, drop_folder(home, after))


def accept_drops(home: Home, moves: Sequence[tuple[Drop, Drop, Path]], moved: Callable[[Drop], None]) -> None:
    """Make acceptances durable together, in order: (drop at the gate, the same accepted, the gate's sealed result).

    Args: moved: told of each drop whose rename is done, so that after an error nobody looks for it where it was.
    """
    for before, after, checked in moves:
        place_rows(home, before, checked)
        write(drop_folder(home, before) / "accepted.json", after.facts, durable=False)
    trees = [inside(drop_folder(home, before) / ROWS) for before, _, _ in moves]
    folders = [drop_folder(home, before) for before, _, _ in moves]
    files = [path for rows, _ in trees for path in rows]
    sync_together((*files, *(folder / "accepted.json" for folder in folders)), (*(path for _, rows in trees for path in rows), *folders))
    for before, after, _ in moves:
        os.rename(drop_folder(home, before), drop_folder(home, after))
        moved(after)
    sync_together((), (home.root / "drops" / state for state in (DropState.ACCEPTED, DropState.GATING)))


def mark_drops(home: Home, drops: Sequence[Drop]) -> None:
    """Replace facts within the state together. A power cut leaves each as it was or as it is now: for marks that a repeat makes again."""
    places = [drop_folder(home, drop) / f"{drop.state.value}.json" for drop in drops]
    aside = [place.with_name(f".{place.name}.new.part") for place in places]
    try:
        for drop, path in zip(drops, aside, strict=True):
            path.write_text(dump(drop.facts, indent=1) + "\n")
        sync_together(aside)
        for path, place in zip(aside, places, strict=True):
            os.replace(path, place)
    finally:
        for path in aside:
            path.unlink(missing_ok=True)


def reject_drop(home: Home, drop: Drop, reports: dict[str, str]) -> Path:
    """Move the drop into inbox/rejected under the name that the person gave it, with its reports. Returns the folder.

    `reports` maps file names to content; they are written before the rename, so that a rejected drop always has them.
    """
    folder = drop_folder(home, drop)
    if os.path.lexists(folder / ORIGINAL):  # never the only copy
        shutil.rmtree(folder / ROWS, ignore_errors=True)
    for name, content in reports.items():
        replace_file(folder / name, content)
    for kept, name in _names(drop.claim):
        if (folder / kept).is_file() and not os.path.lexists(folder / name):
            os.link(folder / kept, folder / name, follow_symlinks=False)  # under both names until the folder has moved
    destination = home.drop(DropState.REJECTED, drop.id)
    named = _name_folder(folder, drop.claim)
    try:
        move(folder, destination)  # this rename decides; what follows only takes the file's second name away
    except OSError:
        if named:
            os.rename(folder / drop.claim.file, folder / ORIGINAL)
        raise
    with contextlib.suppress(OSError):  # it is rejected, whatever the disk says now; `finish_rejections` ends it at the next start
        name_as_dropped(destination, drop.claim)
    return destination


def _name_folder(folder: Path, claim: Claim) -> bool:
    """Give a dropped folder its own name, before anybody sees it rejected: unlike a file it cannot have two. After a crash
    `finish_rejections` takes that back."""
    original = folder / ORIGINAL
    if not os.path.lexists(original) or not stat.S_ISDIR(original.lstat().st_mode) or os.path.lexists(folder / claim.file):
        return False
    os.rename(original, folder / claim.file)
    return True


def name_as_dropped(folder: Path, claim: Claim) -> None:
    """Give file and sidecar of a rejected drop the names they came with. A repeat changes nothing."""
    for kept, name in _names(claim):
        if not os.path.lexists(folder / kept):
            continue
        if not os.path.lexists(folder / name):
            os.rename(folder / kept, folder / name)
        elif os.path.samestat((folder / kept).lstat(), (folder / name).lstat()):
            (folder / kept).unlink()


def _names(claim: Claim) -> tuple[tuple[str, str], ...]:
    return (ORIGINAL, claim.file), (SIDECAR, sidecar_name(claim.file))


def finish_rejections(home: Home) -> None:
    """Finish what a crash in `reject_drop` left after the rename that decides, or undo what came before it."""
    for state in _FACTS:
        for folder in (home.root / "drops" / state).iterdir():
            inside = {entry.name for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)} - {ROWS, ORIGINAL}
            if not inside or os.path.lexists(folder / ORIGINAL):
                continue
            claim = read_if_whole(Claim, folder / CLAIM)
            if claim is not None and claim.file in inside:
                os.rename(folder / claim.file, folder / ORIGINAL)
    for path in home.rejected.glob(f"*/{ORIGINAL}*"):
        claim = read_if_whole(Claim, path.parent / CLAIM)
        if claim is not None:
            name_as_dropped(path.parent, claim)


def place_rows(home: Home, drop: Drop, checked: Path) -> None:
    """Rename the gate's sealed result into the drop's folder, whose sync makes it durable; a left-over of a broken-off
    acceptance is replaced."""
    destination = drop_folder(home, drop) / ROWS
    if not checked.exists() and is_sealed(destination):
        return  # placed before, when the step after this one failed
    shutil.rmtree(destination, ignore_errors=True)
    os.rename(checked, destination)


def take_over(home: Home, drop: Drop, checked: Path) -> None:
    """Let the gate's later result (reports, signatures, a shorter index) take the place of its namesakes among the rows.

    The seal is written last and names what lies there then. A crash leaves some of the files of either result; a repeat
    after it, with the same result or another one, ends the same way.
    """
    rows = drop_folder(home, drop) / ROWS
    sealed = _seal_lines(rows)
    for name, digest in _seal_lines(checked).items():
        aside = rows / f".{name}.part"
        aside.unlink(missing_ok=True)
        os.link(checked / name, aside)
        os.replace(aside, rows / name)
        aside.unlink(missing_ok=True)  # a rename onto another name of the same bytes does nothing
        sealed[name] = digest
    sync_dir(rows)
    replace_file(rows / SEAL, "".join(f"{digest}  {name}\n" for name, digest in sorted(sealed.items())))


def _seal_lines(folder: Path) -> dict[str, str]:
    """File name -> SHA-256, as the seal says."""
    lines = (line.partition("  ") for line in (folder / SEAL).read_text().splitlines())
    return {name: digest for digest, _, name in lines}


def keep_reports(home: Home, drop: Drop, reports: dict[str, str]) -> None:
    """Write reports (file name -> content) beside an accepted drop that will be rejected after all."""
    for name, content in reports.items():
        replace_file(drop_folder(home, drop) / name, content)


def discard_original(home: Home, drop: Drop) -> None:
    """Delete what was dropped once its compressed copy is accepted and its job exists."""
    original = drop_folder(home, drop) / ORIGINAL
    if not os.path.lexists(original) or not (drop_folder(home, drop) / ROWS).is_dir():
        return
    if stat.S_ISDIR(original.lstat().st_mode):
        shutil.rmtree(original)
    else:
        original.unlink()


def finish_discards(home: Home) -> None:
    """Delete what was dropped where a crash came between the mark that it is needed no more and its deletion."""
    for folder in accepted_root(home).iterdir():
        if not os.path.lexists(folder / ORIGINAL):
            continue
        claim, facts = read_if_whole(Claim, folder / CLAIM), read_if_whole(Accepted, folder / "accepted.json")
        if claim is not None and facts is not None and facts.job_made and facts.is_proven:
            discard_original(home, Drop(claim=claim, state=DropState.ACCEPTED, facts=facts))


def accepted_root(home: Home) -> Path:
    """The folder with a folder of each accepted drop."""
    return home.root / "drops" / DropState.ACCEPTED


def rows_folder(home: Home, drop: str) -> Path:
    """Where the rows of an accepted drop lie."""
    return home.drop(DropState.ACCEPTED, drop) / ROWS


def sidecar_name(name: str) -> str:
    """`x.job.json` of `x.jsonl` or `x.drop`."""
    return name.removesuffix(".jsonl").removesuffix(".drop") + ".job.json"


def read_sidecar(folder: Path) -> dict[str, Any]:
    """The drop's sidecar, empty where there is none; that of a folder may lie in it.

    Raises ConfigError when it is not a small file with a JSON object, or when there are two.
    """
    found = [path for path in (folder / SIDECAR, *_inner_sidecars(folder / ORIGINAL)) if os.path.lexists(path)]
    if not found:
        return {}
    if len(found) > 1:
        raise ConfigError(f"the drop has {len(found)} sidecars", hint="keep the one beside the folder, or one .job.json in it", code="SIDECAR_SYNTAX")
    try:
        raw = _read_small(found[0])
        tree = loads(raw.decode())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"the sidecar is not JSON: {error}", hint="write {} or leave the sidecar out", code="SIDECAR_SYNTAX") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"the sidecar holds a {type(tree).__name__}, not an object", hint='start it with "{"', code="SIDECAR_SYNTAX")
    return tree


def _inner_sidecars(original: Path) -> list[Path]:
    if original.is_symlink() or not original.is_dir():
        return []
    with os.scandir(original) as entries:
        return [Path(entry.path) for entry in entries if entry.name.endswith(".job.json")]


def _read_small(path: Path) -> bytes:
    """The bytes of a small regular file: links are not followed, a FIFO is not waited for. Raises OSError, ValueError."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ValueError("it is no regular file")
        raw = b""
        while len(raw) <= MAX_SIDECAR_BYTES and (part := os.read(fd, MAX_SIDECAR_BYTES + 1)):
            raw += part
    finally:
        os.close(fd)
    if len(raw) > MAX_SIDECAR_BYTES:
        raise ValueError(f"it has more than {MAX_SIDECAR_BYTES:,} bytes")
    return raw


def read_drops(home: Home) -> Iterator[Drop]:
    """Every drop on its way or accepted. A folder whose records are not whole is left out and left alone."""
    return (drop for _, _, drop in drops_with_marks(home))


def drops_with_marks(home: Home) -> Iterator[tuple[str, int, Drop]]:
    """(folder under drops/, its time of change before it was read, the drop). See `store.recall`."""
    known, root = recall_drops(home), home.root / "drops"
    for state in _FACTS:
        for name in names_in(root / state):
            key = f"{state.value}/{name}"
            mark, remembered = changed_ns(f"{root}/{key}"), known.get(key)
            if remembered is not None and remembered[0] == mark:
                yield key, mark, remembered[1]
                continue
            try:
                claim = read(Claim, root / key / CLAIM)
                yield key, mark, Drop(claim=claim, state=state, facts=_facts_in(root / key, state, claim))
            except (FileNotFoundError, NotADirectoryError, IntegrityError):
                continue


def _facts_in(folder: Path, state: DropState, claim: Claim) -> Settling | Gating | Accepted:
    """The facts of a state. The first two states say nothing that the claim does not say, unless something went wrong."""
    try:
        return read(_FACTS[state], folder / f"{state.value}.json")
    except FileNotFoundError:
        if state is DropState.SETTLING:
            return Settling(since=claim.claimed_at)
        if state is DropState.GATING:
            return Gating(since=claim.claimed_at)
        raise


def read_report(folder: Path) -> dict[str, Any] | None:
    """A report.json, or None where there is none."""
    try:
        report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    except (OSError, ValueError):
        return None
    return report
