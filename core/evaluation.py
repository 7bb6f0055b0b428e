"""The section `ranking` of the config: what counts as better, and what it is measured by."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from core.sections import Count, Section, Share, Words

FLOOR = 0.8  # least quality where a task metric is named and nobody said otherwise


class JudgeConfig(Section):
    """A model that compares two answers, behind an OpenAI-compatible endpoint."""

    url: str = ""
    """Address of the endpoint, up to and with /v1; empty: no judge is asked."""
    model: str = ""
    """Name of the judge there."""
    key_file: str = ""
    """File with the key of the endpoint; empty: none is sent. A relative path starts at the config's folder."""
    votes: Annotated[int, Field(ge=3, le=99)] = 3
    """Votes on each pair in each order."""
    timeout_s: Annotated[float, Field(gt=0)] = 60.0
    """Longest wait for one vote."""

    @model_validator(mode="after")
    def _whole(self) -> "JudgeConfig":
        if bool(self.url) != bool(self.model):
            raise ValueError("name both url and model of the judge, or neither")
        return self


class RankingConfig(Section):
    """What counts as better."""

    rule: Literal["superior", "retained"] = "superior"
    """superior: proven better on this drop's rows; retained: not worse on any leg, and better on this drop's rows by its mean."""
    resamples: Annotated[int, Field(ge=100)] = 10_000
    """Bootstrap resamples."""
    margin: Annotated[float, Field(ge=0)] = 0.02
    """How much worse (nats per token) a candidate may be on earlier drops' rows and still count as not worse."""
    retention: Share = 0.95
    """Share of the incumbent's quality on earlier drops' rows that a candidate must retain."""
    min_gate_groups: Count = 30
    """Fewer gate groups than this, earlier drops' pooled, are too weak to judge by: the job is held."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the resamples."""
    metric: str = ""
    """Task metric that answers to held-out rows are scored by, 0 to 1 (`lorad metrics list`); empty: quality is token accuracy."""
    min_quality: Share | None = None
    """Least quality of a candidate; unset: 0.8 where a task metric is named, else no floor."""
    answers: Count = 200
    """Most held-out rows that answers are generated for, where a metric, a profile or a judge needs answers."""
    max_new_tokens: Count = 256
    """Longest such answer."""
    suites: Words = ("auto",)
    """Regression suites by name: shipped, in suites/, `lm_eval:TASK`; auto: shipped ones that this machine affords; empty: none. Against the base they warn."""
    suite_margin: Share = 0.02
    """How much worse a candidate may be on a suite and still count as not worse."""
    suite_margins: dict[str, Share] = {}  # noqa: RUF012 - pydantic copies it
    """The same for single suites, by name."""
    critical_suites: Words = ()
    """Suites on which a proven regression refuses, and on the others holds; empty: on all. One named here refuses against the base too."""
    profile: str = ""
    """Ranking profile: a set of metrics with targets; persona is shipped."""
    targets: dict[str, Share] = {}  # noqa: RUF012
    """Other targets for single metrics of the profile."""
    judge: JudgeConfig = JudgeConfig()
    """Compares the answers of candidate and incumbent."""
    rating: bool = False
    """Whether a person's blind rating (`lorad compare --rate`) is a leg of the verdict."""

    @property
    def floor(self) -> float | None:
        """Least quality of a candidate; None: there is no absolute floor."""
        return self.min_quality if self.min_quality is not None else FLOOR if self.metric else None
