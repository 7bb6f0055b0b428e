"""The checks, one small unit each. Importing this package fills the registry with those of every module in it."""

from importlib import import_module
from pkgutil import iter_modules

from validation.checks.registry import CHECKS, Check, Need, checks_for

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["CHECKS", "Check", "Need", "checks_for"]
