"""The queued jobs, so kept that a hundred thousand of them take little memory, and the next one is found without a walk. Pure.

Most of them are plain: nothing is known of them but that they wait. Of those only the ids are here, in one line for each
adapter and priority; who asks for one is given what `look` reads. The others, as those that are paused, that wait for
their time, or that have a checkpoint, are few and stand here whole.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping

from core.records import Job, JobCard, Queued
from core.sortedids import SortedIds


def is_plain(job: Job) -> bool:
    """Whether nothing is known of a job but what its card says and since when it waits."""
    facts = job.facts
    return isinstance(facts, Queued) and job.card.rows_of is not None and facts == Queued(since=facts.since)


class Waiting(Mapping[str, Job]):
    """The queued jobs by id. Written by `put` and `take` alone.

    Args: look: reads a plain job by its id, from whoever keeps the jobs; without it they are kept here.
    """

    def __init__(self, look: Callable[[str], Job] | None = None) -> None:
        self.special: dict[str, Job] = {}
        self._kept: dict[str, Job] | None = {} if look is None else None
        self._look = look or self._of_kept
        self._lines: dict[str, dict[int, SortedIds]] = {}  # adapter -> priority -> ids
        self._same = SortedIds()  # marks of identities, each with the id of a plain job
        self._num_plain = 0

    def _of_kept(self, id: str) -> Job:
        assert self._kept is not None
        return self._kept[id]

    # ---------------------------------------------------------------- change

    def put(self, job: Job) -> None:
        """Take over how a queued job stands now; one that was here before is to be taken out first."""
        if not is_plain(job):
            self.special[job.id] = job
            return
        card = job.card
        line = self._lines.setdefault(card.adapter, {}).setdefault(card.priority, SortedIds())
        self._num_plain += line.add(job.id)
        self._same.add(_mark(card.identity) + job.id)
        if self._kept is not None:
            self._kept[job.id] = job

    def take(self, card: JobCard) -> bool:
        """Take a job out, by its card. Returns whether it was here."""
        if self.special.pop(card.id, None) is not None:
            return True
        lines = self._lines.get(card.adapter, {})
        line = lines.get(card.priority)
        if line is None or not line.discard(card.id):
            return False
        self._num_plain -= 1
        self._same.discard(_mark(card.identity) + card.id)
        if self._kept is not None:
            self._kept.pop(card.id, None)
        if not line:
            del lines[card.priority]
            if not lines:
                del self._lines[card.adapter]
        return True

    # ---------------------------------------------------------------- questions

    def __len__(self) -> int:
        return len(self.special) + self._num_plain

    def __iter__(self) -> Iterator[str]:
        yield from self.special
        for _, _, line in self.lines():
            yield from line

    def __contains__(self, id: object) -> bool:
        return id in self.special or any(id in line for _, _, line in self.lines())

    def __getitem__(self, id: str) -> Job:
        if id in self.special:
            return self.special[id]
        if id not in self:
            raise KeyError(id)
        return self._look(id)

    def plain(self, id: str) -> Job:
        """A job of one of the lines."""
        return self._look(id)

    def lines(self) -> Iterator[tuple[str, int, SortedIds]]:
        """(adapter, priority, ids in order) of the plain jobs; no line is empty."""
        return ((adapter, priority, line) for adapter, lines in self._lines.items() for priority, line in lines.items())

    def has(self, id: str, adapter: str) -> bool:
        """Whether a job of this adapter is queued."""
        special = self.special.get(id)
        return special.card.adapter == adapter if special is not None else self.is_in_line(id, adapter)

    def is_in_line(self, id: str, adapter: str) -> bool:
        """Whether a job of this adapter is queued, and plain."""
        return any(id in line for line in self._lines.get(adapter, {}).values())

    def of_adapter(self, adapter: str) -> Iterator[Job]:
        """The adapter's queued jobs; in each line the newest first."""
        yield from (job for job in self.special.values() if job.card.adapter == adapter)
        for line in self._lines.get(adapter, {}).values():
            yield from (self._look(line[place]) for place in range(len(line) - 1, -1, -1))

    def oldest(self, adapter: str | None = None) -> str | None:
        """The lowest id, of one adapter or of all; None where none waits."""
        special = (id for id, job in self.special.items() if adapter in (None, job.card.adapter))
        heads = (line[0] for name, _, line in self.lines() if adapter in (None, name))
        return min((*special, *heads), default=None)

    def with_identity(self, identity: str) -> list[str]:
        """Ids of the plain jobs with this identity, in order."""
        mark, found = _mark(identity), []
        for place in range(self._same.place_of(mark), len(self._same)):
            if not (text := self._same[place]).startswith(mark):
                break
            found.append(text[len(mark) :])
        return found


def _mark(identity: str) -> str:
    """Twelve bytes that stand for an identity, as text of the same length."""
    return hashlib.blake2b(identity.encode(), digest_size=12).digest().decode("latin-1")
