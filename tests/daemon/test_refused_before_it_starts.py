"""A drop that asks for what the chosen trainer cannot do is refused before it is checked, with the key."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from filled_index import AT, drop, index_of

from core.records import DropState, Settling
from store.drops import ORIGINAL, SIDECAR, drop_folder


@pytest.mark.parametrize(("sidecar", "code"), [({"method": "qlora"}, "BACKEND_UNABLE"), ({"lora_rank": 4}, "")])
def test_a_sidecar_that_the_backend_cannot_carry_out_is_told(sidecar: dict[str, object], code: str, tmp_path: Path) -> None:
    index = index_of(tmp_path, backend="mlx")
    claimed = replace(drop(1), state=DropState.SETTLING, facts=Settling(since=AT))
    folder = drop_folder(index.home, claimed)
    folder.mkdir(parents=True)
    (folder / ORIGINAL).write_text("{}\n")
    (folder / SIDECAR).write_text(json.dumps(sidecar))
    index.keep_drop(claimed)
    seen = index.drops_on_their_way()[claimed.id]
    assert seen.code == code
    assert ("method = 'qlora'" in seen.problem) is bool(code)
    assert code or (seen.config is not None and seen.config.lora.r == 4), "a foreign name in a sidecar is understood"
