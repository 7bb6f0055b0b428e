"""What people write on a version: tags, note, label, expiry; a label names one version for ever."""

import pytest

from core.errors import UsageError
from core.marks import Marks, changed


def test_a_wish_changes_one_version_and_saying_it_again_changes_nothing() -> None:
    wish = {"tag+": "stable, eu", "note": "asked for by ann", "label": "v1.3.0", "expires_at": "2030-01-31T00:00:00+00:00"}
    marks = changed(Marks(), 3, wish)
    assert marks.of(3).tags == ("stable", "eu")
    assert marks.of(3).label == "v1.3.0"
    assert marks.of(2).note == ""
    assert changed(marks, 3, wish) == marks
    assert changed(marks, 3, {"tag-": "eu", "expires_at": ""}).of(3).tags == ("stable",)


def test_a_label_stays_with_its_version_even_after_that_got_another_one() -> None:
    marks = changed(changed(Marks(), 1, {"label": "v1.0.0"}), 1, {"label": "v1.0.1"})
    assert marks.labels == {"v1.0.0": 1, "v1.0.1": 1}
    for taken in ("v1.0.0", "v1.0.1"):
        with pytest.raises(UsageError, match="names v1 for ever"):
            changed(marks, 2, {"label": taken})
    assert changed(marks, 2, {"label": "v2.0.0-rc.1"}).labels["v2.0.0-rc.1"] == 2


@pytest.mark.parametrize(
    ("wish", "code"),
    [
        ({"label": "1.3.0"}, "LABEL_FORM"),
        ({"label": "v1.3"}, "LABEL_FORM"),
        ({"label": "v01.3.0"}, "LABEL_FORM"),
        ({"label": "latest"}, "LABEL_FORM"),
        ({"label": ""}, "LABEL_FORM"),
        ({"tag+": "two words"}, "TAG_NAME"),
        ({"expires_at": "soon"}, "EXPIRY_FORM"),
        ({"expires_at": "2030-01-31"}, "EXPIRY_FORM"),
        ({"colour": "blue"}, "MARK_UNKNOWN"),
    ],
)
def test_marks_of_another_form_are_refused(wish: dict[str, str], code: str) -> None:
    with pytest.raises(UsageError) as error:
        changed(Marks(), 1, wish)
    assert error.value.code == code
