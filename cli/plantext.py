"""What `lorad plan` found, as a person reads it."""

from typing import Any

from core.needs import gigabytes


def as_text(told: dict[str, Any]) -> str:
    """One line a matter; what stands in the way comes last."""
    lines = [f"plan for {told['file']}: adapter {told['adapter']}, base {told['base']}, backend {told['backend']}"]
    lines += [f"  {name:<9} {text}" for name, text in _matters(told)]
    lines += [f"  note      {note}" for note in told["notes"]]
    lines += [f"  but       {obstacle}" for obstacle in told["obstacles"]]
    if not told["obstacles"]:
        lines.append("  next      nothing stands in its way: lorad drop")
    return "\n".join(lines)


def _matters(told: dict[str, Any]) -> list[tuple[str, str]]:
    tokens, memory, disk = told["tokens"], told["memory"], told["disk"]
    marks = ", ".join(map(str, told["checkpoints"]))
    gate, judged = told["gate"], told["judged"]
    matters = [("rows", _rows(told))]
    passes = f"{tokens['total']:,} in {told['epochs']:g} epoch{_s(told['epochs'])}"
    matters.append(("tokens", f"{tokens['a_pass']:,} a pass, {tokens['learnt_a_pass']:,} of them learnt; {passes}"))
    matters.append(("steps", f"{told['steps']:,} of {told['batch_size']} rows" + (f"; checkpoints after {marks}" if marks else "")))
    matters += [("settings" if not place else "", words) for place, words in enumerate(_settings(told["settings"]))]
    if memory["needs_mb"]:
        free = f"; {memory['free_mb']:,} MB are free" if memory["free_mb"] is not None else ""
        matters.append(("memory", f"about {memory['needs_mb']:,} MB of {memory['device']} (estimated){free}"))
    above = f"{gigabytes(max(0, disk['free_bytes'] - disk['floor_bytes']))} are free above the floor of {gigabytes(disk['floor_bytes'])}"
    matters.append(("disk", f"about {gigabytes(disk['needs_bytes'])} (estimated); {above}"))
    matters += _time(told)
    matters.append(("gate", f"level {gate['level']}: about {duration(gate['seconds'])}"))
    enough = ": it can be judged" if judged["enough"] else ""
    matters.append(("verdict", f"{judged['gate_groups']} held-out conversations, {judged['needed']} are needed{enough}"))
    matters.append(("queue", _queue(told["queue"])))
    return matters


def _settings(settings: dict[str, Any]) -> list[str]:
    """What nobody set and the data settles, a line each with its reason."""
    return [f"{key} {told['value']}: {told['why']}" for key, told in settings.items()]


def _s(count: float) -> str:
    return "" if count == 1 else "s"


def _rows(told: dict[str, Any]) -> str:
    rows, earlier = told["rows"], told["earlier"]
    text = f"{rows['in_file']:,} in the file: {rows['train']:,} train, {rows['dev']:,} dev, {rows['gate']:,} gate"
    left = ((rows["overlong"], "over max_length"), (rows["silent"], "without a token to learn"), (rows["unread"], "unreadable"))
    text += "".join(f", {count:,} {why}" for count, why in left if count)
    return text + (f"; with {earlier['train_rows']:,} train rows of {earlier['drops']:,} earlier drops" if earlier["drops"] else "")


def _time(told: dict[str, Any]) -> list[tuple[str, str]]:
    time, record = told["time"], told["record"]
    lines = [("time", f"about {duration(time['seconds'])} ({duration(time['low_s'])} to {duration(time['high_s'])}): {time['basis']}")]
    if record:
        memory = f"; memory {record['memory_off']:+.0%}" if record["memory_off"] is not None else ""
        off = f"off by {record['median_off']:.0%} (median) over the last {record['runs']}"
        lines.append(("", f"estimates were {off}; {record['inside']} of {record['runs']} ended within the interval{memory}"))
    lines.append(("ranking", f"about {duration(time['ranking_s'])} more (a guess: forward passes alone)"))
    return lines


def _queue(queue: dict[str, Any]) -> str:
    parts = [f"about {queue['ahead']:,} of {queue['queued']:,} queued jobs start before it" if queue["queued"] else "nothing waits before it"]
    parts += [queue["paused"]] if queue["paused"] else []
    parts += [queue["closed"]] if queue["closed"] else []
    parts += [f"not before {queue['not_before']}"] if queue["not_before"] else []
    parts += [] if queue["daemon_runs"] else ["no daemon runs now"]
    return "; ".join(parts)


def duration(seconds: float) -> str:
    """A span of time in its two largest units: 3 h 20 min, 45 s."""
    if seconds < 10:
        return f"{seconds:.1f} s".replace(".0 s", " s")
    whole = round(seconds)
    for size, unit, below, small in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // below
            return f"{whole // size} {unit}" + (f" {rest} {small}" if rest else "")
    return f"{whole} s"
