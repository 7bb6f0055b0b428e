"""`lorad chat`: talk to the served model in the terminal."""

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from cli.options import config_option
from core.errors import LoradError

if TYPE_CHECKING:
    from cli.talking import Server

HELP = """\
/adapter NAME   another adapter answers from now on (support/tone, support/tone@v3, the base); alone: what there is
/length WORD    auto, short, medium or long answers
/reset          begin anew: what was said goes with no new message
/history        what was said
/why            which release gave the last answer
+               the last answer was right
-               the last answer was wrong
= TEXT          it was wrong, and TEXT is right; what you rate may be trained on
/delete         delete this session on the server, and begin another
/quit           leave (Ctrl-D too); Ctrl-C breaks an answer off"""
RATINGS = {"+": "positive", "-": "mistake", "=": "correction"}
LENGTHS = ("auto", "short", "medium", "long")
PROMPT = "> "
MOST_TURNS = 20  # that go with feedback; an even number, so that they begin with the user
THANKS = {"positive": "right", "mistake": "wrong", "correction": "corrected"}


@click.command()
@click.option("--adapter", default="", metavar="NAME", help="What answers: persona/domain, persona/domain@v3, a persona, the base; else default/main.")
@click.option("--url", default="", metavar="URL", help="Server to talk to; else the config's own.")
@config_option
def chat(adapter: str, url: str, config: str | None) -> None:
    """Talk to the served model: answers come as they are made, and it remembers what was said.

    In the terminal /help lists the commands. With something piped in, that is the message, and the answer is printed.
    The API key of a server that needs one stands in LORAD_API_KEY.
    """
    talker = Talker(_server(url, config), adapter)
    if not sys.stdin.isatty():
        talker.say(sys.stdin.read())
        return
    talker.greet()
    while True:
        try:
            said = input(PROMPT).strip()
        except EOFError:
            click.echo()
            return
        except KeyboardInterrupt:
            click.echo()
            continue
        if said == "/quit":
            return
        if said:
            talker.attend(said)


class Talker:
    """One session at the terminal. Answers go to standard output, everything else to standard error."""

    def __init__(self, server: "Server", adapter: str) -> None:
        self._server = server
        self._adapter = adapter
        self._length = "auto"
        self._session = ""
        self._last: dict[str, Any] = {}

    def greet(self) -> None:
        """Say who answers. Raises LoradError where nobody does."""
        models = self._models()
        if self._adapter and self._adapter not in models:
            raise LoradError(f"no model {self._adapter!r} is served", hint=f"there are {', '.join(models)}", code="MODEL_NOT_FOUND")
        if os.name == "posix":
            import readline  # noqa: F401 - input() edits lines and remembers them once it was imported
        _note(f"{self._adapter or 'default/main'} answers; /help lists the commands")

    def attend(self, said: str) -> None:
        """A message or a command; what goes wrong is told, and the talk goes on."""
        try:
            if said in RATINGS or said.startswith("= "):
                self.rate(RATINGS[said[0]], said[1:].strip())
            elif said.startswith("/"):
                self._command(*said[1:].split(maxsplit=1))
            else:
                self.say(said)
        except LoradError as error:
            _note(f"{error.code}: {error.what}" + (f" ({error.hint})" if error.hint else ""), fg="red")
        except KeyboardInterrupt:
            click.echo()
            _note("broken off; it is not kept")

    def say(self, message: str) -> None:
        """Send a message and print its answer while it comes. Raises LoradError."""
        asked = {"message": message, "length": self._length, "session_id": self._session or None, "model": self._adapter or None}
        for event in self._server.events(asked):
            if event["type"] == "queued":
                _note(f"in line: {event['position']}")
            elif event["type"] == "begun" and event["fallback"]:
                _note(f"the base answers, not {event['fallback']['wanted']}: {event['fallback']['reason']}", fg="yellow")
            elif event["type"] == "text":
                click.echo(event["text"], nl=False)
            elif event["type"] == "done":
                click.echo()
                self._session, self._last = event["session_id"], event

    def rate(self, kind: str, right: str = "") -> None:
        """Tell the server that its last answer was right, wrong, or what would have been right. Raises LoradError."""
        if not self._last or not self._session:
            _note("nothing was answered yet")
            return
        if kind == "correction" and not right:
            _note("write what would have been right behind the =", fg="red")
            return
        session = self._server.history(self._session)
        said = {"response_id": self._last["response_id"], "model": session["model"], "kind": kind, "user": self._session, "consent": True}
        if right:
            said["correction"] = right
        kept = self._server.rate(said | {"messages": _up_to(session, self._last["response_id"])})
        _note(f"{THANKS[kind]}; kept for {kept['adapter']} as {kept['id'][:12]}")

    def _command(self, name: str = "", word: str = "") -> None:
        commands: dict[str, Callable[[str], None]] = {
            "adapter": self._choose,
            "length": self._measure,
            "reset": self._reset,
            "history": self._tell,
            "why": self._explain,
            "delete": self._delete,
            "help": lambda _: click.echo(HELP),
        }
        if name in commands:
            commands[name](word)
        else:
            _note(f"there is no /{name}; /help lists the commands", fg="red")

    def _choose(self, name: str) -> None:
        models = self._models()
        if name in models:
            self._adapter = name
            _note(f"{name} answers from now on")
        else:
            _note(("" if not name else f"no {name!r}; ") + "there are " + ", ".join(models))

    def _measure(self, word: str) -> None:
        if word not in LENGTHS:
            _note(f"one of {', '.join(LENGTHS)}", fg="red")
            return
        self._length = word

    def _reset(self, _: str) -> None:
        if self._session:
            self._server.reset(self._session)
        _note("it begins anew")

    def _tell(self, _: str) -> None:
        for said in self._server.history(self._session)["messages"] if self._session else ():
            click.echo(f"{PROMPT if said['role'] == 'user' else ''}{said['content']}")

    def _explain(self, _: str) -> None:
        if not self._last:
            _note("nothing was answered yet")
            return
        click.echo(f"{self._last['model']} · release {self._last['release']} · lorad why {self._last['response_id']}")

    def _delete(self, _: str) -> None:
        if self._session:
            self._server.delete(self._session)
        self._session = ""
        _note("deleted")

    def _models(self) -> list[str]:
        return [str(model["id"]) for model in self._server.get("/v1/models")["data"]]


def _up_to(session: dict[str, Any], response: str) -> list[dict[str, str]]:
    """The turns that went with an answer, and the answer: with them feedback stands where the server keeps no conversations."""
    told = session["messages"]
    end = next(place for place, said in enumerate(told) if said.get("response_id") == response) + 1
    begin = session["context_from"] if session["context_from"] < end else 0
    kept = told[max(begin, end - MOST_TURNS) : end]
    return [{"role": said["role"], "content": said["content"]} for said in kept]


def _server(url: str, config: str | None) -> "Server":
    from cli.talking import Server, url_of

    key = os.environ.get("LORAD_API_KEY", "")
    if url:
        return Server(url=url, key=key)
    from store.config import ConfigLoader
    from store.config_file import config_path

    serving = ConfigLoader(config_path(config)).load().config.serving
    return Server(url=url_of(serving), key=key, ca=serving.tls_cert)


def _note(text: str, fg: str = "bright_black") -> None:
    click.echo(click.style(text, fg=fg), err=True)
