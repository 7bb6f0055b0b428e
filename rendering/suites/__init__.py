"""Regression suites: fixed questions that a candidate must not answer worse than the incumbent."""

from rendering.suites.checks import Check
from rendering.suites.shelf import HARNESS, check_suites, file_name, list_suites, of_names, shipped
from rendering.suites.suite import Choices, Item, Suite, Written, read_suite, value_of

__all__ = [
    "HARNESS",
    "Check",
    "Choices",
    "Item",
    "Suite",
    "Written",
    "check_suites",
    "file_name",
    "list_suites",
    "of_names",
    "read_suite",
    "shipped",
    "value_of",
]
