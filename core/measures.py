"""What is measured: one number with a name and labels. `daemon.metrics` makes them, alert rules and metrics.prom read them. Pure."""

from dataclasses import dataclass

Labels = tuple[tuple[str, str], ...]  # in order; words of lorad's own, never an id, a user or a path


@dataclass(frozen=True, slots=True)
class Measure:
    """`name` is that of metrics.prom without `lorad_`."""

    name: str
    value: float
    labels: Labels = ()

    @property
    def words(self) -> str:
        """For people: `gpu_celsius of gpu=cuda:0`."""
        return self.name + (f" of {', '.join(f'{key}={value}' for key, value in self.labels)}" if self.labels else "")
