"""Rows as a job learns them, one at a time: under its profile, as tokens. Everything that follows from is one hash."""

import hashlib
import json
from pathlib import Path

import rendering
from core.config import Config
from core.tasks import RowsOf
from rendering.profiles import prepare
from rendering.profiles.registry import profile_of
from rendering.rows import Row, spec_of
from rendering.tokens import Renderer
from store.bases import read_base
from store.seals import hash_file
from trainer import examples
from trainer.examples import Example, encode_row


class Encoder:
    """Encodes rows that are learnt token by token."""

    def __init__(self, renderer: Renderer, config: Config, base: Path) -> None:
        """Raises ConfigError for a profile that is not there."""
        self.renderer, self.config = renderer, config
        self.profile = profile = profile_of(config.profile, config.profiles)
        described = read_base(base)
        self.sha256 = hashlib.sha256(
            json.dumps(
                [
                    _code_sha256(),
                    [described.tokenizer_sha256, described.template_sha256, described.eos_token, described.bos_token],
                    [profile.name, profile.version, profile.given, profile.sha256],
                    config.training.last_turn_only,
                ]
            ).encode()
        ).hexdigest()

    def __call__(self, row: Row) -> Example:
        """The row as tokens. Raises ChildError BAD_DATA where the base's template cannot express it, LoradError where the profile fails."""
        return encode_row(self.renderer, prepare([row], self.profile, last_turn_only=self.config.training.last_turn_only)[0])


def is_plain(sources: tuple[RowsOf, ...], config: Config) -> bool:
    """Whether every row of these drops is learnt token by token and none is chosen by what it says: then rows can stay in token files."""
    pairs = config.training.corrections == "preference"
    return not config.stages and config.objective in ("auto", "sft") and all(_is_plain(source, pairs) for source in sources)


def _is_plain(source: RowsOf, pairs: bool) -> bool:
    return spec_of(source).objective == "sft" and not (pairs and source.schema_id == "correction_v1")


def _code_sha256() -> str:
    """Over the code that turns rows into tokens: tokens that another lorad made are not taken for ours."""
    files = [*sorted(Path(rendering.__file__).parent.rglob("*.py")), Path(examples.__file__)]
    return hashlib.sha256("".join(hash_file(path) for path in files).encode()).hexdigest()
