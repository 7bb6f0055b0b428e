"""A prototype of the fast path, where someone has one: a file with `FastLlama3(model, dtype)` and its `loss`.

Arguments: run folder of lorad's process, base, path of the file.
"""

import importlib.util
import json
import sys
from pathlib import Path

from bench.opponents.pace import Pace


def main() -> None:
    pace, root, base, path = Pace(), Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    import torch
    from peft import LoraConfig, get_peft_model
    from peft.utils import set_peft_model_state_dict
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    found = importlib.util.spec_from_file_location("prototype", path)
    assert found is not None
    assert found.loader is not None
    prototype = importlib.util.module_from_spec(found)
    found.loader.exec_module(prototype)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"))
    set_peft_model_state_dict(model, load_file(root / "adapter" / "adapter_model.safetensors"))
    fast = prototype.FastLlama3(model, torch.bfloat16)
    params = [param for param in model.parameters() if param.requires_grad]
    optimizer = torch.optim.AdamW(params, lr=2e-4, weight_decay=0.0, fused=True)
    rows = json.loads((root / "order.json").read_text())
    pace.ready()
    for first in range(0, len(rows), 8):
        pace.wait()
        ids, places, spans, sources, targets = [], [], [], [], []
        for _, own, learnt in rows[first : first + 8]:
            start = len(ids)
            ids += own
            places += range(len(own))
            spans.append((start, len(ids)))
            sources += [start + place - 1 for place in learnt]
            targets += [own[place] for place in learnt]
        loss = fast.loss(*(torch.tensor(ids), torch.tensor(places), spans, torch.tensor(sources), torch.tensor(targets)), chunk=256)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        pace.done(float(loss.detach()))


main()
