"""A measurement in parts, each of which stands alone."""

import json
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any


def measured(known: Mapping[str, Callable[[], dict[str, Any]]], parts: str) -> dict[str, Any]:
    """The figures of the parts that `parts` names by comma, of all without. A part that fails says so in its place. Raises SystemExit for an unknown one."""
    chosen = [part.strip() for part in parts.split(",") if part.strip()] or list(known)
    if unknown := set(chosen) - known.keys():
        raise SystemExit(f"no part {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    figures: dict[str, Any] = {}
    for part in chosen:
        began = time.monotonic()
        try:
            found = known[part]()
        except Exception as error:  # the border of a part: the others are measured all the same
            traceback.print_exc()
            found = {f"{part}_failed": f"{type(error).__name__}: {error}"[:300]}
        figures |= found
        print(f"{part}: {time.monotonic() - began:.0f} s: {json.dumps(found)}", file=sys.stderr, flush=True)
    return figures
