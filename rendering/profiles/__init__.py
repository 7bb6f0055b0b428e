"""Profiles: how rows are changed before they are learnt, and what that asks of ranking and serving."""

from rendering.profiles.preparation import Change, changes, prepare
from rendering.profiles.profile import DataProfile, with_system
from rendering.profiles.registry import check_profiles, profile_of

__all__ = ["Change", "DataProfile", "changes", "check_profiles", "prepare", "profile_of", "with_system"]
