"""What the signatures of a survey come to: groups of rows that say nearly the same, in this file and in earlier drops.

Rows whose signatures meet are candidates; they are read again and compared (validation/likeness.py). Rows that consist of
template alone have nothing of their own to sign: a sample of them is compared as a whole.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.errors import IntegrityError
from rendering.rows import row_key
from rendering.specs import Spec
from validation.case import Case
from validation.findings import Problem, Severity, shown
from validation.likeness import Likeness, copies_of_one, groups_of
from validation.minhash import BandIndex, likely_clusters
from validation.rowtexts import templates
from validation.signatures import Earlier, earlier_drops
from validation.signed import SignedRows

if TYPE_CHECKING:
    from validation.survey import Survey

MOST_ROWS = 6_000  # that are read again to compare them
MOST_MEMBERS = 60  # of one cluster
MANY = 5  # members of a cluster, from which on what most of them say is known
MOST_HEAVY = 150
MOST_MATCHES = 1_000  # with earlier drops
SHOWN_GROUPS = 3
SETTING = "MinHash of word 5-grams (3 and 2 in short rows), likeness 0.8, templates removed"
MOST_FIX_LINES = 30


@dataclass(slots=True)
class _Doubles:
    """Groups of lines that say nearly the same; `count` is what they come to in the whole file."""

    groups: list[list[int]]
    count: float

    @property
    def lines(self) -> list[int]:
        """All but the first of each group."""
        return sorted({line for group in self.groups for line in group[1:]})


def near_duplicates(survey: "Survey") -> Iterable[Problem]:
    """What D03 says of a survey whose rows are signed."""
    rows = SignedRows.of(survey.sheet)
    if not rows.num_rows:
        return
    doubles = _doubles(survey, rows)
    count = round(doubles.count)
    share = count / rows.num_rows
    survey.stats["near_duplicates"] = {"rows": count, "share": round(share, 4), "setting": SETTING}
    if share > survey.context.limit("D03", "warn_share"):
        yield _problem(survey, doubles, count, share)
    earlier = earlier_drops(survey.context)
    if earlier.faults:
        survey.notes["D03 across drops"] = "; ".join(earlier.faults)
    yield from _near_earlier(survey, rows, earlier)


def _doubles(survey: "Survey", rows: SignedRows) -> _Doubles:
    clusters = [rows.lines[cluster].tolist() for cluster in likely_clusters(rows.signatures)]
    step = 1
    total = sum(min(len(cluster), MOST_MEMBERS) for cluster in clusters)
    if total > MOST_ROWS:
        step = -(-total // MOST_ROWS)
    looked = [_spread(cluster, MOST_MEMBERS) for cluster in clusters[::step]]
    heavy = _spread(rows.heavy.tolist(), MOST_HEAVY)
    read = sorted({line for cluster in looked for line in cluster} | set(heavy))
    if not read:
        return _Doubles([], 0)
    likeness = Likeness(survey.rows_at(read), templates(survey.context), survey.context.limit("D03", "jaccard"))
    groups, count = [], 0.0
    for cluster, members in zip(clusters[::step], looked, strict=True):
        found = _groups(members, likeness)
        groups += found
        count += step * sum(len(group) - 1 for group in found) * len(cluster) / len(members)
    told = {line for group in groups for line in group}
    alike = list(copies_of_one([line for line in heavy if line not in told], likeness))
    count += sum(len(group) - 1 for group in alike) * len(rows.heavy) / max(1, len(heavy))
    return _Doubles(groups + alike, count)


def _groups(members: Sequence[int], likeness: Likeness) -> list[list[int]]:
    """The lines of a cluster that say nearly the same, by groups."""
    copies = list(copies_of_one(members, likeness)) if len(members) >= MANY else []
    told = {line for group in copies for line in group}
    return copies + list(groups_of([line for line in members if line not in told], likeness))


def _spread(lines: Sequence[int], most: int) -> list[int]:
    """At most so many of the lines, from all over."""
    return list(lines) if len(lines) <= most else [lines[place * len(lines) // most] for place in range(most)]


def _problem(survey: "Survey", doubles: _Doubles, count: int, share: float) -> Problem:
    lines = doubles.lines
    shown_groups = sorted(doubles.groups, key=lambda group: (-len(group), group[0]))[:SHOWN_GROUPS]
    cases = survey.rows_at(group[0] for group in shown_groups)
    examples = "; ".join(_told(group, cases[group[0]]) for group in shown_groups)
    too_many = share >= survey.context.limit("D03", "error_share")
    drop = f"--lines {','.join(map(str, lines))}" if len(lines) <= MOST_FIX_LINES and count == len(lines) else "--ids D03"
    return Problem(
        message=f"{count:,} rows ({share:.0%}) say nearly the same as an earlier row: {examples}",
        severity=Severity.ERROR if too_many else Severity.WARNING,
        fix=f"lorad fix {{file}} -o {{out}} --schema {survey.plan.spec.id} --repair drop {drop}",
        lines=tuple(lines),
        count=count,
    )


# --- across drops


def _near_earlier(survey: "Survey", rows: SignedRows, earlier: Earlier) -> Iterable[Problem]:
    """Rows that say nearly the same as a row of an earlier drop. A row of a known conversation supersedes the older one: it is none."""
    found: list[tuple[int, int, int]] = []  # line, place of the drop, line there
    for place, stored in enumerate(earlier.stored):
        pairs = BandIndex(stored.signatures).matches(rows.signatures)
        found += [(int(rows.lines[own]), place, int(stored.lines[other])) for own, other in pairs.tolist()]
    if not found:
        return
    step = -(-len(found) // MOST_MATCHES)
    matches = _verified(survey, found[::step], earlier)
    count = min(step * len(matches), rows.num_rows)
    if count / rows.num_rows <= survey.context.limit("D03", "warn_share"):
        return
    examples = ", ".join(f"line {line} and line {other} of {earlier.name(place)}" for line, (place, other) in list(matches.items())[:SHOWN_GROUPS])
    yield Problem(
        message=f"{count:,} rows say nearly the same as a row of an earlier drop: {examples}",
        hint="leave them out, or repeat the old question word for word where the row shall take the older one's place",
        kind="earlier",
        severity=Severity.WARNING,
        lines=tuple(matches),
        count=count,
    )


def _verified(survey: "Survey", found: Sequence[tuple[int, int, int]], earlier: Earlier) -> dict[int, tuple[int, int]]:
    """line -> (drop, line there) of those matches whose rows are alike, and whose conversation earlier drops do not know."""
    cases = survey.rows_at(line for line, _, _ in found)
    others: dict[tuple[int, int], Case] = {}
    for place in {place for _, place, _ in found}:
        try:
            for case in earlier.cases(place, {line for _, other, line in found if other == place}):
                others[place, case.line] = case
        except IntegrityError as error:
            survey.notes["D03 across drops"] = f"{error.what}: {error.hint}"
    known, least = earlier.groups(), survey.context.limit("D03", "jaccard")
    matches: dict[int, tuple[int, int]] = {}
    for line, place, other in found:
        if line in matches or (place, other) not in others or _is_known(cases[line], survey.plan.spec, known):
            continue
        likeness = Likeness({1: others[place, other], 2: cases[line]}, templates(survey.context), least)
        if likeness.same(1, 2):
            matches[line] = (place, other)
    return matches


def _is_known(case: Case, spec: Spec, known: set[str]) -> bool:
    key = row_key(spec, case.row, case.messages)
    return key.first in known or key.whole in known


def _told(group: Sequence[int], case: Case) -> str:
    lines = ", ".join(map(str, group[:4])) + (f" and {len(group) - 4} more" if len(group) > 4 else "")
    return f"lines {lines} ({shown(case.question or case.answer)})"
