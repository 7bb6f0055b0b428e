"""The skills that are known: the two whose teachers ship, at their ports on loopback, and those of the config."""

from collections.abc import Mapping
from dataclasses import dataclass

from core.config import Config
from core.errors import UsageError
from core.learning import SkillConfig
from corpus.curriculum.teachers.binary import Binary
from corpus.curriculum.teachers.port import Teacher
from corpus.curriculum.teachers.syllo import Syllo

TEACHERS: Mapping[str, Teacher] = {"syllo": Syllo(), "binary": Binary()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Skill:
    """A skill by name, with its settings and the adapter that learns it."""

    name: str
    settings: SkillConfig
    adapter: str


def known_skills(config: Config) -> dict[str, Skill]:
    """Those that ship, then those of the config; an entry of the config replaces the shipped one of its name."""
    shipped = {name: SkillConfig(url=f"http://127.0.0.1:{teacher.port}") for name, teacher in TEACHERS.items()}
    settings = shipped | config.skills
    return {name: Skill(name=name, settings=found, adapter=found.adapter or f"skills/{name}") for name, found in settings.items()}


def skills_of(config: Config) -> dict[str, tuple[str, ...]]:
    """The skills that each adapter learns: those of the config, and where it names none, those that ship."""
    found: dict[str, tuple[str, ...]] = {}
    for name, skill in known_skills(config).items():
        if not config.skills or name in config.skills:
            found[skill.adapter] = (*found.get(skill.adapter, ()), name)
    return found


def skill_of(config: Config, name: str) -> Skill:
    """One of them. Raises UsageError."""
    skills = known_skills(config)
    if name not in skills:
        raise UsageError(f"there is no skill {name!r}", hint=f"known: {', '.join(skills)}; add yours to `skills` in the config", code="SKILL_UNKNOWN")
    found = skills[name]
    if found.adapter == "*":
        raise UsageError(f"skills.{name}.adapter = '*' names no adapter", hint="name one, such as skills/arithmetic", code="ADAPTER_NAME")
    return found
