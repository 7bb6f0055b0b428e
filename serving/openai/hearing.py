"""What the detector hears of a chat request and its answers."""

from collections.abc import Sequence
from dataclasses import replace

from rendering.specs import Message
from serving.answers import Wanted
from serving.detection import Spoken, call_message
from serving.routing import Served
from serving.schemas import ChatRequest
from serving.service import Service
from serving.toolcalls import Call


class Hearing:
    """Of one request; where the server detects nothing, it does nothing. `store` is OpenAI's word for: what was said may be kept to train on."""

    def __init__(self, service: Service, body: ChatRequest, wanted: Wanted, served: Served) -> None:
        self._detector = service.detector
        self._wanted = wanted
        self._release = served.label
        adapter = service.routes.table.adapter_of(body.model)
        self._about = Spoken(asked=(), answer=Message("assistant", ""), adapter=adapter, tools=wanted.tools, user=wanted.user, consent=bool(body.store))

    def request(self) -> None:
        """The conversation that the request goes on with."""
        if self._detector is not None:
            self._detector.hear_request(self._wanted.messages, self._about)

    def answer(self, response: str, text: str, calls: Sequence[Call], *, is_cut: bool) -> None:
        """One whole answer. Args: is_cut: by the bound of its length, which may have cut a call in two."""
        if self._detector is not None:
            message = call_message(text, [(call.name, call.arguments, call.id) for call in calls])
            tools = () if is_cut else self._wanted.tools
            self._detector.hear_answer(replace(self._about, asked=self._wanted.messages, answer=message, response=response, release=self._release, tools=tools))
