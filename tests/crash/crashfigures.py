"""What a test measured, to be printed at the end of the run."""

KEY = "crash figures"


class Figures:
    """By name: a number, to be added up over all tests, or a list of seconds."""

    def __init__(self) -> None:
        self.values: dict[str, float | list[float]] = {}

    def add(self, name: str, value: float) -> None:
        known = self.values.get(name, 0)
        assert not isinstance(known, list)
        self.values[name] = known + value

    def seconds(self, name: str, values: list[float]) -> None:
        self.values[name] = [round(value, 3) for value in values]
