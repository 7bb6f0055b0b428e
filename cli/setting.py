"""How a file is checked from the command line: options before the sidecar before the config before the defaults.

`lorad check` and `lorad fix` share it, so that a mended file is judged as the first one was. Without a config and a
sidecar nothing heavy is imported.
"""

import difflib
import functools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cli.options import config_option
from core.errors import ConfigError, UsageError
from core.names import DEFAULT_BASE, SENTENCE_MODEL
from validation.commands import Options, quoted

if TYPE_CHECKING:
    from core.config import Config, Resolved
    from rendering.specs import Spec
    from validation import DataValidator
    from validation.examination import Setting

DEFAULT_SCHEMA = "chat_sft_v1"
DEFAULT_LEVEL = "standard"
MOST_SIDECAR_BYTES = 64 << 10
SIDECAR = ".job.json"
LEVELS = ("quick", "standard", "deep")
TOKENIZER = "tokenizer.json"

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The options of a command line; None or empty where nothing was said."""

    schema: str | None = None
    level: str | None = None
    max_length: int | None = None
    model: str | None = None
    references: tuple[str, ...] = ()
    train: str | None = None
    images: str | None = None
    columns: str | None = None
    profile: str | None = None
    config: str | None = None

    def typed(self) -> Options:
        """As they were typed, for the next command."""
        named = (
            ("--schema", self.schema),
            ("--level", self.level),
            ("--max-length", self.max_length),
            ("--model", self.model),
            *(("--reference", file) for file in self.references),
            ("--train", self.train),
            ("--images", self.images),
            ("--columns", self.columns),
            ("--profile", self.profile),
            ("--config", self.config),
        )
        return tuple((name, str(value)) for name, value in named if value is not None)


_FILE = click.Path(exists=True, dir_okay=False)
_FOLDER = click.Path(exists=True, file_okay=False)
_OPTIONS = (
    click.option("--schema", metavar="ID", help="Schema of the rows; else the sidecar's or the config's schema_id, else chat_sft_v1."),
    click.option("--level", type=click.Choice(LEVELS, case_sensitive=False), help="How deep to check; else the sidecar's or the config's, else standard."),
    click.option("--max-length", type=click.IntRange(min=8), metavar="N", help="Longest row in tokens; else the sidecar's or the config's."),
    click.option("--model", metavar="NAME|PATH", help="Base model whose tokenizer and template the rows are for; else the config's."),
    click.option("--reference", "references", metavar="FILE", multiple=True, type=_FILE, help="An evaluation set that must not be inside; repeatable."),
    click.option("--train", metavar="FILE", type=_FILE, help="The rows are the validation set of this training file."),
    click.option("--images", metavar="DIR", type=_FOLDER, help="Folder that picture paths are relative to; else the file's own."),
    click.option("--columns", metavar="A,B", help="Extra columns that are passed through."),
    click.option("--profile", metavar="NAME", help="Named set of limits; else the config's."),
)


def gate_options(command: Callable[..., T]) -> Callable[..., T]:
    """The options that say how files are checked, passed on as `asked: Asked`."""

    @functools.wraps(command)
    def gathered(**given: Any) -> T:
        fields = {name: given.pop(name) for name in Asked.__dataclass_fields__}
        return command(asked=Asked(**fields), **given)

    wrapped = config_option(gathered)
    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One file, ready to be examined. `named` is the path as it was typed, `file` the rows themselves."""

    named: str
    file: Path
    schema_id: str
    level: str
    columns: tuple[str, ...]
    validator: "DataValidator"
    specs: "Mapping[str, Spec]"
    asked: Asked
    options: Options = ()
    """Those that commands on this file carry: typed, or said by its sidecar, which a mended copy has not."""
    is_schema_said: bool = False
    """Whether the command line, the sidecar or the config says the schema."""
    dropped_as: str = DEFAULT_SCHEMA
    """What `lorad drop` takes the rows for without being told; empty where only the sidecar says it."""
    config: "Config | None" = None
    obstacle: str = ""
    """Why a folder has no file of rows; `file` is the folder then."""

    @property
    def name(self) -> str:
        """What reports call it."""
        return self.named if self.file == Path(self.named) else str(Path(self.named, self.file.name))

    @property
    def spec(self) -> "Spec":
        """Raises UsageError for a schema that nobody knows."""
        if self.schema_id not in self.specs:
            raise _unknown_schema(self.schema_id, self.specs)
        return self.specs[self.schema_id].with_columns(self.columns)

    def again(self, file: str = "") -> str:
        """The command that checks it, or another file, the same way."""
        known = self.options if self.schema_id in self.specs else tuple(option for option in self.options if option[0] != "--schema")
        level = (("--level", self.asked.level),) if self.asked.level else ()
        words = " ".join(f"{name} {quoted(value)}" for name, value in (*known, *level))
        return f"lorad check {quoted(file or self.named)} {words}".rstrip()

    def onward(self, file: str = "") -> str:
        """The command that drops it; empty where no backend trains such rows."""
        objective = self.specs[self.schema_id].objective
        if objective != "sft":  # which is always trained; core.gate costs more to import than a quick check
            from core.gate import TRAINED

            if objective not in TRAINED:
                return ""
        words = ["lorad drop", quoted(file or self.named)]
        if self.schema_id != self.dropped_as:
            words += ["--schema", self.schema_id]
        if self.columns:
            import json

            words += ["--set", quoted(f"columns={json.dumps(list(self.columns), ensure_ascii=False)}")]
        if self.asked.config:
            words += ["--config", quoted(self.asked.config)]
        return " ".join(words)


