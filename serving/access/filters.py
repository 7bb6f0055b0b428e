"""Content filters on the way in and out: patterns first, then classifiers; each logs, redacts or refuses.

They stand around the engine, so that every door passes them. A log line names the filter and never the text.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import msgspec

from core.deployment import FilterConfig
from core.errors import LoradError
from rendering.specs import Message
from serving.access.classifier import Classifier, Windows
from serving.access.patterns import Finder, Pattern
from serving.engines.port import Ask

log = logging.getLogger(__name__)

REDACTED = "[redacted]"
REFUSED_END: Literal["content_filter"] = "content_filter"  # OpenAI's word for it, as a finish_reason and as a code


class ContentRefused(LoradError):
    """A filter of this box refuses the request."""


class Seeker(Protocol):
    """Looks at a text that comes in pieces."""

    def feed(self, text: str, *, is_last: bool = False) -> Iterator[tuple[str, bool]]:
        """(a part that is decided, whether it was found in it) in order; together they are the text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One filter."""

    name: str
    config: FilterConfig
    seeker: Callable[[], Seeker]


Hit = Callable[[str, str, str], None]  # name, does, in or out


class Filters:
    """The filters of this box. Raises ConfigError for a pattern or a classifier that cannot be used."""

    def __init__(self, filters: Mapping[str, FilterConfig], heard: Hit) -> None:
        self._stages = sorted((_stage(name, config) for name, config in filters.items()), key=lambda stage: bool(stage.config.classifier))
        self._heard = heard

    @property
    def changes_answers(self) -> bool:
        """Whether an answer may be shown otherwise than the engine made it."""
        return any(stage.config.does != "log" for stage in self._of("out"))

    def incoming(self, ask: Ask) -> Ask:
        """What the engine may be asked. Raises ContentRefused."""
        if not self._of("in"):
            return ask
        text = None if ask.text is None else self._cleaned(ask.text)
        own = ask.rules.system  # of the release's profile, not of whoever asks
        messages = tuple(message if own and message.content == own else self._clean_message(message) for message in ask.messages)
        return replace(ask, text=text, messages=messages)

    def admitted(self, message: Message) -> Message:
        """A message of a request that no engine sees, such as feedback, as it may be kept. Raises ContentRefused."""
        return self._clean_message(message) if self._of("in") else message

    def quietly(self, message: Message) -> Message:
        """A message of a request that was let in, as the engine saw it; nothing is logged or counted again. Raises ContentRefused."""
        return self._clean_message(message, tells=False) if self._of("in") else message

    def outgoing(self) -> "Outgoing | None":
        """For one answer; None where no filter looks at answers."""
        stages = self._of("out")
        return Outgoing(stages, self._heard) if stages else None

    def _of(self, way: str) -> list[Stage]:
        return [stage for stage in self._stages if stage.config.on in (way, "both")]

    def _clean_message(self, message: Message, *, tells: bool = True) -> Message:
        calls = tuple(msgspec.structs.replace(call, arguments=self._cleaned(call.arguments, tells=tells)) for call in message.tool_calls)
        return msgspec.structs.replace(message, content=self._cleaned(message.content, tells=tells), tool_calls=calls)

    def _cleaned(self, text: str, *, tells: bool = True) -> str:
        for stage in self._of("in"):
            parts = list(stage.seeker().feed(text, is_last=True))
            if not any(found for _, found in parts):
                continue
            if tells:
                _tell(stage, "in", self._heard)
            if stage.config.does == "refuse":
                hint = "leave out what its owner does not want here"
                raise ContentRefused(f"the content filter {stage.name!r} of this server refuses the request", hint=hint, code=REFUSED_END.upper())
            if stage.config.does == "redact":
                text = "".join(REDACTED if found else part for part, found in parts)
        return text


class Outgoing:
    """One answer on its way out."""

    def __init__(self, stages: list[Stage], heard: Hit) -> None:
        self._stages = [(stage, stage.seeker()) for stage in stages]
        self._heard = heard
        self._told: set[str] = set()
        self.is_refused = False

    def feed(self, text: str, *, is_last: bool = False) -> str:
        """What may be shown now. Once `is_refused` nothing more comes."""
        shown = text
        for stage, seeker in self._stages:
            shown = self._through(stage, seeker, shown, is_last=is_last)
        return shown

    def _through(self, stage: Stage, seeker: Seeker, text: str, *, is_last: bool) -> str:
        shown: list[str] = []
        for part, found in seeker.feed(text, is_last=is_last):
            if found and stage.name not in self._told:
                self._told.add(stage.name)
                _tell(stage, "out", self._heard)
            if found and stage.config.does == "refuse":
                self.is_refused = True
                break
            shown.append(REDACTED if found and stage.config.does == "redact" else part)
        # What a filter that only logs has not decided yet is shown all the same.
        return text if stage.config.does == "log" else "".join(shown)


def _stage(name: str, config: FilterConfig) -> Stage:
    if config.classifier:
        classifier = Classifier(name, config.classifier, config.label, config.threshold)
        return Stage(name=name, config=config, seeker=lambda: Windows(classifier))
    pattern = Pattern(name, config.pattern)
    return Stage(name=name, config=config, seeker=lambda: Finder(pattern))


def _tell(stage: Stage, way: str, heard: Hit) -> None:
    heard(stage.name, stage.config.does, way)
    log.warning("content filter %s: %s (%s)", stage.name, stage.config.does, way, extra={"action": "filter_hit", "filter": stage.name})
