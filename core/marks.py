"""What people write on the versions of an adapter: tags, a note, a label, an expiry. Pure."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from core.errors import UsageError

LABEL = re.compile(r"v(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?(\+[0-9A-Za-z.-]+)?")  # semver.org 2.0.0, with a v
TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
MOST_NOTE = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What is written on one version."""

    tags: tuple[str, ...] = ()
    note: str = ""
    label: str = ""  # a semantic version, v1.3.0
    expires_at: datetime | None = None  # from then on retention may let it go, unless it is live, previous or pinned


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """`adapters/<persona>/<domain>/marks.json`: the marks of one adapter's versions. `labels` keeps every label ever given."""

    versions: Mapping[int, Mark] = field(default_factory=dict)
    labels: Mapping[str, int] = field(default_factory=dict)  # label -> the version that it names for ever

    def of(self, version: int) -> Mark:
        """The mark of a version; an empty one where nobody wrote any."""
        return self.versions.get(version, Mark())


def changed(marks: Marks, version: int, wish: Mapping[str, str]) -> Marks:
    """The marks after a wish: `tag+`, `tag-` (words, comma between), `note`, `label`, `expires_at` (ISO time; empty: never).

    Repeating a wish changes nothing. Raises UsageError for a tag or label of another form, and for a label that names another version.
    """
    mark, labels = marks.of(version), dict(marks.labels)
    for key, value in wish.items():
        match key:
            case "tag+":
                mark = replace(mark, tags=_with_tags(mark.tags, _words(value)))
            case "tag-":
                mark = replace(mark, tags=tuple(tag for tag in mark.tags if tag not in _words(value)))
            case "note":
                mark = replace(mark, note=value[:MOST_NOTE])
            case "label":
                _check_label(marks, version, value)
                labels[value] = version
                mark = replace(mark, label=value)
            case "expires_at":
                mark = replace(mark, expires_at=_time(value))
            case _:
                raise UsageError(f"a version has no mark {key!r}", hint="tag+, tag-, note, label, expires_at", code="MARK_UNKNOWN")
    return Marks(versions={**marks.versions, version: mark}, labels=labels)


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _with_tags(tags: Iterable[str], more: Iterable[str]) -> tuple[str, ...]:
    for tag in more:
        if not TAG.fullmatch(tag):
            raise UsageError(f"{tag!r} is no tag", hint="letters, digits, '.', '_' and '-', 64 at most", code="TAG_NAME")
    return tuple(dict.fromkeys((*tags, *more)))


def _check_label(marks: Marks, version: int, label: str) -> None:
    if not LABEL.fullmatch(label):
        raise UsageError(f"{label!r} is no semantic version", hint="three numbers behind a v, for example v1.3.0", code="LABEL_FORM")
    owner = marks.labels.get(label, version)
    if owner != version:
        raise UsageError(f"{label} names v{owner} for ever", hint="give another label", code="LABEL_TAKEN")


def _time(text: str) -> datetime | None:
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text!r} is no time", hint="an ISO time with its zone, for example 2030-01-31T00:00:00+00:00", code="EXPIRY_FORM") from None
    if found.tzinfo is None:
        raise UsageError(f"{text!r} names no time zone", hint="end it with Z or an offset, for example +00:00", code="EXPIRY_FORM")
    return found
