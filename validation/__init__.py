"""The two gates: the schema is one that we know, and the file is what its schema says. Deny by default."""

from validation.findings import Finding, Level, Limits, Severity
from validation.report import Report
from validation.validators import DATASET_SPECS, DataRefusedError, DataValidator, SpecValidator

__all__ = ["DATASET_SPECS", "DataRefusedError", "DataValidator", "Finding", "Level", "Limits", "Report", "Severity", "SpecValidator"]
