"""The leg of a person's blind rating: whether the candidate's answers were preferred to those of what is live."""

import hashlib
from pathlib import Path

from core.ratings import Rating, key_of
from core.tasks import RankTask
from ranking.evidence import Comparison, Interval, Leg, LegResult, Rules, ScoreFile
from ranking.legs import leg
from ranking.preferred import Preference, preference
from ranking.scores import missing
from store.codec import parse

NAME = "rating"


def rating_legs(task: RankTask, rules: Rules) -> tuple[list[Leg], dict[str, ScoreFile]]:
    """The leg, and the file that was read; neither where nobody rated and config does not ask for it.

    Proven preferred passes, proven not preferred refuses, in between it is held; under the rule `retained` it is enough to be
    preferred no less often. Where config does not ask for a rating, it is told and decides nothing. Raises EvidenceError for a damaged one.
    """
    key = key_of(task.best or "")
    if key not in task.scores:
        wanted = f"config asks for a person's blind rating: `lorad compare {task.incumbent[:12]} {task.job} --rate`"
        return ([leg(NAME, LegResult.UNPROVEN, wanted)] if rules.rating else []), {}
    rating, file = _read(key, Path(task.scores[key]))
    if (rating.candidate, rating.incumbent) != (task.best, task.incumbent):
        old = f"the rating is of {rating.candidate} against {rating.incumbent[:12]}: rate again, `lorad compare {task.incumbent[:12]} {task.job} --rate`"
        return [leg(NAME, LegResult.UNPROVEN if rules.rating else LegResult.SKIPPED, old)], {key: file}
    return [_leg(rating, preference(rating.better, rating.worse), rules)], {key: file}


def _read(key: str, path: Path) -> tuple[Rating, ScoreFile]:
    try:
        raw = path.read_bytes()
        rating = parse(Rating, raw)
    except OSError as error:
        missing(f"the rating {key!r} cannot be read: {error.strerror}")
    except ValueError:
        missing(f"the rating {key!r} is damaged")
    return rating, ScoreFile(sha256=hashlib.sha256(raw).hexdigest(), rows=rating.better + rating.worse + rating.ties)


def _leg(rating: Rating, found: Preference, rules: Rules) -> Leg:
    pairs = rating.better + rating.worse + rating.ties
    text = (
        f"{rating.by or 'a person'} preferred the candidate's answer {rating.better} times and the other {rating.worse} times in {pairs} blind pairs "
        f"(share {found.share.mean:.0%}, 95 % interval {found.share.low:.0%} to {found.share.high:.0%})"
    )
    if not rules.rating:
        return leg(NAME, LegResult.SKIPPED, f"{text}; config does not let it decide", _comparison(found))
    if found.is_worse:
        return leg(NAME, LegResult.REGRESSION, text, _comparison(found))
    if found.is_better or (rules.rule == "retained" and found.decided and found.share.mean >= 0.5):
        return leg(NAME, LegResult.PASSED, text, _comparison(found))
    return leg(NAME, LegResult.UNPROVEN, f"{text}: no preference is proven", _comparison(found))


def _comparison(found: Preference) -> Comparison | None:
    """The shares of both as a comparison, to be drawn; None where no pair was decided."""
    if not found.decided:
        return None
    share = found.share
    difference = Interval(mean=2 * share.mean - 1, low=2 * share.low - 1, high=2 * share.high - 1)
    return Comparison(
        before=1 - share.mean,
        after=share.mean,
        difference=difference,
        rows=found.decided,
        groups=found.decided,
        tokens=found.decided,
        measure="share of blind choices",
        higher_is_better=True,
        p=found.p,
    )
