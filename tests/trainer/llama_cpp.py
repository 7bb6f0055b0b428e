"""Greedy tokens by llama.cpp, in a process of its own: `python llama_cpp.py FILE.gguf ADAPTER.gguf|- NUM_TOKENS < prompts.json`."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path

DEADLINE_S = 120.0


def llama_tokens(model: Path, prompts: Sequence[Sequence[int]], num_tokens: int, adapter: Path | None = None) -> list[list[int]]:
    """What llama.cpp answers greedily to each prompt of token ids, up to an end of turn."""
    words = [sys.executable, __file__, str(model), str(adapter or "-"), str(num_tokens)]
    done = subprocess.run(words, input=json.dumps(prompts), capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found: list[list[int]] = json.loads(done.stdout.splitlines()[-1])
    return found


def up_to_end(answers: Sequence[Sequence[int]], eos: int) -> list[list[int]]:
    """The answers as far as their first end of turn, without it: behind it, llama.cpp makes none."""
    return [list(ids[: ids.index(eos)]) if eos in ids else list(ids) for ids in answers]


def main(model: str, adapter: str, num_tokens: str) -> None:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel = model, 256, 1
    params.cpuparams.n_threads, params.warmup, params.n_gpu_layers = 1, False, 0
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    if adapter != "-":
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(adapter, 1.0)]
    server = xllamacpp.Server(params)
    found = []
    for ids in json.load(sys.stdin):
        asked = {"prompt": ids, "n_predict": int(num_tokens), "temperature": 0.0, "return_tokens": True, "cache_prompt": False}
        request = urllib.request.Request(f"{server.listening_address}/completion", json.dumps(asked).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
            found.append(json.load(answer)["tokens"])
    sys.stdout.write("\n" + json.dumps(found) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
