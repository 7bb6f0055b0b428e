"""JSON with `//` comments and trailing commas, as config.json allows it."""

import json
import re

# A string, or a comment to the end of the line: strings are matched first so that "https://…" survives.
_STRING = r'"(?:\\.|[^"\\\n])*"'
_COMMENT = re.compile(_STRING + r"|//[^\n]*")
_TRAILING = re.compile(_STRING + r"|,(?=\s*[}\]])")


def _pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise ValueError(f"key {key!r} stands twice")
    return dict(pairs)


def loads(text: str) -> object:
    """Parse JSON with `//` comments and trailing commas; line and column numbers of errors are those of `text`.

    Raises ValueError on bad JSON, on a key that stands twice, and on half a surrogate pair, which no file can hold.
    """
    bare = _TRAILING.sub(_blank, _COMMENT.sub(_blank, text))
    tree: object = json.loads(bare.removeprefix("\ufeff"), object_pairs_hook=_pairs)
    json.dumps(tree, ensure_ascii=False).encode()
    return tree


def _blank(match: re.Match[str]) -> str:
    return match[0] if match[0].startswith('"') else " " * len(match[0])
