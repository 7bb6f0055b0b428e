"""Signals that a box finds by itself: corrections in conversations, and tool calls that failed because they were called wrongly.

A request only hands over what was said; one thread looks at it, and puts what it finds into the spool. What it finds in words
is a proposal with its confidence, on which a person decides; a call that cannot be made as it stands is certain. Nothing of it
is owed to anybody: where the line of what is to be looked at is full, or the spool, it is lost, and no request hears of it.
"""

import hashlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from core.corrections import Correction, find_correction, is_open
from core.errors import LoradError
from core.learning import FeedbackConfig
from core.opinions import DETECTED
from core.signals import Origin, Signal, SignalKind, signal_id
from core.toolfailures import wrong_call, wrong_result
from rendering.specs import Message, ToolCall, Tools
from rendering.tooltext import as_text
from serving.access.filters import Filters
from serving.desk import Desk, plain
from serving.meanings import sentence_model_in
from serving.sense import Sense
from store.spool import MOST_BYTES, SpoolFull

log = logging.getLogger(__name__)

TOOL = "tool"  # source of failed calls
MARKUP = "<tool_call>"
LINE = 256  # turns and answers that may wait to be looked at
REMEMBERED = 20_000  # answers whose ids are known: a client that sends a conversation back names none
MOST_CHARACTERS = 16_000  # of a conversation: a longer one is no row, and takes its time to look at
CROWDED = MOST_BYTES // 2  # room in the spool, below which nothing is proposed: whoever may only chat must not fill it
LEAST_SENSE = 0.8  # probability from which the classifier alone proposes
DOUBTED = 0.8  # what it says is taken times this: it hears one turn, and knows nothing of the answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What a row weighs whose signal was found: a user's own words, a rule."""

    human: float = 1.0
    automated: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """A conversation up to and with one answer, and whose it is. `user`: by their own word, hidden before it is written.

    `response` and `release` are those of the answer; empty where only the box's memory may know them.
    """

    asked: tuple[Message, ...]
    answer: Message
    adapter: str
    tools: Tools = ()
    response: str = ""
    release: str = ""
    user: str = ""
    consent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What a detector works with. `put`: of a spool. `clean`: the message as the content filters let it through.
    `hide`: of a user's name. `sense`: how likely a turn corrects the answer before it; None: rules alone."""

    put: Callable[[Sequence[Signal]], "Future[int]"]
    now: Callable[[], datetime]
    clean: Callable[[Message], Message] = lambda message: message
    hide: Callable[[str], str] = lambda user: user
    sense: Callable[[str], float] | None = None
    weights: Weights = Weights()