def target_of(path: Path, asked: Asked, setting: "Setting | None" = None) -> Target:
    """The file with everything that belongs to it, rows included. `setting` is what the caller wants of the examination besides.

    Raises UsageError, ConfigError: a missing file, a folder without a file of rows, an unknown schema, model, profile or
    column, a wrong config or sidecar.
    """
    target = any_target_of(path, asked, setting)
    if target.obstacle:
        raise UsageError(f"{str(path)!r}: {target.obstacle}", hint="a .drop folder holds one .jsonl file and the pictures that it names", code="FILE_KIND")
    return target


def any_target_of(path: Path, asked: Asked, setting: "Setting | None" = None) -> Target:
    """The same, also of a folder that has no file of rows: its obstacle says why."""
    from validation import DATASET_SPECS

    file, sidecar, obstacle = _rows_of(path)
    layer, source = _sidecar(sidecar)
    resolved = _resolved(asked, layer)
    specs: Mapping[str, Spec] = DATASET_SPECS
    if resolved and resolved.config.specs:
        from rendering.ownspecs import load_specs

        specs = load_specs(resolved.config.specs, Path.cwd())
    schema_id = asked.schema or (resolved.config.schema_id if resolved else DEFAULT_SCHEMA)
    if asked.schema and schema_id not in specs:
        raise _unknown_schema(schema_id, specs)
    columns = _columns(asked, resolved, specs.get(schema_id))
    options = _options(replace(asked, schema=schema_id), columns, resolved)
    is_said = bool(asked.schema) or (resolved is not None and resolved.origins["schema_id"] != "default")
    return Target(
        named=str(path),
        file=file,
        schema_id=schema_id,
        level=(asked.level or _level(resolved, source)).lower(),
        columns=columns,
        validator=_validator(asked, resolved, specs, _setting(setting, options, is_said)),
        specs=specs,
        asked=asked,
        options=options,
        is_schema_said=is_said,
        dropped_as=_dropped_as(resolved),
        config=resolved.config if resolved else None,
        obstacle=obstacle,
    )


def _setting(setting: "Setting | None", options: Options, is_said: bool) -> "Setting":
    from validation.examination import Setting

    setting = setting or Setting()
    return replace(setting, options=setting.options or options, is_schema_said=is_said)


