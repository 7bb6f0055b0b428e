"""`lorad status`: one look at status.json. Imports nothing heavy: it answers in a blink."""

import json
import sys
import time
from datetime import UTC, datetime
from typing import Any

import click

from cli.options import config_option, format_option, show_json
from store.config_file import config_path, home_of
from store.locks import is_locked
from store.paths import Home

WATCH_EVERY_S = 0.5
BAR = 30


def read_status(home: Home) -> dict[str, Any] | None:
    """The newest status, or None where no daemon ever wrote one."""
    try:
        status: dict[str, Any] = json.loads(home.status.read_text())
    except FileNotFoundError:
        return None
    return status


@click.command()
@config_option
@format_option()
@click.option("--watch", is_flag=True, help="Show it again and again until Ctrl-C.")
def status(config: str | None, output: str, watch: bool) -> None:
    """What lorad is doing, and what is live."""
    home = home_of(config_path(config))
    if not watch:
        _show_once(home, output)
        return
    try:
        while True:
            text = as_text(home, read_status(home))
            sys.stdout.write("\x1b[2J\x1b[H" + text + "\n" if sys.stdout.isatty() else text + "\n\n")
            sys.stdout.flush()
            time.sleep(WATCH_EVERY_S)
    except KeyboardInterrupt:
        return


def _show_once(home: Home, output: str) -> None:
    found = read_status(home)
    if output == "json":
        running = is_locked(home.lock)
        show_json((found or {"format": 1, "daemon": {"home": str(home.root)}}) | {"running": running})
    else:
        click.echo(as_text(home, found))


def as_text(home: Home, found: dict[str, Any] | None) -> str:
    """The status as a person reads it."""
    if found is None:
        return f"lorad has never run on {home.root}\n  start it: lorad daemon"
    daemon = found["daemon"]
    lines = []
    if is_locked(home.lock):
        lines.append(f"lorad runs (pid {daemon['pid']}), backend {daemon['backend']}, base {daemon['base']}, seen {_age(found['at'])} ago")
    else:
        lines.append(f"lorad is NOT running since {_age(found['at'])} ({found['at'][:19]}Z); what follows is its last word")
    queue = "  ".join(f"{state} {count}" for state, count in found["queue"].items() if count) or "no jobs yet"
    waiting = "  ".join(f"{state} {count}" for state, count in found["drops"].items() if count)
    lines.append(f"  queue    {queue}" + (f"   drops: {waiting}" if waiting else ""))
    lines += _gate(found.get("gate") or {})
    lines += _current(found["current"])
    lines += _live(found)
    disk = found["disk"]
    lines.append(f"  disk     {disk['free_bytes'] / 1e9:.1f} GB free of {disk['total_bytes'] / 1e9:.1f} GB")
    for finding in found["findings"][-3:]:
        first = finding["findings"][0] if finding["findings"] else {}
        at = f", line {first['lines'][0]}" if first.get("lines") else ""
        aside = f" without {finding['quarantined']:,} rows" if finding.get("quarantined") else ""
        level = f" at {finding['level']}" if finding.get("level") else ""
        lines.append(f"  finding  {finding['file']} {finding['verdict']}{aside}{level}: {first.get('id', '')} {first.get('name', '')}{at}")
    lines += [f"  warning  {warning}" for warning in daemon["warnings"]]
    if error := found["error"]:
        lines.append(f"  error    {error['code']}: {error['what']}  ({_age(error['at'])} ago)")
        lines.append(f"           what to do: {error['hint']}")
    lines.append(f"  home     {daemon['home']}")
    return "\n".join(lines)


def _gate(gate: dict[str, Any]) -> list[str]:
    """What is being checked; a deep check in the background keeps its jobs in the queue."""
    lines = []
    if gate.get("new", {}).get("drop"):
        lines.append(f"  gate     {gate['new']['file']}")
    if gate.get("background", {}).get("drop"):
        lines.append(f"  gate     {gate['background']['file']}, at level deep in the background; its jobs wait")
    elif gate.get("deep_open"):
        lines.append(f"  gate     {gate['deep_open']} accepted drops wait for their deep check")
    return lines


def _current(current: dict[str, Any] | None) -> list[str]:
    if current is None:
        return []
    filled = round(BAR * current["progress"] / 100)
    parts = [f"  job      {current['job']} ({current['adapter']}, {current['file']})"]
    line = f"  stage    {current['stage']:<8} [{'#' * filled}{'.' * (BAR - filled)}] {current['progress']:3d} %"
    if current["step"] is not None and current["total_steps"]:
        line += f"  step {current['step']}/{current['total_steps']}"
    if current["loss"] is not None:
        line += f"  loss {current['loss']:.3f}"
    if current["tokens_per_s"]:
        line += f"  {current['tokens_per_s']:.0f} tokens/s"
    if current["eta_s"] is not None:
        line += f"  {current['eta_s']:.0f} s left"
    parts.append(line)
    if current["reason"]:
        parts.append(f"           {current['reason']}")
    return parts


def _live(found: dict[str, Any]) -> list[str]:
    lines = []
    for alias, live in found["live"].items():
        what = f"v{live['version']}  {live['release'][:12]}" if live["release"] else "the base model"
        lines.append(f"  live     {alias:<24} {what}")
    if not found["live"]:
        lines.append("  live     the base model answers; nothing is released yet")
    for target in found["targets"]:
        if target["code"]:
            lines.append(f"  target   {target['name']}: {target['code']} {target['reason']}")
            lines.append(f"           what to do: {target['hint']}")
    return lines


def _age(text: str) -> str:
    seconds = (datetime.now(UTC) - datetime.fromisoformat(text)).total_seconds()  # noqa: TID251 - a person looks now
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"
