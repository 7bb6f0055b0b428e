from core.config import Config
from trainer.stability import Stability


def watch(losses: list[float], norms: list[float] | None = None, rate: float = 2e-4) -> Stability:
    seen = Stability(Config.model_validate({}))
    for step, loss in enumerate(losses, start=1):
        seen.see(step, loss, norms[step - 1] if norms else 0.5, rate)
    return seen


def test_a_loss_that_rises_far_beyond_its_start_is_told_once() -> None:
    seen = watch([1.0] * 5 + [4.0] * 40)
    assert len(seen.warnings) == 1
    assert "rose from 1.00 to 4.00: training diverges, lower learning_rate" in seen.warnings[0]


def test_a_loss_that_wavers_is_not_told() -> None:
    assert watch([2.0, 1.5] * 50).warnings == []
    assert watch([0.1] * 5 + [0.3] * 30).warnings == [], "twice almost nothing is still almost nothing"


def test_a_single_long_gradient_is_counted_and_not_told() -> None:
    seen = watch([1.0] * 20, [0.5] * 10 + [50.0] * 4 + [0.5] * 6)
    assert (seen.clipped, seen.warnings) == (4, [])


def test_long_gradients_in_a_row_are_told_with_the_likely_cause() -> None:
    assert "learning_rate 0.0002 is likely too high" in watch([1.0] * 9, [50.0] * 9).warnings[0]
    assert "rows are unlike" in watch([1.0] * 9, [50.0] * 9, rate=1e-6).warnings[0]