def _options(asked: Asked, columns: tuple[str, ...], resolved: "Resolved | None") -> Options:
    """What was typed, and the schema, the columns and the length wherever they were said."""
    length = resolved.config.max_length if resolved and resolved.origins["max_length"] == "sidecar" else None
    whole = replace(asked, level=None, columns=",".join(columns) or None, max_length=asked.max_length or length)
    return whole.typed()


def _unknown_schema(schema_id: str, specs: "Mapping[str, Spec]") -> UsageError:
    from validation.validators import unknown_schema_hint

    return UsageError(f"the schema {schema_id!r} is unknown", hint=unknown_schema_hint(schema_id, specs), code="SPEC_UNKNOWN")


# --- the file and what lies beside it


def _rows_of(path: Path) -> tuple[Path, Path, str]:
    """(file of rows, place of its sidecar, why there are no rows). A folder is one drop: its one .jsonl file, and pictures."""
    if not os.path.lexists(path):
        near = difflib.get_close_matches(path.name, _names_in(path.parent), n=1)
        raise UsageError(f"there is no file {str(path)!r}", hint=f"did you mean {near[0]!r}?" if near else "check the path", code="FILE_MISSING")
    if not path.is_dir() or path.is_symlink():
        return path, path.with_name(path.name.removesuffix(".jsonl") + SIDECAR), ""
    if path.suffix != ".drop":
        raise UsageError(f"{str(path)!r} is a folder", hint="name a file; a folder with rows and their pictures is called NAME.drop", code="FILE_KIND")
    from validation.bundle import rows_file

    file, obstacle = rows_file(path)
    return file, path.with_name(path.stem + SIDECAR), obstacle


