"""What a served answer says of the release that gave it: its id, its fingerprint, its header. Serving writes them, `lorad why` reads them. Pure.

An id is `chatcmpl-<mark>-<24 hex>`, the fingerprint `lorad-<mark>`; the mark is the first 12 hex digits of the release id, or
`base`. So an answer that somebody kept leads back to its release without any log: 48 bits tell a million releases apart.
"""

import re

BASE_MARK = "base"
MARK_DIGITS = 12
_MARK = rf"(?P<mark>[0-9a-f]{{{MARK_DIGITS}}}|{BASE_MARK})"
_FORMS = (re.compile(rf"chatcmpl-{_MARK}-[0-9a-f]{{8,64}}"), re.compile(rf"lorad-{_MARK}"))
_OLDER = re.compile(r"chatcmpl-[0-9A-Za-z]+")


def mark_of(label: str) -> str:
    """The mark of a release id, or of the word base."""
    return label[:MARK_DIGITS]


def response_id(label: str, nonce: str) -> str:
    """The id of one answer. Args: label: the release id, or base. nonce: hex digits that no other answer has."""
    return f"chatcmpl-{mark_of(label)}-{nonce}"


def fingerprint(label: str) -> str:
    """The fingerprint of whatever answers under this label."""
    return f"lorad-{mark_of(label)}"


def mark_in(reference: str) -> str | None:
    """The mark that a response id or a fingerprint carries; None where `reference` is neither."""
    found = next((found for form in _FORMS if (found := form.fullmatch(reference.strip()))), None)
    return found["mark"] if found else None


def is_unmarked(reference: str) -> bool:
    """Whether it is the id of an answer that carries no mark: of another server, or of a lorad before there were marks."""
    return mark_in(reference) is None and _OLDER.fullmatch(reference.strip()) is not None
