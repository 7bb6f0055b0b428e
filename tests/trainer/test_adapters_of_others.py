"""Adapters of others and encrypted ones on a real model: the probe without rows, equal scores, and refusals by the load itself."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from trainer_cases import questions

from core.config import Config
from core.errors import ChildError, UsageError
from core.tasks import RowsOf, ScoreModel, ScoreTask
from deploy.foreign import Rules, stage
from serving.engines.adapter_files import read_adapter as read_served
from store.bases import read_base
from store.encryption import WEIGHTS, encrypt_weights, read_key
from trainer.backends.model import choose_place, load_base, new_adapter, write_adapter
from trainer.backends.peft import PeftBackend
from trainer.run import RunFolder

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers.*")
RunIn = Callable[..., RunFolder]


@pytest.fixture
def theirs(tmp_path: Path, tiny_base: Path, tiny_config: Config) -> Path:
    """A random adapter of the tiny model as a PEFT folder."""
    model = new_adapter(load_base(tiny_base, choose_place()), tiny_config)
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    folder = tmp_path / "theirs"
    folder.mkdir()
    write_adapter(model, folder, "someone/tiny")
    return folder


def rules(base: Path, **more: Any) -> Rules:
    return Rules(base=base, base_sha256=read_base(base).source_sha256, max_rank=64, **more)


def task(base: Path, settings: dict[str, Any], folder: Path, *rows: RowsOf, **more: Any) -> ScoreTask:
    models = (ScoreModel(id="base", adapter=None), ScoreModel(id="adapter", adapter=str(folder)))
    return ScoreTask(job="import", backend="peft", base=str(base), rows=rows, split="dev", models=models, settings=settings, **more)


def probe_of(run: RunFolder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.root / "probe.jsonl").read_text().splitlines()]


def test_an_import_is_probed_without_any_rows_and_a_bare_file_is_the_same_adapter(
    theirs: Path, tiny_base: Path, tiny_config: Config, run_in: RunIn, tmp_path: Path
) -> None:
    settings = tiny_config.model_dump(mode="json")
    bare = tmp_path / "bare.safetensors"
    save_file({name.removeprefix("base_model.model."): tensor for name, tensor in load_file(theirs / WEIGHTS).items()}, bare)
    alpha = json.loads((theirs / "adapter_config.json").read_text())["lora_alpha"]
    probes = []
    for number, (source, more) in enumerate(((theirs, {}), (bare, {"alpha": alpha}))):
        into = tmp_path / f"staged{number}"
        stage(source, into, rules(tiny_base, **more))
        run = run_in(f"0{number}-score")
        PeftBackend().score(task(tiny_base, settings, into / "adapter", probe="adapter"), run)
        probes.append(probe_of(run))
    assert probes[0] == probes[1]
    assert any(line["base"] != line["adapter"] for line in probes[0]), "it changes the answers"


def test_an_encrypted_adapter_scores_to_the_bit_as_the_plain_one_and_only_with_its_key(
    theirs: Path, tiny_base: Path, tiny_config: Config, drop: Callable[..., RowsOf], run_in: RunIn, tmp_path: Path
) -> None:
    rows = drop(questions(6), ["dev"] * 6)
    key = tmp_path / "vault.key"
    key.write_text("12" * 32)
    key.chmod(0o600)
    settings = tiny_config.model_dump(mode="json") | {"deploy": {"encryption_key": str(key)}}
    plain = run_in("01-score")
    PeftBackend().score(task(tiny_base, settings, theirs, rows), plain)
    served = read_served(theirs)[1]
    encrypt_weights(theirs, read_key(str(key)))
    assert all(torch.equal(served[name], tensor) for name, tensor in read_served(theirs, str(key))[1].items()), "serving reads the same numbers"
    closed = run_in("02-score")
    PeftBackend().score(task(tiny_base, settings, theirs, rows), closed)
    files = [(run.root / "scores" / "dev-adapter.jsonl").read_bytes() for run in (plain, closed)]
    assert files[0] == files[1]
    with pytest.raises(UsageError, match="are encrypted"):
        PeftBackend().score(task(tiny_base, settings | {"deploy": {}}, theirs, rows), run_in("03-score"))


def test_an_adapter_of_other_modules_is_refused_by_the_load(theirs: Path, tiny_base: Path, tiny_config: Config, run_in: RunIn, tmp_path: Path) -> None:
    tensors = {name.replace("q_proj", "query"): tensor for name, tensor in load_file(theirs / WEIGHTS).items()}
    save_file(tensors, theirs / WEIGHTS)
    stage(theirs, tmp_path / "staged", rules(tiny_base))
    with pytest.raises(ChildError) as error:
        PeftBackend().score(task(tiny_base, tiny_config.model_dump(mode="json"), tmp_path / "staged" / "adapter", probe="adapter"), run_in("01-score"))
    assert error.value.code == "ADAPTER_UNREADABLE"
