"""Any Hugging Face folder can be rendered with, and a folder that cannot says what it lacks."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from core.errors import LoradError
from rendering.folders import GENERIC_TEMPLATE, FolderRenderer, renderer_of, template_is_generic
from rendering.specs import Message

TINY = Path(__file__).parents[1] / "data" / "tiny_base"
TALK = [Message("user", "hello"), Message("assistant", "hello world")]
OTHER = "{% for m in messages %}{{ m['role'] + ':' + m['content'] + '<|endoftext|>' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"


def folder(path: Path, **files: object) -> Path:
    """The tiny tokenizer and these files; a dot in a name is written as two underscores."""
    path.mkdir(exist_ok=True)
    (path / "tokenizer.json").write_bytes((TINY / "tokenizer.json").read_bytes())
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (path / name.replace("__", ".")).write_text(text)
    return path


def test_a_sealed_base_is_loaded_as_such(tiny_base: Path) -> None:
    renderer = renderer_of(tiny_base)
    assert not isinstance(renderer, FolderRenderer)
    assert not template_is_generic(renderer)


@pytest.mark.parametrize(
    "files",
    [
        {"chat_template__jinja": OTHER, "tokenizer_config__json": {"eos_token": "<|endoftext|>"}},
        {"chat_template__json": {"chat_template": OTHER}, "tokenizer_config__json": {"eos_token": {"content": "<|endoftext|>"}}},
        {"tokenizer_config__json": {"eos_token": "<|endoftext|>", "chat_template": OTHER}},
        {
            "tokenizer_config__json": {
                "chat_template": [{"name": "rag", "template": "x"}, {"name": "default", "template": OTHER}],
            },
            "special_tokens_map__json": {"eos_token": "<|endoftext|>"},
        },
        {"chat_template__jinja": OTHER, "generation_config__json": {"eos_token_id": 0}},
        {"chat_template__jinja": OTHER, "config__json": {"eos_token_id": [0]}},
    ],
)
def test_template_and_end_token_are_found_wherever_models_keep_them(tmp_path: Path, files: dict[str, object]) -> None:
    renderer = renderer_of(folder(tmp_path / "model", **files))
    assert renderer.eos_token == "<|endoftext|>"
    assert not template_is_generic(renderer)
    assert renderer.render(TALK) == "user:hello<|endoftext|>assistant:hello world<|endoftext|>"


def test_the_end_of_a_turn_wins_over_the_end_of_a_text(tmp_path: Path) -> None:
    template = (TINY / "chat_template.jinja").read_text()
    files = {"chat_template__jinja": template, "tokenizer_config__json": {"eos_token": "<|endoftext|>"}, "generation_config__json": {"eos_token_id": [0, 2]}}
    renderer = renderer_of(folder(tmp_path / "model", **files))
    assert renderer.eos_token == "<|im_end|>"
    encoding = renderer.encode(TALK)
    assert renderer.decode([id for id, learnt in zip(encoding.ids, encoding.supervised, strict=True) if learnt], skip_special=False) == "hello world<|im_end|>"


def test_a_folder_without_a_template_gets_chatml_with_its_own_end(tmp_path: Path) -> None:
    renderer = renderer_of(folder(tmp_path / "model", tokenizer_config__json={"eos_token": "<|endoftext|>"}))
    assert template_is_generic(renderer)
    assert renderer.render(TALK) == "<|im_start|>user\nhello<|endoftext|>\n<|im_start|>assistant\nhello world<|endoftext|>\n"
    assert renderer.encode(TALK).num_supervised > 0
    written = renderer_of(folder(tmp_path / "model", tokenizer_config__json={"eos_token": "<|im_end|>"}, chat_template__jinja=GENERIC_TEMPLATE))
    assert not template_is_generic(written)
    assert written.tokenizer_json == tmp_path / "model" / "tokenizer.json"


@pytest.mark.parametrize(
    ("files", "code", "said"),
    [
        ({}, "EOS_UNKNOWN", "which token ends a turn"),
        ({"tokenizer_config__json": {"eos_token": "<|nowhere|>"}}, "EOS_UNKNOWN", "which token ends a turn"),
        ({"tokenizer_config__json": "{"}, "TOKENIZER_DAMAGED", "tokenizer_config.json"),
        ({"tokenizer_config__json": "[]"}, "TOKENIZER_DAMAGED", "not a JSON object"),
        ({"tokenizer__json": "{}", "tokenizer_config__json": {"eos_token": "<|im_end|>"}}, "TOKENIZER_DAMAGED", "no tokenizer"),
        ({"tokenizer_config__json": {"eos_token": "<|im_end|>"}, "chat_template__jinja": "{% for %}"}, "TEMPLATE_SYNTAX", "does not parse"),
    ],
)
def test_a_folder_that_cannot_be_used_says_what_is_wrong(tmp_path: Path, files: dict[str, object], code: str, said: str) -> None:
    with pytest.raises(LoradError) as caught:
        renderer_of(folder(tmp_path / "model", **files))
    assert caught.value.code == code
    assert said in caught.value.what
    assert caught.value.hint


def test_a_missing_folder_and_a_missing_tokenizer_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(LoradError) as caught:
        renderer_of(tmp_path / "nowhere")
    assert caught.value.code == "NO_SUCH_FOLDER"
    with pytest.raises(LoradError) as caught:
        renderer_of(tmp_path)
    assert caught.value.code == "NO_TOKENIZER"


def test_the_generic_template_is_plain_chatml() -> None:
    assert Tokenizer.from_file(str(TINY / "tokenizer.json")).token_to_id("<|im_end|>") == 2
    assert "eos_token" in GENERIC_TEMPLATE
