"""How two releases differ, by their manifests, their adapter configs and the configs that their jobs froze."""

import json
from collections.abc import Mapping
from typing import Any

from store.codec import to_plain
from store.jobs import CONFIG, find_folder
from store.paths import Home
from store.releases import Release

OF_MANIFEST = ("adapter", "backend", "base_sha256", "tokenizer_sha256", "template_sha256", "parent", "job", "checkpoint_sha256", "profile", "origin")
SHAPE = "adapter_config.json"


def differences(home: Home, one: Release, other: Release) -> list[dict[str, Any]]:
    """What differs: {what, one, other}; drops that only one of them learnt from stand under `drops`, frozen settings under `config.`."""
    found = [_row(name, to_plain(one.manifest)[name], to_plain(other.manifest)[name]) for name in OF_MANIFEST]
    mine, theirs = set(one.manifest.drops), set(other.manifest.drops)
    found.append(_row("drops", sorted(mine - theirs), sorted(theirs - mine)))
    for title, before, after in (
        ("adapter", _shape(one), _shape(other)),
        ("config", _settings(home, one), _settings(home, other)),
    ):
        found += [_row(f"{title}.{key}", before.get(key), after.get(key)) for key in sorted(before.keys() | after.keys())]
    return [row for row in found if row["one"] != row["other"]]


def _row(what: str, one: Any, other: Any) -> dict[str, Any]:
    return {"what": what, "one": one, "other": other}


def _shape(release: Release) -> dict[str, Any]:
    return dict(json.loads((release.folder / SHAPE).read_bytes()))


def _settings(home: Home, release: Release) -> dict[str, Any]:
    """The frozen config by dotted key; empty for an import, and where the job is gone."""
    found = find_folder(home, release.manifest.job) if release.manifest.job else None
    return _flat(json.loads((found[1] / CONFIG).read_bytes())["values"]) if found is not None else {}


def _flat(tree: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= _flat(value, f"{before}{key}.") if isinstance(value, Mapping) else {f"{before}{key}": value}
    return found
