"""The checks, one small unit each. Importing this package fills the registry."""

from validation.checks import files, parse, shape, turns
from validation.checks.registry import CHECKS, Check, Need, checks_for

__all__ = ["CHECKS", "Check", "Need", "checks_for", "files", "parse", "shape", "turns"]