def sidecar_of(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(config values, job keys) of the sidecar beside a file, dotted; empty where there is none. Raises ConfigError."""
    from core.config import sidecar_layer

    _, sidecar, _ = _rows_of(path)
    return sidecar_layer(_tree(sidecar), f"the sidecar {sidecar.name!r}")


def _names_in(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)[:10_000]
    except OSError:
        return []


def _sidecar(path: Path) -> tuple[dict[str, Any], str]:
    """(config values, source) that the sidecar sets; nothing where there is none. Raises ConfigError."""
    tree = _tree(path)
    if not tree:
        return {}, ""
    from core.config import nest, sidecar_layer

    values, job = sidecar_layer(tree, f"the sidecar {path.name!r}")
    return nest(values), str(job.get("source", ""))


def _tree(path: Path) -> dict[str, Any]:
    """What the sidecar says; empty where there is none. Raises ConfigError."""
    from core.jsonc import loads

    try:
        raw = path.read_bytes()
        if len(raw) > MOST_SIDECAR_BYTES:
            raise ValueError(f"{len(raw):,} bytes are more than {MOST_SIDECAR_BYTES:,}")
        tree = loads(raw.decode())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"the sidecar {str(path)!r} is not JSON: {error}", hint="write {} or leave the sidecar out", code="SIDECAR_SYNTAX") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"the sidecar {str(path)!r} holds a {type(tree).__name__}, not an object", hint='start it with "{"', code="SIDECAR_SYNTAX")
    return tree


def _resolved(asked: Asked, sidecar: dict[str, Any]) -> "Resolved | None":
    """The config with the sidecar over it; None where there is neither."""
    from store.config_file import ENVIRONMENT, config_path

    if asked.config or os.environ.get(ENVIRONMENT) or config_path(None).exists():
        from store.config import ConfigLoader

        return ConfigLoader(asked.config).load(sidecar=sidecar)
    if not sidecar:
        return None
    from core.config import resolve

    return resolve({"sidecar": sidecar})


def _dropped_as(resolved: "Resolved | None") -> str:
    if resolved is None:
        return DEFAULT_SCHEMA
    return "" if resolved.origins["schema_id"] == "sidecar" else resolved.config.schema_id


def _level(resolved: "Resolved | None", source: str) -> str:
    if resolved is None:
        return DEFAULT_LEVEL
    from core.gate import level_of

    return level_of(resolved, "", source)


def _columns(asked: Asked, resolved: "Resolved | None", spec: "Spec | None") -> tuple[str, ...]:
    if asked.columns is None:
        return resolved.config.columns if resolved else ()
    columns = tuple(column.strip() for column in asked.columns.split(","))
    for column in columns:
        if not column or any(letter in column for letter in '"\\') or not column.isprintable():
            raise UsageError(
                f"--columns {asked.columns!r}: {column!r} is no name of a column",
                hint="write names with commas between: --columns lang,source",
                code="COLUMN_NAME",
            )
        if spec and column in spec.keys:
            raise UsageError(
                f"--columns: {column!r} is a key of {spec.id} itself", hint="name only the columns that the schema does not have", code="COLUMN_KNOWN"
            )
    return columns


# --- the validator


def _validator(asked: Asked, resolved: "Resolved | None", specs: "Mapping[str, Spec]", setting: "Setting") -> "DataValidator":
    from validation import DataValidator, Limits
    from validation.context import Surroundings
    from validation.control import special_tokens
    from validation.profiles import DEFAULT, resolve_profile

    config = resolved.config if resolved else None
    profile = resolve_profile(asked.profile or (config.validation.profile if config else DEFAULT), config.validation.profiles if config else {})
    base = _base(asked, resolved)
    around = Surroundings(
        base=base,
        max_length=asked.max_length or (config.max_length if config else 0),
        max_overlong_share=config.training.max_overlong_share if config else Surroundings().max_overlong_share,
        references=tuple(dict.fromkeys((*(config.validation.references if config else ()), *map(os.path.abspath, asked.references)))),
        train=os.path.abspath(asked.train) if asked.train else "",
        images=os.path.abspath(asked.images) if asked.images else "",
        embedder=_sealed(_models_dir(resolved) / SENTENCE_MODEL),
        limits=profile.limits,
    )
    limits = Limits(max_row_bytes=config.validation.max_row_bytes, max_file_bytes=config.validation.max_file_bytes) if config else Limits()
    processes = config.validation.processes if config else 2
    made = replace(setting, limits=limits, around=around, off=profile.off, profile=profile.name, processes=processes)
    tokens = special_tokens(Path(base, TOKENIZER)) if base else []
    return DataValidator.with_special_tokens(tokens, made, specs)


def _models_dir(resolved: "Resolved | None") -> Path:
    from store.paths import default_models_dir

    return Path(resolved.config.models_dir) if resolved and resolved.config.models_dir else default_models_dir()


def _sealed(folder: Path) -> str:
    """The folder where it is sealed, else nothing."""
    from store.seals import is_sealed

    return str(folder) if is_sealed(folder) else ""


def _base(asked: Asked, resolved: "Resolved | None") -> str:
    """The folder of the base model: the one that was named, else the config's where it is here. Empty: none."""
    configured = _models_dir(resolved)
    if asked.model is None:
        if resolved is None:
            folder = configured / DEFAULT_BASE
        else:
            from store.bases import base_folder

            folder = base_folder(resolved.config)
            original = Path(resolved.config.model_path or folder)
            folder = folder if _sealed(folder) else original
        return str(folder) if (folder / TOKENIZER).is_file() else ""
    folder = Path(asked.model) if Path(asked.model).is_dir() else configured / asked.model
    if not folder.is_dir():
        near = difflib.get_close_matches(asked.model, _names_in(configured), n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        what = f"--model {asked.model!r} is no folder and no base in {str(configured)!r}"
        raise UsageError(what, hint=f"{hint}`lorad models list` names the bases", code="MODEL_UNKNOWN")
    if not (folder / TOKENIZER).is_file():
        what = f"--model {asked.model!r}: the folder has no {TOKENIZER}"
        raise UsageError(what, hint="name a Hugging Face folder with a fast tokenizer", code="MODEL_UNKNOWN")
    return str(folder.absolute())
