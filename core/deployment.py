"""The config of the boxes that answer: targets and their roads, the rehearsal before a flip, the watch after it, serving."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from core.access import RATE, RATE_NAMES
from core.errors import UsageError
from core.names import is_part, parse_adapter
from core.sections import RESTART_BOTH, RESTART_SERVING, Count, Section, Share, Words

PUBLIC_HINT = "make a key with `lorad keys add NAME`, or serve on 127.0.0.1"
SSH_WORD = r"[A-Za-z0-9_][A-Za-z0-9._:-]*"  # of a host or a user; never with a dash in front, which ssh would read as an option


class TargetConfig(Section):
    """One inference box."""

    name: str
    """Name of the target: a folder under targets/."""
    kind: Literal["local", "ssh"] = "local"
    """How it is reached: a folder of this machine, or rsync over ssh."""
    host: Annotated[str, Field(pattern=f"^({SSH_WORD})?$")] = ""
    """Name or address of the box; only for kind ssh."""
    user: Annotated[str, Field(pattern=f"^({SSH_WORD})?$")] = "lorad"
    """User on the box whose authorized_keys holds the two confined keys."""
    port: Annotated[int, Field(ge=1, le=65535)] = 22
    """Port of its sshd."""
    key: str = ""
    """Private key that may write in/ and nothing else; empty means the one that `lorad deploy setup` made under keys/."""
    read_key: str = ""
    """Private key that may read out/ and nothing else; empty means the one that `lorad deploy setup` made under keys/."""
    known_host: str = ""
    """The box's pinned host key, "ssh-ed25519 AAAA…"; empty means the one that `lorad deploy setup` wrote down."""
    path: str = ""
    """Folder on the box that serving owns; for kind local, a relative path starts at the config's folder."""
    canary: bool = False
    """Whether this target is asked first; the others follow when it has watched the release for its window."""

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        if not is_part(value):
            raise ValueError("use a-z, 0-9, '.', '_', '-'")
        return value

    @model_validator(mode="after")
    def _is_whole(self) -> "TargetConfig":
        if self.kind == "ssh" and not (self.host and self.path.startswith("/")):
            raise ValueError("kind ssh needs host, and path as an absolute path on that box")
        if self.kind == "local" and self.host:
            raise ValueError('host belongs to "kind": "ssh"')
        return self


class RehearsalConfig(Section):
    """The trial of a release beside the live one, before the flip."""

    enabled: bool = False
    """Whether every release is rehearsed before it goes live; `lorad deploy rehearse` does it by hand."""
    requests: Annotated[int, Field(ge=1, le=10000)] = 32
    """Sample prompts that are asked."""
    clients: Annotated[int, Field(ge=1, le=64)] = 4
    """How many ask at once."""
    max_error_share: Share = 0.01
    """Most of the answers that may fail."""
    max_latency_ms: Annotated[float, Field(ge=0)] = 0
    """Most milliseconds to the first token at the 95th percentile; 0 means no bound."""
    min_requests_s: Annotated[float, Field(ge=0)] = 0
    """Fewest answers a second; 0 means no bound."""
    max_latency_ratio: Annotated[float, Field(ge=0)] = 2.0
    """Most times the live release's own latency at the same prompts; 0 means no bound."""


class WatchConfig(Section):
    """The guard after a flip. It rolls back by itself."""

    window_s: Annotated[float, Field(ge=0)] = 600
    """How long a new release is compared with the one before it; 0 means never."""
    every_s: Annotated[float, Field(gt=0)] = 60
    """How often the canary prompts are asked within the window."""
    min_requests: Count = 20
    """Fewest answers of each side before their rates are compared."""
    max_error_share: Share = 0.05
    """Share of failed answers above that of the release before, at which it is rolled back."""
    max_latency_ratio: Annotated[float, Field(ge=0)] = 2.0
    """Times the latency of the release before, at which it is rolled back; 0 means no bound."""
    max_negative_share: Share = 0.2
    """Share of negative feedback above that of the release before, at which it is rolled back."""
    canary_share: Share = 0
    """Share of the users, each always on the same side, that the new release answers while it is watched; 0 means all."""
    shadow_share: Share = 0
    """Share of the requests that the new release answers too, compared and never shown, before it is shown to anyone; 0 means none."""


