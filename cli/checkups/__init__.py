"""What `lorad doctor` looks at. Each check is one function under `@check`, in the module of its matter.

To add one: write it there. A module that is new is named in `MATTERS`, in the order in which a person reads the lines.
"""

from importlib import import_module

MATTERS = ("machine", "settings", "folders", "model", "running", "delivery")


def load() -> None:
    """Import every module, so that its checks are entered."""
    for name in MATTERS:
        import_module(f"cli.checkups.{name}")
