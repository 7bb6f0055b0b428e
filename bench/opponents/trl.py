"""TRL's SFTTrainer. Arguments: run folder of lorad's process, base, and the setting: default, kept (no gradient
checkpointing) or packed (packing, no gradient checkpointing)."""

import json
import math
import sys
from pathlib import Path
from typing import Any

from bench.opponents.pace import Pace

SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "kept": {"gradient_checkpointing": False},
    "packed": {"gradient_checkpointing": False, "packing": True, "per_device_train_batch_size": 4},  # 4 x 512 tokens, about those of 8 rows
}


def main() -> None:
    pace, root, base, setting = Pace(), Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    from datasets import Dataset
    from peft import LoraConfig
    from peft.utils import set_peft_model_state_dict
    from safetensors.torch import load_file
    from torch.utils.data import SequentialSampler
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    class Told(TrainerCallback):
        loss: float | None = None

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            pace.ready()

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            pace.wait()

        def on_step_end(self, arguments: Any, state: Any, control: Any, **__: Any) -> None:
            control.should_log = True

        def on_log(self, arguments: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **__: Any) -> None:
            if logs and "loss" in logs:
                pace.done(float(logs["loss"]))

    class InOrder(SFTTrainer):
        def _get_train_sampler(self, dataset: Any = None) -> Any:
            return SequentialSampler(self.train_dataset if dataset is None else dataset)

    rows = json.loads((root / "order.json").read_text())
    # Tokens and labels as lorad made them: TRL's own would also learn the line break behind each answer's end.
    data = Dataset.from_list([{"input_ids": ids, "labels": [ids[place] if place in learnt else -100 for place in range(len(ids))]} for _, ids, learnt in rows])
    common: dict[str, Any] = {"output_dir": str(root / setting), "per_device_train_batch_size": 8, "num_train_epochs": 1, "max_length": 512}
    common |= {"learning_rate": 2e-4, "lr_scheduler_type": "constant", "logging_steps": 1, "save_strategy": "no", "report_to": "none", "seed": 0}
    common |= {"use_cpu": True, "disable_tqdm": True, "dataloader_pin_memory": False}
    shape = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = InOrder(model=base, args=SFTConfig(**(common | SETTINGS[setting])), train_dataset=data, peft_config=shape, callbacks=[Told()])
    set_peft_model_state_dict(trainer.model, load_file(root / "adapter" / "adapter_model.safetensors"))
    lengths = [len(ids) for ids in trainer.train_dataset["input_ids"]]
    (root / f"tokens-{setting}.json").write_text(json.dumps({"tokens": sum(lengths), "steps": math.ceil(len(lengths) / trainer.args.train_batch_size)}))
    trainer.train()


main()
