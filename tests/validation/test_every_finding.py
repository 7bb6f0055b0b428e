"""Each trouble is found at its line and with its cause; each check of the first pass is met here at least once."""

import pytest
import stories_of_files
import stories_of_shapes
import stories_of_tools
import stories_of_turns
from gate_cases import Check
from stories import Story, tell

from validation import Level
from validation.checks import CHECKS

STORIES = [*stories_of_files.STORIES, *stories_of_shapes.STORIES, *stories_of_turns.STORIES, *stories_of_tools.STORIES]
ELSEWHERE = {
    "F01": "test_files_that_cannot_be_read.py",
    "F11": "test_files_that_cannot_be_read.py",
    "V01": "test_images.py",
    "V02": "test_images.py",
    "V03": "test_images.py",
}


@pytest.mark.parametrize("story", STORIES, ids=lambda story: f"{story.id}-{story.title}")
def test_the_trouble_is_named(story: Story, check: Check) -> None:
    tell(story, check)


def test_every_check_of_the_first_pass_has_its_story() -> None:
    quick = {check.id for check in CHECKS if check.level is Level.QUICK}
    assert quick - {story.id for story in STORIES} == set(ELSEWHERE)


def test_every_check_says_why_it_matters() -> None:
    assert [check.id for check in CHECKS if check.level is Level.QUICK and not check.why] == []


def test_a_check_of_one_id_has_one_name() -> None:
    names = {check.id: check.name for check in CHECKS}
    assert all(names[check.id] == check.name for check in CHECKS)
    assert len(set(names.values())) == len(names)