class Detector:
    """Its `hear_…` return at once. Safe in threads."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._sense = means.sense
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="detection")
        self._room = threading.BoundedSemaphore(LINE)
        self._known: OrderedDict[bytes, tuple[str, str]] = OrderedDict()  # conversation -> (response id, release)
        self._lock = threading.Lock()

    def hear_request(self, messages: Sequence[Message], about: Spoken) -> None:
        """A conversation that goes on: does its newest turn correct the answer before it, do the newest results say that a call was wrong?

        Args: about: adapter, user, consent and tools of the request; `asked` and `answer` do not count.
        """
        last = next((place for place in reversed(range(len(messages))) if messages[place].role == "assistant"), None)
        if last is None:
            return
        spoken, behind = replace(about, asked=tuple(messages[:last]), answer=messages[last]), messages[last + 1 :]
        if _is_long(spoken):
            return
        spoken = self._named(spoken)
        if len(behind) == 1 and behind[0].role == "user":
            self.hear_turn(spoken, behind[0].content)
        elif behind and all(message.role == "tool" for message in behind):
            self._submit(self._look_at_results, spoken, behind)

    def hear_turn(self, spoken: Spoken, said: str) -> None:
        """What a user said after an answer."""
        if not _is_long(spoken):
            self._submit(self._look_at_turn, spoken, said)

    def hear_answer(self, spoken: Spoken) -> None:
        """A whole answer: its id is remembered, and its calls are looked at where tools were declared."""
        if _is_long(spoken):
            return
        with self._lock:
            self._known[_digest(spoken)] = spoken.response, spoken.release
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        if spoken.tools and (spoken.answer.tool_calls or MARKUP in spoken.answer.content):
            self._submit(self._look_at_calls, spoken)

    def close(self) -> None:
        """Look at what waits, then look at nothing more."""
        self._pool.shutdown()

    def _named(self, spoken: Spoken) -> Spoken:
        with self._lock:
            response, release = self._known.get(_digest(spoken), ("", ""))
        return replace(spoken, response=response, release=release)

    def _submit(self, look: Callable[..., None], *words: object) -> None:
        if not self._room.acquire(blocking=False):
            log.info("too much waits to be looked at for corrections: a turn is passed over", extra={"action": "detection_full"})
            return

        def work() -> None:
            try:
                look(*words)
            except SpoolFull as full:
                log.warning("a correction that was found is lost: %s", full, extra={"action": "detection_lost"})
            except Exception:  # the border of the thread: a turn that nobody could foresee must not end it
                log.exception("a turn could not be looked at", extra={"action": "detection_failed"})
            finally:
                self._room.release()

        try:
            self._pool.submit(work)
        except RuntimeError:  # closed meanwhile
            self._room.release()

    # On the detector's thread

    def _look_at_turn(self, spoken: Spoken, said: str) -> None:
        found = self._correction(spoken.answer.content, said) if spoken.answer.content and not spoken.answer.tool_calls else None
        if found is None:
            return
        kind = SignalKind.CORRECTION if found.right else SignalKind.MISTAKE
        words = {"kind": kind, "origin": Origin.HUMAN, "source": DETECTED, "weight": self._means.weights.human, "correct_output": self._cleaned(found.right)}
        self._keep(spoken, words | {"context": self._cleaned(said), "confidence": found.confidence, "metadata": {"rule": found.rule}})

    def _correction(self, answer: str, said: str) -> Correction | None:
        """What the rules find; else, where they leave it open, what the classifier thinks."""
        found = find_correction(answer, said)
        if found is not None or self._sense is None or not is_open(answer, said):
            return found
        try:
            sure = self._sense(said)
        except LoradError as error:
            log.warning("corrections are looked for by rules alone: %s", error, extra={"action": "detection_without_sense"})
            self._sense = None
            return None
        return Correction(rule="classifier", confidence=round(sure * DOUBTED, 2)) if sure >= LEAST_SENSE else None

    def _look_at_results(self, spoken: Spoken, results: Sequence[Message]) -> None:
        why = next((found for result in results if (found := wrong_result(result.content))), "")
        if why and spoken.answer.tool_calls:
            words = {"kind": SignalKind.MISTAKE, "origin": Origin.AUTOMATED, "source": TOOL, "weight": self._means.weights.automated}
            self._keep(spoken, words | {"context": self._cleaned(why), "confidence": 0.7, "metadata": {"rule": "result"}})

    def _look_at_calls(self, spoken: Spoken) -> None:
        calls = [wrong_call(call.name, call.arguments, spoken.tools) for call in spoken.answer.tool_calls]
        if not spoken.answer.tool_calls:
            calls.append("what looks like a call is none, or names a function that nobody declared")
        if why := next(filter(None, calls), ""):
            words = {"kind": SignalKind.MISTAKE, "origin": Origin.AUTOMATED, "source": TOOL, "weight": self._means.weights.automated}
            is_asked_for = not spoken.answer.tool_calls and any(MARKUP in message.content for message in spoken.asked)  # word for word, perhaps
            self._keep(spoken, words | {"context": why, "is_proposal": is_asked_for, "metadata": {"rule": "call"}})

    def _keep(self, spoken: Spoken, words: Mapping[str, Any]) -> None:
        persona, _, domain = spoken.adapter.partition("/")
        asked = tuple(plain(self._means.clean(message)) for message in spoken.asked)
        signal = Signal(
            id="",
            persona=persona,
            domain=domain,
            input=asked,
            wrong_output=_text_of(self._means.clean(spoken.answer)),
            at=self._means.now(),
            release=spoken.release,
            response=spoken.response,
            user=self._means.hide(spoken.user) if spoken.user else "",
            consent=spoken.consent,
            **{"is_proposal": True, **words},
        )
        self._means.put([replace(signal, id=signal_id(signal))]).add_done_callback(_tell_of_failure)

    def _cleaned(self, text: str) -> str:
        return self._means.clean(Message("user", text)).content


def open_detector(config: FeedbackConfig, desk: Desk, filters: Filters, models: Path) -> Detector:
    """The detector of a server. Close it before the desk's spool. Args: models: where the sentence model lies, if it was pulled."""
    folder = sentence_model_in(models)

    def put(signals: Sequence[Signal]) -> "Future[int]":
        if desk.spool.room < CROWDED:
            raise SpoolFull("half of the spool is left to what people send themselves", hint="the link to this box is down", code="SPOOL_FULL")
        return desk.spool.put(signals)

    means = Means(
        put=put,
        now=desk.now,
        clean=filters.quietly,
        hide=desk.hide,
        sense=Sense(folder) if folder is not None else None,
        weights=Weights(human=config.human_weight, automated=config.automated_weight),
    )
    return Detector(means)


def call_message(text: str, calls: Sequence[tuple[str, str, str]]) -> Message:
    """An answer as a message. Args: calls: (name, arguments as JSON text, id)."""
    return Message("assistant", text, tool_calls=tuple(ToolCall(*call) for call in calls))


def _tell_of_failure(taken: "Future[int]") -> None:
    if not taken.cancelled() and (error := taken.exception()) is not None:
        log.warning("a correction that was found is lost: %s", error, extra={"action": "detection_lost"})


def _is_long(spoken: Spoken) -> bool:
    return sum(len(message.content) for message in (*spoken.asked, spoken.answer)) > MOST_CHARACTERS


def _text_of(answer: Message) -> str:
    """The words of an answer, its calls written out."""
    return as_text([answer], ())[0].content if answer.tool_calls else answer.content


def _digest(spoken: Spoken) -> bytes:
    said = [(message.role, _text_of(message), message.tool_call_id) for message in (*spoken.asked, spoken.answer)]
    return hashlib.sha256(msgspec.json.encode([spoken.adapter, said])).digest()[:16]
