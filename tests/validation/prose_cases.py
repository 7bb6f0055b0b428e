"""Prose that no two rows share, made from a seed; and embeddings without a model."""

import json
import random
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import zstandard

from rendering.rows import conversation_key
from rendering.specs import SPECS
from validation.context import Known
from validation.signatures import write_signatures


def _words(text: str) -> list[str]:
    return text.split()


NOUNS = _words(
    "anchor basket candle dagger engine falcon garden harbor icicle jacket kettle ladder magnet needle orchard pillow quarry rocket saddle tunnel "
    "umbrella violin walnut yogurt zipper bridge castle desert feather glacier hammer island jungle lantern meadow notebook ocean painter ribbon saucer"
)
VERBS = _words("carries breaks paints sells hides repairs measures borrows polishes counts throws collects admires drops weighs burns ships opens folds trades")
PLACES = _words("Arden Belmont Corvo Delmar Estero Falun Gorham Halden Ivrea Jarrow Kelso Lorca Modena Nairn Orense Pescara Quimper Rennes Sassari Tivoli")
NAMES = _words("Ada Bruno Clara Dario Elena Felix Greta Hugo Iris Jonas Karin Lukas Mira Nils Olga Pavel Rosa Sven Tilda Viktor")


def draws(seed: int) -> random.Random:
    """A source of numbers that are the same in every run."""
    return random.Random(seed)  # noqa: S311 - rows of a test


def question(rng: random.Random) -> str:
    """Some forty words about a person, things and places."""
    name, place, other = rng.choice(NAMES), *rng.sample(PLACES, 2)
    things = rng.sample(NOUNS, 6)
    verbs = rng.sample(VERBS, 3)
    return (
        f"On a {rng.choice(('cold', 'bright', 'rainy', 'quiet'))} morning in {place}, {name} {verbs[0]} the {things[0]} beside a {things[1]} "
        f"and {verbs[1]} {rng.randrange(3, 90)} {things[2]}s before noon. Later in {other} a {things[3]} {verbs[2]} the {things[4]}. "
        f"What happens to the {things[5]} that {name} left in {place}?"
    )


def answer(asked: str, rng: random.Random) -> str:
    """Some thirty words that fit the question: its people, things and places."""
    words = [word.strip(".,?") for word in asked.split() if word[0].isupper() or word.strip(".,?") in NOUNS]
    rng.shuffle(words)
    return (
        f"It stays where it is: {' and '.join(words[:8])} have nothing to do with it, so after {rng.randrange(2, 30)} days somebody finds it near {words[0]}."
    )


def pairs(count: int, seed: int = 1) -> list[tuple[str, str]]:
    """Questions with answers that fit them, all different."""
    rng = draws(seed)
    asked = [question(rng) for _ in range(count)]
    return [(one, answer(one, rng)) for one in asked]


def chats(rows: Sequence[tuple[str, str]], system: str = "") -> list[object]:
    """Chat rows of questions and answers."""
    first = [{"role": "system", "content": system}] if system else []
    return [{"messages": [*first, {"role": "user", "content": one}, {"role": "assistant", "content": other}]} for one, other in rows]


def accepted_drop(home: Path, rows: Sequence[object], name: str = "drop-1", gate: Sequence[int] = (), signed: bool = True) -> Known:
    """An accepted drop of chat rows below `home`; groups are those that acceptance draws, `gate` names the places of held-back rows."""
    folder = home / name / "rows"
    folder.mkdir(parents=True)
    lines = [json.dumps(row).encode() for row in rows]
    (folder / "rows.jsonl.zst").write_bytes(zstandard.compress(b"".join(line + b"\n" for line in lines)))
    spec = SPECS["chat_sft_v1"]
    groups = [conversation_key(spec.messages(spec.decode(line))).first for line in lines]
    index = [{"line": place + 1, "group": group, "split": "gate" if place in gate else "train"} for place, group in enumerate(groups)]
    (folder / "index.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in index))
    if signed:
        write_signatures(folder, spec)
    return Known(folder=str(folder), schema_id="chat_sft_v1", sha256="")


def changed(text: str, word: str, place: int) -> str:
    """The text with one word replaced."""
    words = text.split(" ")
    words[place % len(words)] = word
    return " ".join(words)


class WordVectors:
    """Embeddings without a model: the sum of a random vector for each word; words of one class in `same` count as one."""

    def __init__(self, same: Sequence[tuple[str, ...]] = ()) -> None:
        self._first = {word: group[0] for group in same for word in group}
        self.calls = 0

    def __call__(self, texts: Sequence[str]) -> Any:
        import numpy as np

        self.calls += 1
        found = np.zeros((len(texts), 256), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in "".join(letter if letter.isalnum() else " " for letter in text.casefold()).split():
                found[row] += np.random.default_rng(zlib.crc32(self._first.get(word, word).encode())).standard_normal(256)
            found[row] /= max(1e-6, float(np.linalg.norm(found[row])))
        return found
