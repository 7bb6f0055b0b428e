"""persona: the system prompt and the voice of one speaker, in training and in serving alike."""

from collections.abc import Sequence
from typing import Annotated

import msgspec

from core.answering import AnswerRules
from rendering.profiles.profile import DataProfile, with_system
from rendering.specs import Message


class PersonaOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who speaks, and how."""

    name: Annotated[str, msgspec.Meta(min_length=1)]
    voice: str = ""


class Persona(DataProfile):
    """One speaker."""

    name = "persona"
    adds = "a system prompt that names the speaker and the voice"
    Options = PersonaOptions

    @property
    def system(self) -> str:
        """The system prompt."""
        voice = self.options.voice.strip().rstrip(".")
        return f"You are {self.options.name}." + (f" Your voice: {voice}." if voice else "")

    @property
    def rules(self) -> AnswerRules:
        """The same system prompt for every request."""
        return AnswerRules(system=self.system)

    def change(self, messages: Sequence[Message], draw: bytes) -> list[Message]:
        """The conversation with the speaker's system prompt first."""
        return with_system(messages, self.system)
