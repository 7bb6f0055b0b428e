"""The base model: there, sealed, and of the bytes that were sealed."""

import os
import time
from pathlib import Path

from cli.checkups.registry import Findings, Visit, check, note, ok, problem

HASHED_AT_ONCE = 1 << 30  # bytes; more is hashed only with --full: the doctor is to answer at once
AGAIN = "move {} away and run `lorad models pull`"


@check("config")
def backend(visit: Visit) -> Findings:
    """Which trainer is chosen, why, and whether it can do what the config asks for."""
    from core.abilities import unfit_keys
    from store.engines import choose_backend

    assert visit.config is not None
    chosen = choose_backend(visit.config)
    unfit = list(unfit_keys(visit.config, chosen.name))
    for one in unfit:
        yield problem("BACKEND_UNABLE", one.words, f"change {one.key}, or name another backend")
    if not unfit and chosen.name != "stub":
        yield ok("BACKEND", f"{chosen.name} trains: {chosen.why}")


@check("config")
def base(visit: Visit) -> Findings:
    """The config's base in models_dir."""
    from core.needs import gigabytes
    from store.bases import base_folder, is_hub_id, models_dir, read_base, weights_folder
    from store.engines import choose_backend
    from store.seals import is_sealed

    assert visit.config is not None
    backend = choose_backend(visit.config)
    if backend.name == "stub":
        yield note("BACKEND_STUB", f"the stub backend trains nothing: {backend.why}", "" if visit.config.backend == "stub" else "pip install 'lorad[cpu]'")
        return
    folder, given = base_folder(visit.config), visit.config.model_path
    if given and not is_hub_id(given) and not Path(given).is_dir() and not is_sealed(folder):
        yield problem("MODEL_PATH_MISSING", f"model_path names {given!r}, which is no folder here", "correct the path, then `lorad models pull`")
        return
    if not folder.is_dir():
        yield problem("BASE_MISSING", f"the base model {folder.name!r} is not in {models_dir(visit.config)}", "`lorad models pull` (it needs the network once)")
        return
    if not is_sealed(folder):
        yield problem("BASE_UNSEALED", f"{folder} was never finished", AGAIN.format(folder))
        return
    if not os.access(folder, os.R_OK | os.X_OK):
        yield problem("BASE_UNREADABLE", f"{folder} may not be read by this user", "give models_dir to lorad's user, or make it readable")
        return
    weights = weights_folder(folder)
    if not any(weights.glob("*.safetensors")):
        todo = "put them back, or name their new place with model_path and pull again"
        yield problem("BASE_MOVED", f"the base's weights are not in {weights} any more", todo)
        return
    damage, read, left = _compare(folder, None if visit.full else HASHED_AT_ONCE)
    if damage:
        yield problem("BASE_DAMAGED", damage, AGAIN.format(folder))
        return
    known = read_base(folder)
    what = f"{known.name} ({known.licence or 'licence not told'}) in {folder}, {gigabytes(read)} as sealed"
    yield note("BASE_PARTLY", f"{what}; {gigabytes(left)} were not read", "`lorad doctor --full` reads every byte") if left else ok("BASE", what)


def _compare(folder: Path, most_bytes: int | None) -> tuple[str, int, int]:
    """(what differs from the seal, bytes read, bytes left out). Small files first."""
    from store.seals import SEAL, hash_file

    wanted = {name: digest for digest, _, name in (line.partition("  ") for line in (folder / SEAL).read_text().splitlines())}
    missing = [name for name in wanted if not (folder / name).is_file()]
    if missing:
        return f"{folder / missing[0]} is missing", 0, 0
    sizes = {name: (folder / name).stat().st_size for name in wanted}
    read = left = 0
    began = time.monotonic()
    for name in sorted(wanted, key=lambda name: sizes[name]):
        # A slow disk counts too: what was not begun after a second is left out.
        if most_bytes is not None and (read + sizes[name] > most_bytes or time.monotonic() - began > 1.0):
            left += sizes[name]
            continue
        if hash_file(folder / name) != wanted[name]:
            return f"{folder / name} has other bytes than were sealed", read, left
        read += sizes[name]
    return "", read, left


@check("config")
def sentence_model(visit: Visit) -> Findings:
    """The model of the gate's deepest level, where the config asks for that level."""
    from core.names import SENTENCE_MODEL
    from store.bases import models_dir
    from store.seals import is_sealed

    assert visit.config is not None
    gate = visit.config.validation
    wants = gate.background_deep or "deep" in (gate.level, *gate.levels.values(), *gate.sources.values())
    if wants and not is_sealed(models_dir(visit.config) / SENTENCE_MODEL):
        yield note("SENTENCE_MODEL_MISSING", f"{SENTENCE_MODEL} is not here: level deep does not compare meanings", f"`lorad models pull {SENTENCE_MODEL}`")
