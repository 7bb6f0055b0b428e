"""A base's tokenizer and chat template as llama.cpp keeps them: byte-level BPE from tokenizer.json.

llama.cpp has no regular expressions of a tokenizer in its files, only a name for each way of cutting a text before the
merges. The name is chosen by how tokenizer.json itself cuts, so that the engine makes the tokens that the adapter was
trained on; a way that has no name here is refused, and never guessed.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gguf

from store.bases import TEMPLATE, TOKENIZER, weights_folder
from trainer.backends.exports.ggufshape import unfit

if TYPE_CHECKING:
    from trainer.export import Export

LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLITS = {f"{LETTERS}\\p{{N}}{{1,3}}{REST}": "llama-bpe", f"{LETTERS}\\p{{N}}{REST}": "qwen2"}
"""Regular expression in tokenizer.json -> llama.cpp's name for it."""


def describe(writer: gguf.GGUFWriter, made: "Export") -> dict[str, Any]:
    """Write the tokenizer's keys and the template; what of it export.json names. Raises ChildError FORM_UNFIT."""
    tree = json.loads((made.base / TOKENIZER).read_bytes())
    model = tree["model"]
    pre = _pre(tree)
    if model.get("type") != "BPE" or pre is None:
        raise unfit(made, f"its tokenizer ({model.get('type')}, cut by {_kinds(tree.get('pre_tokenizer'))}) has no name in llama.cpp that is known here")
    tokens, types = _tokens(tree, int(made.described["vocab_size"]))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]])
    for name, id in _special_ids(made, {token: place for place, token in enumerate(tokens)}).items():
        getattr(writer, f"add_{name}_token_id")(id)
    writer.add_add_space_prefix(False)
    writer.add_add_bos_token(False)  # the template writes what a conversation begins with
    writer.add_chat_template((made.base / TEMPLATE).read_text(encoding="utf-8"))
    return {"model": "gpt2", "pre": pre, "tokens": len(tokens)}


def _pre(tree: dict[str, Any]) -> str | None:
    """llama.cpp's name for how a text is cut before the merges; None: there is none here."""
    if (tree.get("normalizer") or {"type": "NFC"})["type"] != "NFC":
        return None
    found = tree.get("pre_tokenizer") or {}
    steps = found["pretokenizers"] if found.get("type") == "Sequence" else [found]
    *before, last = steps
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space"):
        return None
    cuts_itself = last.get("use_regex", True)
    match before:
        case [] if cuts_itself:
            return "gpt-2"
        case [{"type": "Digits", "individual_digits": True}] if cuts_itself:
            return "smollm"
        case [{"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}] if not cuts_itself:
            return SPLITS.get(pattern)
    return None


def _kinds(found: Any) -> str:
    steps = (found or {}).get("pretokenizers", [found or {}])
    return " and ".join(str(step.get("type")) for step in steps)


def _tokens(tree: dict[str, Any], size: int) -> tuple[list[str], list[int]]:
    """Every token by its id, and its type; ids of the model that the tokenizer never makes are called unused."""
    tokens = [f"[PAD{id}]" for id in range(size)]
    types = [int(gguf.TokenType.UNUSED)] * size
    for token, id in tree["model"]["vocab"].items():
        tokens[id], types[id] = token, int(gguf.TokenType.NORMAL)
    for added in tree.get("added_tokens", []):
        kind = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
        tokens[added["id"]], types[added["id"]] = added["content"], int(kind)
    return tokens, types


def _special_ids(made: "Export", ids: dict[str, int]) -> dict[str, int]:
    """bos, eos, unk and pad, as far as the base names them. eos is the token that ends a turn."""
    path = next((place for folder in (made.base, weights_folder(made.base)) if (place := Path(folder, "tokenizer_config.json")).is_file()), None)
    said = json.loads(path.read_bytes()) if path else {}
    words = {"bos": made.sealed.bos_token, "eos": made.sealed.eos_token, "unk": said.get("unk_token"), "pad": said.get("pad_token")}
    texts = {name: word.get("content") if isinstance(word, dict) else word for name, word in words.items()}
    return {name: ids[text] for name, text in texts.items() if text and text in ids}
