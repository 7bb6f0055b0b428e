"""Model folders to check rows against: the tiny tokenizer under any template, as it lies in a folder that was never sealed."""

import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import AddedToken, Tokenizer

TINY = Path(__file__).parents[1] / "data" / "tiny_base"
CHATML = (TINY / "chat_template.jinja").read_text()


def model_folder(folder: Path, template: str | None = CHATML, eos: str = "<|im_end|>", added: Sequence[str] = (), written: Sequence[str] = ()) -> str:
    """A folder with tokenizer and template. `added` are further special tokens, `written` further tokens that are not special."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer.from_file(str(TINY / "tokenizer.json"))
    tokenizer.add_special_tokens(list(added))
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in written])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": eos, "bos_token": "<|im_start|>"}))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return str(folder)
