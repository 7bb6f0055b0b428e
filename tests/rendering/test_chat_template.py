"""The template environment is the one that model makers write for, without its dangers."""

import pytest

from core.errors import LoradError
from rendering.chat import ChatTemplate
from rendering.specs import Message

HELLO = [Message("user", "hello"), Message("assistant", "<b>'hi'</b>")]


def test_generation_marks_loop_controls_and_trimmed_blocks_work() -> None:
    template = ChatTemplate(
        """{% for m in messages %}
    {% if loop.index0 == 5 %}
        {% break %}
    {% endif %}
    {% generation %}
{{ bos_token }}{{ m['role'] }}={{ m.content | tojson }}
    {% endgeneration %}
{% endfor %}""",
        bos_token="<s>",
    )
    assert template.render(HELLO) == '<s>user="hello"\n<s>assistant="<b>\'hi\'</b>"\n'


def test_the_name_of_a_speaker_reaches_the_template_only_where_it_is_given() -> None:
    template = ChatTemplate("{% for m in messages %}{{ m.name if m.name is defined else '-' }}{% endfor %}")
    assert template.render([Message("user", "a", name="ann"), Message("assistant", "b")]) == "ann-"


def test_a_template_that_refuses_says_why_in_its_own_words() -> None:
    template = ChatTemplate("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(LoradError, match="roles must alternate") as caught:
        template.render(HELLO)
    assert caught.value.code == "TEMPLATE_RENDER"


@pytest.mark.parametrize("escape", ["{{ ''.__class__.__mro__ }}", "{{ messages.append(1) }}", "{{ messages[0].update({}) }}"])
def test_a_template_cannot_leave_its_sandbox(escape: str) -> None:
    with pytest.raises(LoradError) as caught:
        ChatTemplate(escape).render(HELLO)
    assert caught.value.code == "TEMPLATE_RENDER"


def test_a_broken_template_is_refused_when_it_is_read() -> None:
    with pytest.raises(LoradError) as caught:
        ChatTemplate("{% for %}")
    assert caught.value.code == "TEMPLATE_SYNTAX"


def test_the_date_comes_from_the_clock_that_was_given() -> None:
    assert ChatTemplate("{{ strftime_now('%Y') }}", strftime=lambda form: f"year {form}").render(HELLO) == "year %Y"
