"""The base's GGUF file in the form that llama.cpp multiplies fastest where several answers run at once.

For Q4_1 its x86-64 build has no tiled product: eight answers cost eight times the work of one. It has one for Q8_0. The widest
matrices are therefore rewritten as Q8_0 once, and the rest is copied. A weight moves by less than 1/230 of the largest in its block
of 32: a thirtieth of the step between two values of Q4_1.

Tokens/s on 2 cores, SmolLM2-135M, one adapter of rank 16, Q4_1 and this form in turn: one answer 77 and 93, eight 141 and 205,
eight by four adapters 82 and 96. With `ffn_down` too, eight make 207; with all matrices, one answer is no faster than before, as
the file is twice as long.
"""

import logging
import platform
import shutil
import tempfile
from pathlib import Path
from typing import Any

from core.errors import LoradError
from store.durable import move
from store.seals import check_seal, is_sealed, seal

log = logging.getLogger(__name__)

MODEL = "model.gguf"
SLOW = "Q4_1"
WIDE = ("ffn_gate.weight", "ffn_up.weight")
MACHINES = ("x86_64", "AMD64")


def tiled(model: Path, home: Path) -> Path:
    """The form of `model` to map: made below `home` at the first call, then found there by its seal.

    It is `model` itself where it has no such matrix, on other processors, and where the form cannot be written: that is logged.
    """
    if platform.machine() not in MACHINES:
        return model
    place = home / model.stem
    try:
        if not _is_whole(place):
            if not _is_slow(model):
                return model
            _make(model, place)
    except (OSError, ValueError, KeyError, IndexError) as error:
        log.warning("%s is mapped as it is, several answers at once are slower: %s", model, error, extra={"action": "base_not_tiled"})
        return model
    return place / MODEL


def _is_whole(place: Path) -> bool:
    if not is_sealed(place):
        return False
    try:
        check_seal(place)
    except LoradError as error:
        log.warning("made again: %s", error, extra={"action": "base_tiled_again"})
        return False
    return True


def _is_slow(model: Path) -> bool:
    import gguf

    return any(_is_rewritten(tensor) for tensor in gguf.GGUFReader(model).tensors)


def _is_rewritten(tensor: Any) -> bool:
    return tensor.tensor_type.name == SLOW and tensor.name.endswith(WIDE)


def _make(model: Path, place: Path) -> None:
    """Write it beside its place, sealed, in the place of whatever lies there and of other bases' forms. Raises OSError."""
    log.info("rewriting the base's widest matrices for several answers at once, some seconds; the next start finds them", extra={"action": "base_tiling"})
    place.parent.mkdir(parents=True, exist_ok=True)
    for old in place.parent.iterdir():
        shutil.rmtree(old, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as aside:
        making = Path(aside) / "form"
        making.mkdir()
        _write(model, making / MODEL)
        seal(making)
        move(making, place)


def _write(model: Path, into: Path) -> None:
    import gguf

    reader = gguf.GGUFReader(model)
    writer = gguf.GGUFWriter(into, str(reader.fields["general.architecture"].contents()))
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            kind = field.types[0]
            writer.add_key_value(name, field.contents(), kind, sub_type=field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None)
    fast = gguf.GGMLQuantizationType.Q8_0
    for tensor in reader.tensors:
        if _is_rewritten(tensor):
            writer.add_tensor(tensor.name, gguf.quants.quantize(gguf.quants.dequantize(tensor.data, tensor.tensor_type), fast), raw_dtype=fast)
        else:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()
