"""plain: rows are learnt as they were dropped."""

from collections.abc import Sequence

from rendering.profiles.profile import DataProfile
from rendering.specs import Message


class Plain(DataProfile):
    """The default."""

    name = "plain"
    adds = "nothing"

    def change(self, messages: Sequence[Message], draw: bytes) -> list[Message]:
        """The conversation itself."""
        return list(messages)
