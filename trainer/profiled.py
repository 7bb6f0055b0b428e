"""The rows of a task under its profile: what is tokenised, trained on and scored. No tensors."""

from collections.abc import Sequence

from core.config import Config
from rendering.profiles import prepare, profile_of
from rendering.rows import Row
from store.codec import to_plain
from trainer.run import RunFolder


def profiled(rows: Sequence[Row], config: Config, run: RunFolder) -> list[Row]:
    """The rows under the config's profile, in order; `run.profile` says which that was. No row is changed twice.

    Raises ConfigError for a profile or options that are wrong, LoradError PROFILE_FAILED for a row that it fails on.
    """
    profile = profile_of(config.profile, config.profiles)
    run.profile = to_plain(profile.record)
    return prepare(rows, profile, last_turn_only=config.training.last_turn_only)
