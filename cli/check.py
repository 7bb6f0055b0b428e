"""`lorad check`: the gate's answer about a file, without a daemon."""

from pathlib import Path

import click

from cli.options import config_option, format_option


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--schema", metavar="ID", help="Schema of the rows; else the config's schema_id.")
@click.option("--level", type=click.Choice(["quick", "standard", "deep"]), help="How deep to check; else the config's.")
@config_option
@format_option()
def check(files: tuple[Path, ...], schema: str | None, level: str | None, config: str | None, output: str) -> int:
    """Check files as the gate would: exit 0 accepted, 2 refused."""

    from store.config_file import config_path
    from validation import DataValidator, Limits

    schema_id, used_level, limits = schema or "chat_sft_v1", level or "standard", Limits()
    if config is not None or config_path(None).exists():
        from store.config import ConfigLoader

        loaded = ConfigLoader(config).load().config
        schema_id, used_level = schema or loaded.schema_id, level or loaded.validation.level
        limits = Limits(max_row_bytes=loaded.validation.max_row_bytes, max_file_bytes=loaded.validation.max_file_bytes)
    refused = False
    for file in files:
        report = DataValidator(limits=limits).check_file(file, schema_id=schema_id, level=used_level)
        click.echo(report.to_json() if output == "json" else report.to_text())
        refused = refused or report.verdict == "refused"
    return 2 if refused else 0
