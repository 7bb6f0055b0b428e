"""The two gates: is the schema one that we know, and is the file what its schema says."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import msgspec

from core.errors import ConfigError, LoradError, RefusedError, UsageError
from rendering.specs import BAD_JSON, SPECS, Spec
from validation.checks.files import BOM
from validation.control import ControlTokens
from validation.examination import Examination, Examined, Setting
from validation.findings import Finding, Level, Limits, Severity, command, shown
from validation.layouts import layout_of
from validation.report import Report
from validation.scan import OnRow
from validation.source import Source, lines

DATASET_SPECS: Mapping[str, Spec] = SPECS
DEFAULT_SCHEMA = "chat_sft_v1"
FILE_CHANGED = "FILE_CHANGED"
SURVEY_DIED = "SURVEY_DIED"


class _Token(Protocol):
    content: str
    special: bool


class AddedTokens(Protocol):
    """The part of a `tokenizers.Tokenizer` that the gate needs."""

    def get_added_tokens_decoder(self) -> Mapping[int, _Token]:
        """Token id -> token, of the tokens that were added to the vocabulary."""


class DataRefusedError(RefusedError):
    """The file was refused; `report` says why."""

    def __init__(self, report: Report) -> None:
        worst = report.errors[0]
        super().__init__(f"{report.file}: {worst.id} {worst.message}", hint=worst.hint, code="DATA_REFUSED")
        self.report = report

    def __reduce__(self) -> tuple[object, ...]:
        return DataRefusedError, (self.report,)


class SpecValidator:
    """The first gate: only declared, known schemas.

    >>> SpecValidator(DATASET_SPECS).validate_job({"schema_id": "completion_v1"}, {}).id
    'completion_v1'

    Args: specs: schema id -> spec; without them those that lorad knows.
    Returns: of `validate_job`, the declared spec.
    Raises: ConfigError SPEC_MISSING, SPEC_UNKNOWN (with the nearest known id).
    Side effects: none.
    """

    def __init__(self, specs: Mapping[str, Spec] = DATASET_SPECS) -> None:
        self._specs = specs

    def validate_job(self, job_config: object, metadata: Mapping[str, object] | None = None) -> Spec:
        """The spec that the sidecar (`metadata`), else the config declares.

        Args: job_config: a mapping or an object with `schema_id`. Raises ConfigError: none declared, or unknown.
        """
        declared = (metadata or {}).get("schema_id")
        if declared is None:
            declared = job_config.get("schema_id") if isinstance(job_config, Mapping) else getattr(job_config, "schema_id", None)
        if not declared:
            raise ConfigError("no schema is declared for the rows", hint=self._hint(""), code="SPEC_MISSING")
        if not isinstance(declared, str) or declared not in self._specs:
            raise ConfigError(f"schema_id {declared!r} is unknown", hint=self._hint(str(declared)), code="SPEC_UNKNOWN")
        return self._specs[declared]

    def _hint(self, declared: str) -> str:
        return unknown_schema_hint(declared, self._specs)


def unknown_schema_hint(declared: str, specs: Mapping[str, Spec]) -> str:
    """The known ids, the nearest first named."""
    near = nearest_schema(declared, specs)
    known = ", ".join(sorted(specs))
    return f"did you mean {near!r}? Known: {known}" if near else f"known: {known}"


def nearest_schema(declared: str, specs: Mapping[str, Spec]) -> str:
    """The known id that this one was meant to be; empty where none is near."""
    near = difflib.get_close_matches(declared, specs, n=1, cutoff=0.4) if declared else []
    return near[0] if near else ""


def level_named(word: str) -> Level:
    """`"QUICK"` or `"quick"` as a level. Raises UsageError, which names the nearest."""
    try:
        return Level(word.lower())
    except ValueError:
        names = [level.value for level in Level]
        near = difflib.get_close_matches(word.lower(), names, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UsageError(f"the level {word!r} is unknown", hint=f"{hint}Levels: {', '.join(names)}", code="LEVEL_UNKNOWN") from None


_CRASH_WHY = "a file that kills its reader was not read to the end, so nobody knows what is in it"


class DataValidator:
    """The second gate: the rows of one file.

    Args: tokenizer: a `tokenizers.Tokenizer` (for the job's own control tokens) or None. specs: schema id -> spec. limits: bounds of
    size. setting: all else that a check may need.
    Returns: of `validate_file`, warnings and notes on an accepted file; of `check_file`, the report, whatever the verdict.
    Raises: DataRefusedError, from `validate_file` alone, with the report; UsageError for an unknown level; LoradError where the base or
    the machine is at fault. Never for what the bytes are.
    Side effects: reads the file, the pictures beside it and what the setting names; may start processes that read parts of it. Writes nothing.
    """

    def __init__(
        self,
        tokenizer: AddedTokens | None = None,
        specs: Mapping[str, Spec] = DATASET_SPECS,
        limits: Limits | None = None,
        setting: Setting | None = None,
    ) -> None:
        special = [token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special] if tokenizer else []
        self.setting = setting or Setting()
        if limits:
            self.setting = replace(self.setting, limits=limits)
        self._specs = specs
        self._control = ControlTokens(special)

    @classmethod
    def with_special_tokens(cls, special_tokens: Iterable[str], setting: Setting | None = None, specs: Mapping[str, Spec] = DATASET_SPECS) -> "DataValidator":
        """A validator for a tokenizer whose special tokens are known by name; nothing is loaded."""
        made = cls(None, specs, setting=setting)
        made._control = ControlTokens(special_tokens)
        return made

    def validate_file(self, path: str | Path, level: str = "QUICK", schema_id: str = DEFAULT_SCHEMA) -> list[Finding]:
        """Warnings and notes on an accepted file. Raises DataRefusedError, which carries the report; UsageError for an unknown level."""
        report = self.check_file(path, schema_id, level)
        if report.verdict == "refused":
            raise DataRefusedError(report)
        return list(report.findings)

    def check_file(self, path: str | Path, schema_id: str = DEFAULT_SCHEMA, level: str = "QUICK", *, name: str = "", columns: Sequence[str] = ()) -> Report:
        """The report on a file, whatever its bytes are; never raises for them. `name` stands in the report instead of the path.

        Raises UsageError for an unknown level, LoradError where the base or the machine is at fault.
        """
        return self.examine(path, schema_id, level, name=name, columns=columns).report

    def examine(self, path: str | Path, schema_id: str, level: str, *, name: str = "", columns: Sequence[str] = ()) -> Examined:
        """The same, with what is known of single rows where the setting keeps it."""
        name, depth = name or str(path), level_named(level)
        try:
            with Source(Path(path), self.setting.limits) as source:
                if schema_id not in self._specs:
                    return Examined(report=self.unknown_schema(source, schema_id, depth, name))
                examination = self.begin(source, schema_id, depth, columns=columns)
                if examination.begin():
                    examination.read(source.blocks())
                return examination.end(name)
        except OSError as error:
            message, hint = f"{shown(name)} cannot be read: {error.strerror or error}", "check the path and the disk"
        except LoradError as error:
            if error.code == SURVEY_DIED:
                finding = Finding(id="F13", severity=Severity.ERROR, name="file.crash", message=error.what, why=_CRASH_WHY, hint=error.hint)
                return Examined(report=_unread(name, schema_id, depth, finding))
            if error.code != FILE_CHANGED:  # a damaged base, no memory: nothing about the file
                raise
            message, hint = error.what, error.hint
        finding = Finding(id="F11", severity=Severity.ERROR, name="file.link", message=message, hint=hint)
        return Examined(report=_unread(name, schema_id, depth, finding))

    def begin(self, source: Source, schema_id: str, level: Level, on_row: OnRow | None = None, columns: Sequence[str] = ()) -> Examination:
        """An examination of one file of a known schema; `on_row` gets every typed row until the first error."""
        return Examination(source, self._specs[schema_id].with_columns(columns), level, self.setting, self._control, on_row)

    def unknown_schema(self, source: Source, declared: str, level: Level, name: str) -> Report:
        """The report on a file whose schema is unknown: names the known ones, and the one that its first row looks like."""
        hint, right = unknown_schema_hint(declared, self._specs), nearest_schema(declared, self._specs)
        if not source.opened.obstacle and (seen := self._looks_like(source)):
            hint, right = f"the first row looks like {seen}; {hint}", seen if seen in self._specs else right
        finding = Finding(
            id="S01",
            severity=Severity.ERROR,
            name="spec.unknown",
            message=f"the schema {shown(declared)} is unknown",
            why="without its schema nobody knows what a row should hold, and none is guessed",
            hint=hint,
            fix=command(f"lorad check {{file}} --schema {right}", name) if right else "",
        )
        return _unread(name, declared, level, finding).with_options(self.setting.options or ())

    def _looks_like(self, source: Source) -> str:
        first = next((line.raw for line in lines(source.blocks(), self.setting.limits) if line.raw.strip()), b"")
        try:
            row = msgspec.json.decode(first.removeprefix(BOM))
        except BAD_JSON:
            return ""
        layout = layout_of(row) if isinstance(row, dict) else None
        return layout.id if layout else ""


def _unread(file: str, schema: str, level: Level, finding: Finding) -> Report:
    return Report(file=file, sha256="", schema=schema, level=level, rows=0, findings=(finding,))
