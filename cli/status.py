"""`lorad status`: one look at status.json. Imports nothing heavy: it answers in a blink."""

import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from cli.options import config_option, format_option, show_json
from store.config_file import config_path, home_of
from store.locks import is_locked
from store.paths import Home

WATCH_EVERY_S = 0.5
STALE_S = 30.0  # the heartbeat is written every second: a daemon with an older one hangs
SIGNALS = {"rows": "rows pending", "review": "in review", "quarantined": "quarantined", "capped": "over a cap"}
BAR = 30
MOST_SHOWN = 5  # alerts, trainings
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

Found = dict[str, Any]


def read_status(home: Home) -> Found | None:
    """The newest status, or None where no daemon ever wrote one, or a power cut has spoilt it."""
    try:
        found = json.loads(home.status.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None


@click.command()
@config_option
@format_option()
@click.option("--watch", is_flag=True, help="Show it again and again until Ctrl-C.")
def status(config: str | None, output: str, watch: bool) -> None:
    """What lorad is doing, and what is live.

    Exit status: 1 where the daemon hangs, or ended without saying so; else 0. With --format json, `running` says whether a
    daemon holds the home, `stale` whether what is shown is not from a daemon that ticks, `age_s` how old it is.
    """
    home = home_of(config_path(config))
    if not watch:
        sys.exit(_show_once(home, output))
    try:
        while True:
            text = as_text(home, *look(home))
            sys.stdout.write("\x1b[2J\x1b[H" + text + "\n" if sys.stdout.isatty() else text + "\n\n")
            sys.stdout.flush()
            time.sleep(WATCH_EVERY_S)
    except KeyboardInterrupt:
        return


def _show_once(home: Home, output: str) -> int:
    found, life = look(home)
    if output == "json":
        known = {key: life[key] for key in ("running", "stale", "age_s", "condition")}
        show_json((found or {"format": 1, "daemon": {"home": str(home.root)}}) | known)
    else:
        click.echo(as_text(home, found, life))
    return 1 if life["condition"] in ("hangs", "died") else 0


# ---------------------------------------------------------------- does it live


def look(home: Home) -> tuple[Found | None, Found]:
    """The status, and how far it can be trusted: {running, stale, age_s, condition, pid, since}.

    condition: never (no daemon ever ran), runs, starts (it holds the home and has not looked round yet), hangs, stopped (it
    said so), died. Whether one runs is told by the lock, which no dead process can hold, and never by the file.
    """
    found = read_status(home)
    running = is_locked(home.lock)
    holder = _holder(home) if running else {}
    age_s = _age_s(found) if found else None
    if running:
        ours = found is not None and holder.get("instance") in (None, found["daemon"]["instance"])
        late = time.time() - float(holder.get("since") or time.time())
        condition = ("hangs" if (age_s or 0.0) > STALE_S else "runs") if ours else "hangs" if late > STALE_S * 10 else "starts"
    else:
        condition = "never" if found is None else "stopped" if found["daemon"]["state"] == "stopped" else "died"
    return found, {"running": running, "stale": condition != "runs", "age_s": age_s, "condition": condition, "pid": holder.get("pid")}


def _holder(home: Home) -> Found:
    """Who holds the home, by the text of its lock; empty while that is being written."""
    try:
        found = json.loads(home.lock.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _age_s(found: Found) -> float:
    """Seconds since the heartbeat: by the clock that nobody sets, where it is of this boot; else by the wall clock."""
    daemon = found["daemon"]
    try:
        if daemon.get("boot") and BOOT_ID.read_text().strip() == daemon["boot"]:
            return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - float(daemon["beat_s"]))
    except (OSError, KeyError, AttributeError):
        pass
    return max(0.0, (datetime.now(UTC) - datetime.fromisoformat(found["at"])).total_seconds())  # noqa: TID251 - a person looks now


# ---------------------------------------------------------------- as a person reads it


def as_text(home: Home, found: Found | None, life: Found) -> str:
    """The status as a person reads it."""
    if found is None:
        if life["running"]:
            return f"lorad starts (pid {life['pid']}) on {home.root}; look again in a moment"
        return f"lorad has never run on {home.root}\n  start it: lorad daemon"
    daemon = found["daemon"]
    lines = [_first_line(found, life)]
    queue = "  ".join(f"{state} {count}" for state, count in found["queue"].items() if count) or "no jobs yet"
    waiting = "  ".join(f"{state} {count}" for state, count in found["drops"].items() if count)
    lines.append(f"  queue    {queue}" + (f"   drops: {waiting}" if waiting else ""))
    lines += _schedule(found.get("schedule") or {})
    lines += _inbox(found.get("inbox") or {})
    lines += _gate(found.get("gate") or {})
    lines += _signals(found.get("feedback") or {})
    lines += _jobs(found)
    lines += _live(found)
    lines += _machine(found)
    lines += _findings(found)
    lines += [f"  warning  {warning}" for warning in daemon["warnings"]]
    if dropped := daemon.get("log_lines_dropped"):
        lines.append(f"  warning  {dropped:,} log lines were dropped: nobody read them")
    lines += _alerts(found)
    if error := found["error"]:
        lines.append(f"  error    {error['code']}: {error['what']}  ({_age(error['at'])} ago)")
        lines.append(f"           what to do: {error['hint']}")
    lines.append(f"  home     {daemon['home']}")
    return "\n".join(lines)


def _first_line(found: Found, life: Found) -> str:
    daemon, age = found["daemon"], _words(life["age_s"])
    last_word = "what follows is its last word"
    match life["condition"]:
        case "runs":
            return f"lorad runs (pid {daemon['pid']}), backend {daemon['backend']}, base {daemon['base']}, seen {age} ago"
        case "starts":
            return f"lorad starts (pid {life['pid']}); what follows is the last word of the daemon before it, {age} ago"
        case "hangs":
            cure = "`lorad support-bundle` keeps what is known; then end it and start it again (systemctl restart lorad)"
            return f"lorad runs (pid {life['pid'] or daemon['pid']}) but has NOT TICKED for {age}; {last_word}\n  what to do: {cure}"
        case "died":
            return f"lorad is NOT running since {age} ({found['at'][:19]}Z); it ended without saying so; {last_word}\n  start it: lorad daemon"
    return f"lorad is NOT running since {age} ({found['at'][:19]}Z); it was stopped; {last_word}"


def _schedule(schedule: Found) -> list[str]:
    """Why nothing trains, where a person or the calendar says so."""
    lines = [f"  paused   {schedule['paused']}; go on: lorad jobs resume"] if schedule.get("paused") else []
    return lines + ([f"  closed   {schedule['closed']}"] if schedule.get("closed") else [])


def _signals(feedback: Found) -> list[str]:
    """What people said of answers and what is not learnt yet; and what waits for a person."""
    lines = []
    for adapter, counts in feedback.items():
        told = [f"{counts[key]:,} {words}" for key, words in SIGNALS.items() if counts.get(key)]
        lines += [f"  signals  {adapter}: {', '.join(told)}"] if told else []
        lines += [f"  signals  {adapter}: source {source!r} is quarantined: {why}" for source, why in counts.get("held_sources", {}).items()]
    return lines


def _inbox(inbox: Found) -> list[str]:
    """Why a file may wait longer than people expect."""
    lines = [f"  inbox    is looked at every second: {inbox['reason']}"] if inbox.get("watch") == "poll" else []
    over = ", ".join(f"{persona} {count}" for persona, count in sorted((inbox.get("over_quota") or {}).items()))
    return lines + ([f"  inbox    over the quota, files that wait until the persona's drops are a day old: {over}"] if over else [])


def _gate(gate: Found) -> list[str]:
    """What is being checked; a deep check in the background keeps its jobs in the queue."""
    lines = []
    if gate.get("new", {}).get("drop"):
        lines.append(f"  gate     {gate['new']['file']}")
    if gate.get("background", {}).get("drop"):
        lines.append(f"  gate     {gate['background']['file']}, at level deep in the background; its jobs wait")
    elif gate.get("deep_open"):
        lines.append(f"  gate     {gate['deep_open']} accepted drops wait for their deep check")
    return lines


def _jobs(found: Found) -> list[str]:
    current = found["current"]
    others = [job for job in found.get("at_work") or [] if current is None or job["job"] != current["job"]]
    return [line for job in [*([current] if current else []), *others][:MOST_SHOWN] for line in _job(job)]


def _job(current: Found) -> list[str]:
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


def _live(found: Found) -> list[str]:
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


def _machine(found: Found) -> list[str]:
    """Devices and disk; what keeps training from either."""
    lines = []
    for device in found.get("devices") or []:
        parts = [device["name"]]
        parts += [f"{device['celsius']:.0f} °C"] if device["celsius"] is not None else []
        if device["free_bytes"] is not None and device["total_bytes"]:
            parts.append(f"{device['free_bytes'] / 1e9:.1f} GB free of {device['total_bytes'] / 1e9:.1f} GB memory")
        lines.append(f"  slot {device['slot']}   {', '.join(parts)}")
        lines += [f"           {why}" for why in (device["hot"], f"held by {device['foreign']}" if device["foreign"] else "") if why]
    disk = found["disk"]
    held = f", lorad holds {disk['home_bytes'] / 1e9:.1f} GB" if disk.get("home_bytes") else ""
    lines.append(f"  disk     {disk['free_bytes'] / 1e9:.1f} GB free of {disk['total_bytes'] / 1e9:.1f} GB{held}")
    return lines + [f"           {why}: training waits" for why in (disk.get("low"), disk.get("short")) if why]


def _findings(found: Found) -> list[str]:
    lines = []
    for finding in found["findings"][-3:]:
        first = finding["findings"][0] if finding["findings"] else {}
        at = f", line {first['lines'][0]}" if first.get("lines") else ""
        aside = f" without {finding['quarantined']:,} rows" if finding.get("quarantined") else ""
        level = f" at {finding['level']}" if finding.get("level") else ""
        lines.append(f"  finding  {finding['file']} {finding['verdict']}{aside}{level}: {first.get('id', '')} {first.get('name', '')}{at}")
    return lines


def _alerts(found: Found) -> list[str]:
    """What is open, newest first, and whether it can be told."""
    rows = [row for row in found.get("alerts") or [] if row["open"]]
    lines = []
    for row in rows[:MOST_SHOWN]:
        lines.append(f"  alert    {row['severity']}: {row['title']}: {row['reason']}  ({_age(row['opened_at'])})")
        lines.append(f"           next: {row['next']}")
    sending = found.get("notices") or {}
    if (num_open := sending.get("open", len(rows))) > MOST_SHOWN:
        lines.append(f"           and {num_open - MOST_SHOWN} more: lorad alerts list")
    for channel, why in (sending.get("failed") or {}).items():
        lines.append(f"  warning  alerts do not get out by {channel}: {why}; {sending['waiting']} wait")
    if sending.get("given_up"):
        lines.append(f"  warning  {sending['given_up']:,} notices were given up")
    return lines


def _age(text: str) -> str:
    return _words((datetime.now(UTC) - datetime.fromisoformat(text)).total_seconds())  # noqa: TID251 - a person looks now


def _words(seconds: float | None) -> str:
    if seconds is None:
        return "a time unknown"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"