class DeployConfig(Section):
    """Where releases go."""

    targets: tuple[TargetConfig, ...] = ()
    """Inference boxes; empty means one local target at serving.home."""
    encryption_key: Annotated[str, Field(json_schema_extra=RESTART_SERVING)] = ""
    """File with 32 random bytes in hex: the weights of releases packed from now on are encrypted with it (AES-256-GCM), and the servers need it too."""
    rehearsal: RehearsalConfig = RehearsalConfig()
    """The trial of a release beside the live one, before the flip."""
    watch: WatchConfig = WatchConfig()
    """The guard after a flip."""
    sets: dict[str, dict[str, Annotated[float, Field(ge=-4, le=4)]]] = {}  # noqa: RUF012
    """What a persona's name alone stands for beside its own adapters: {"ada": {"shared/tone": 0.5}}, with scales."""

    @field_validator("targets", mode="before")
    @classmethod
    def _tuple(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("targets")
    @classmethod
    def _names(cls, value: tuple[TargetConfig, ...]) -> tuple[TargetConfig, ...]:
        names = [target.name for target in value]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"two targets are named {twice!r}; each has a folder and a link of its own")
        return value

    @field_validator("sets")
    @classmethod
    def _adapters(cls, value: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
        try:
            return {persona: {parse_adapter(name, shared=True): scale for name, scale in scales.items()} for persona, scales in value.items()}
        except UsageError as error:
            raise ValueError(f"{error.what}; {error.hint}") from None


class SamplingConfig(Section):
    """How tokens are chosen where a request is silent."""

    temperature: Annotated[float, Field(ge=0, le=2)] = 0.7
    """Temperature; 0 is greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Tokens are drawn from the likeliest that have this much probability together."""
    top_k: Annotated[int, Field(ge=0)] = 50
    """Tokens are drawn from so many of the likeliest; 0 means all."""
    repetition_penalty: Annotated[float, Field(ge=1, le=2)] = 1.1
    """Divides the odds of tokens that were there already; 1 means none."""


class ConversationConfig(Section):
    """The conversation service."""

    messages: Annotated[int, Field(ge=0, le=1000)] = 10
    """Last messages of a session that go with a new one."""
    tokens: Annotated[int, Field(ge=0)] = 2048
    """Most tokens of them; 0 means no bound but the model's context."""
    keep_days: Annotated[float, Field(ge=0)] = 30
    """Days after its last message that a history is kept."""
    personas: dict[str, str] = {}  # noqa: RUF012
    """What the system prompt of a persona says: {"ada": "You are Ada …"}."""


class FilterConfig(Section):
    """A content filter of one's own."""

    pattern: str = ""
    """Regular expression (RE2 syntax) that is looked for."""
    classifier: str = ""
    """A supervised fastText model (.ftz, .bin) that is asked instead; it comes after all patterns."""
    label: str = ""
    """The label of that model at which the filter acts."""
    threshold: Share = 0.5
    """Least probability of the label."""
    on: Literal["in", "out", "both"] = "both"
    """Whether requests, answers or both are looked at."""
    does: Literal["log", "redact", "refuse"] = "log"
    """What is done where it is found."""

    @model_validator(mode="after")
    def _is_one_kind(self) -> "FilterConfig":
        if bool(self.pattern) == bool(self.classifier) or bool(self.classifier) != bool(self.label):
            raise ValueError("a filter has either pattern, or classifier and label")
        return self


class CaptureConfig(Section):
    """What the box keeps of conversations, so that feedback may name a response id."""

    enabled: bool = False
    """Whether prompts and answers are kept, encrypted, on the box."""
    days: Annotated[float, Field(gt=0)] = 7
    """Days that they are kept."""


class GrpcConfig(Section):
    """The gRPC door."""

    listen: str = ""
    """unix:/path/of.sock or host:port (which needs the three files below); empty means no gRPC."""
    cert: str = ""
    """The server's certificate chain, PEM."""
    key: str = ""
    """Its private key, PEM."""
    client_ca: str = ""
    """Certificates that clients' own must be signed by, PEM."""
    grace_s: Annotated[float, Field(ge=0)] = 60
    """Seconds before an unloaded adapter leaves the engine."""


class ServingConfig(Section):
    """The serving process."""

    host: Annotated[str, Field(json_schema_extra=RESTART_SERVING)] = "127.0.0.1"
    """Address to listen on."""
    port: Annotated[int, Field(ge=1, le=65535, json_schema_extra=RESTART_SERVING)] = 8765
    """Port to listen on."""
    home: Annotated[str, Field(json_schema_extra=RESTART_BOTH)] = ""
    """Folder that serving owns; empty means <home>/serving."""
    trust: Annotated[str, Field(json_schema_extra=RESTART_SERVING)] = ""
    """Folder with release.pub, the public key that releases and wishes are signed with; empty means <home>/keys."""
    engine: Annotated[Literal["auto", "llamacpp", "transformers", "vllm", "stub"], Field(json_schema_extra=RESTART_SERVING)] = "auto"
    """What computes the answers; auto takes vllm on CUDA where it is installed, llamacpp on a CPU where the base has a GGUF, else transformers."""
    quantization: Annotated[Literal["none", "nf4", "int8"], Field(json_schema_extra=RESTART_SERVING)] = "none"
    """Precision of the base's weights on CUDA; other engines have their own."""
    tensor_parallel: Annotated[int, Field(ge=1, json_schema_extra=RESTART_SERVING)] = 1
    """GPUs that one copy of the model is spread over (vllm)."""
    cuda_graphs: Annotated[bool, Field(json_schema_extra=RESTART_SERVING)] = True
    """Whether vllm captures CUDA graphs."""
    device_map: Annotated[str, Field(json_schema_extra=RESTART_SERVING)] = ""
    """Device map of transformers, for example auto or cuda:1; empty means one device."""
    prefix_mb: Annotated[int, Field(ge=0, json_schema_extra=RESTART_SERVING)] = 256
    """Most bytes of beginnings of prompts that transformers keeps computed, in MiB; 0 means none."""
    max_new_tokens: Annotated[int, Field(ge=1, json_schema_extra=RESTART_SERVING)] = 256
    """Tokens of an answer where the request names no limit."""
    sampling: Annotated[SamplingConfig, Field(json_schema_extra=RESTART_SERVING)] = SamplingConfig()
    """How tokens are chosen where a request is silent."""
    threads: Annotated[int, Field(ge=0, json_schema_extra=RESTART_SERVING)] = 0
    """CPU threads; 0 means all cores."""
    streams: Annotated[int, Field(ge=1, le=256, json_schema_extra=RESTART_SERVING)] = 8
    """Answers that are computed at once."""
    queue: Annotated[int, Field(ge=0, json_schema_extra=RESTART_SERVING)] = 64
    """Requests that may wait for a stream; one more is answered with 429."""
    timeout_s: Annotated[float, Field(gt=0, json_schema_extra=RESTART_SERVING)] = 300
    """Most seconds that one answer may take, waiting included."""
    adapters_mb: Annotated[int, Field(ge=0, json_schema_extra=RESTART_SERVING)] = 0
    """Most bytes of adapters kept loaded beside the live ones, in MiB; the least recently used leaves first. 0 means the previous release only."""
    releases_gb: Annotated[float, Field(ge=0, json_schema_extra=RESTART_SERVING)] = 0
    """Most that releases may hold on this box's disk, in GB; live, previous and pinned ones stay. 0 means no bound."""
    max_rank: Annotated[int, Field(ge=1, le=512)] = 512
    """Largest rank of an adapter that the servers load (vLLM: its --max-lora-rank, 16 where nobody set it); a training's rank is capped by it."""
    hosts: Annotated[Words, Field(json_schema_extra=RESTART_SERVING)] = ()
    """Names that clients may call this server by (Host header), beside localhost and serving.host; empty with API keys means any."""
    max_body_kb: Annotated[int, Field(ge=1, json_schema_extra=RESTART_SERVING)] = 1024
    """Largest body of a request, in KiB."""
    rates: Annotated[dict[str, str], Field(json_schema_extra=RESTART_SERVING)] = {}  # noqa: RUF012
    """Most requests of one key (or address) by route: {"chat": "60/minute", "*": "600/minute"}; where it says nothing: feedback 12000/minute."""
    tls_cert: Annotated[str, Field(json_schema_extra=RESTART_SERVING)] = ""
    """Certificate chain, PEM; with tls_key the server speaks TLS."""
    tls_key: Annotated[str, Field(json_schema_extra=RESTART_SERVING)] = ""
    """Private key of it, PEM."""
    filters: Annotated[dict[str, FilterConfig], Field(json_schema_extra=RESTART_SERVING)] = {}  # noqa: RUF012
    """Content filters, by a name of your own."""
    log_prompts: Annotated[bool, Field(json_schema_extra=RESTART_SERVING)] = False
    """Whether prompts and answers stand in the log."""
    capture: Annotated[CaptureConfig, Field(json_schema_extra=RESTART_SERVING)] = CaptureConfig()
    """What the box keeps of conversations."""
    conversation: Annotated[ConversationConfig, Field(json_schema_extra=RESTART_SERVING)] = ConversationConfig()
    """The conversation service."""
    grpc: Annotated[GrpcConfig, Field(json_schema_extra=RESTART_SERVING)] = GrpcConfig()
    """The gRPC door."""

    @field_validator("rates")
    @classmethod
    def _rates(cls, value: dict[str, str]) -> dict[str, str]:
        for name, rate in value.items():
            if name not in RATE_NAMES:
                raise ValueError(f"no route is called {name!r}; there are {', '.join(sorted(RATE_NAMES))}")
            if not RATE.fullmatch(rate):
                raise ValueError(f'{name}: {rate!r} is no rate; write "60/minute" (second, minute, hour, day)')
        return value

    @model_validator(mode="after")
    def _tls_is_whole(self) -> "ServingConfig":
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ValueError("tls_cert and tls_key belong together")
        return self
