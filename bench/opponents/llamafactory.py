"""LLaMA-Factory, where the interpreter has it. Arguments: run folder of lorad's process, base."""

import json
import sys
from pathlib import Path
from typing import Any

from bench.opponents.pace import Pace


def main() -> None:
    pace, root, base = Pace(), Path(sys.argv[1]), sys.argv[2]
    from llamafactory.train.tuner import run_exp
    from transformers import TrainerCallback

    class Told(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            pace.ready()

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            pace.wait()

        def on_log(self, arguments: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **__: Any) -> None:
            if logs and "loss" in logs:
                pace.done(float(logs["loss"]))

    lines = (root / "rows.jsonl").read_text().splitlines()
    rows = [json.loads(lines[line - 1]) for line, _, _ in json.loads((root / "order.json").read_text())]
    folder = root / "llamafactory"
    folder.mkdir()
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant", "system_tag": "system"}
    about = {"file_name": "rows.jsonl", "formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": tags}
    (folder / "dataset_info.json").write_text(json.dumps({"rows": about}))
    settings: dict[str, Any] = {"model_name_or_path": base, "stage": "sft", "do_train": True, "finetuning_type": "lora", "lora_rank": 16}
    settings |= {"lora_alpha": 32, "lora_target": "all", "dataset": "rows", "dataset_dir": str(folder), "template": "smollm2", "cutoff_len": 512}
    settings |= {"output_dir": str(folder / "out"), "logging_steps": 1, "save_strategy": "no", "report_to": "none", "bf16": True, "use_cpu": True}
    settings |= {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "learning_rate": 2e-4, "num_train_epochs": 1.0}
    settings |= {"lr_scheduler_type": "constant", "disable_shuffling": True, "dataloader_pin_memory": False, "disable_tqdm": True}
    run_exp(args=settings, callbacks=[Told()])


main()
