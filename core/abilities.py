"""What each backend can do, as data, and what of a job it cannot: asked before anything starts. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from core.config import Config
from core.errors import ConfigError

PRIORITY = ("unsloth", "peft", "mlx", "stub")
"""From the fastest to the one that trains nothing; PEFT comes before MLX on a GPU, and after it on an Apple machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Abilities:
    """What a backend can do with rows, values and machines."""

    methods: frozenset[str]
    objectives: frozenset[str]
    optimizers: frozenset[str]
    quantisation: frozenset[str] = frozenset()  # of the base, while it trains
    packing: bool = True  # rows without padding, none seen by another
    vision: bool = False
    resume: bool = True  # to the bit where the hardware allows it
    dora: bool = False
    rslora: bool = True
    patience: bool = True  # ends early by the dev loss
    auto_rate: bool = True
    stages: bool = False
    many_processes: bool = False


ABILITIES: dict[str, Abilities] = {
    "unsloth": Abilities(
        methods=frozenset({"lora", "qlora"}),
        objectives=frozenset({"sft"}),
        optimizers=frozenset({"adamw", "adamw_8bit"}),
        quantisation=frozenset({"nf4"}),
        packing=False,
    ),
    "peft": Abilities(
        methods=frozenset({"lora", "qlora", "full"}),
        objectives=frozenset({"sft", "dpo", "kto", "orpo"}),
        optimizers=frozenset({"adamw", "adamw_8bit"}),
        quantisation=frozenset({"nf4"}),
        dora=True,
        stages=True,
        many_processes=True,
    ),
    "mlx": Abilities(
        methods=frozenset({"lora"}),
        objectives=frozenset({"sft"}),
        optimizers=frozenset({"adamw"}),
        packing=False,
        patience=False,
        auto_rate=False,
    ),
    "stub": Abilities(
        methods=frozenset({"lora", "qlora", "full"}),
        objectives=frozenset({"sft", "dpo", "kto", "orpo"}),
        optimizers=frozenset({"adamw", "adamw_8bit"}),
        quantisation=frozenset({"nf4"}),
        dora=True,
        stages=True,
        many_processes=True,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfit:
    """A key of a job that a backend cannot carry out, and the backends that could."""

    key: str
    value: object
    backend: str
    able: tuple[str, ...]

    @property
    def words(self) -> str:
        """For people: what, and who could."""
        able = " or ".join(self.able) or "none"
        return f"the backend {self.backend!r} cannot do {self.key} = {self.value!r}; {able} could"


def unfit_keys(config: Config, backend: str, objective: str = "") -> Iterator[Unfit]:
    """What of the config a backend cannot do, key by key. `auto` fits anywhere.

    Args: objective: what the rows of the job are learnt by, where it is known and the config leaves it open.
    """
    for key, value, field in _asked(config, objective):
        if not _can(ABILITIES[backend], field, value):
            able = tuple(name for name in PRIORITY if name != "stub" and _can(ABILITIES[name], field, value))
            yield Unfit(key=key, value=value, backend=backend, able=able)


def require_able(config: Config, backend: str, objective: str = "") -> None:
    """Raises ConfigError BACKEND_UNABLE where the backend cannot do what the job asks for."""
    if found := list(unfit_keys(config, backend, objective)):
        common = [name for name in found[0].able if all(name in one.able for one in found)]
        able = "peft" if "peft" in common else next(iter(common), "")  # which runs everywhere
        hint = f'set "backend": "{able}" where it is installed, or change {found[0].key}' if able else f"change {found[0].key}"
        raise ConfigError("; ".join(one.words for one in found), hint=hint, code="BACKEND_UNABLE")


def _asked(config: Config, objective: str) -> Iterator[tuple[str, object, str]]:
    """(key, value, field of Abilities) of what a job asks for beyond the ordinary."""
    yield "method", config.method, "methods"
    wanted = objective if config.objective == "auto" and objective else config.objective
    yield "objective", wanted, "objectives"
    if config.objective == "auto" and config.training.corrections == "preference":
        yield "training.corrections", "preference", "corrections"
    yield "training.optimizer", config.training.optimizer, "optimizers"
    yield "lora.use_dora", config.lora.use_dora, "dora"
    yield "lora.use_rslora", config.lora.use_rslora, "rslora"
    yield "training.patience", config.training.patience, "patience"
    yield "training.auto_rate", config.training.auto_rate, "auto_rate"
    yield "stages", len(config.stages), "stages"
    spread = config.distributed
    yield "distributed.processes", spread.processes if spread.processes > 1 else 0, "many_processes"
    yield "distributed.ray_address", spread.ray_address, "many_processes"


def _can(abilities: Abilities, field: str, value: object) -> bool:
    if field == "corrections":
        return "dpo" in abilities.objectives
    found = getattr(abilities, field)
    return value == "auto" or value in found if isinstance(found, frozenset) else not value or bool(found)
