"""The names that other tools give to settings, and how their values are read: the data behind `core.aliases`. Pure.

A reader returns lorad's value, or a Skip where there is nothing to set, and raises ValueError with a sentence for what
lorad cannot give.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Reader = Callable[[Any], Any]

NUMBER = r"[+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?"
RANGE = re.compile(rf"^({NUMBER})\s*(?:-|–|\.\.|to)\s*({NUMBER})$")
DYNAMIC = re.compile(rf"^({NUMBER})\s*\((?:dynamic|auto)\)$")
DEFAULT_RATE = 2e-4  # what OpenAI's multiplier is multiplied with


@dataclass(frozen=True, slots=True)
class Skip:
    """No value comes of it, and why that is right."""

    why: str


@dataclass(frozen=True, slots=True)
class Rows:
    """A number of rows; a dynamic one is a lower bound of the trainer's own choice."""

    number: int
    is_dynamic: bool = False


def read_range(value: Any) -> Any:
    """A number; of a range such as "3-5" its lower bound; "auto" is left to lorad."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text.lower() in ("auto", "dynamic"):
        return Skip(f'"{text}": lorad finds it')
    found = RANGE.match(text) or DYNAMIC.match(text)
    return _number(found[1]) if found else value


def _number(text: str) -> int | float:
    return float(text) if any(letter in text for letter in ".eE") else int(text)


def read_rows(value: Any) -> Any:
    """Rows of a batch: 4, "4-8", "4 (dynamic)" or "auto". Raises ValueError."""
    found = read_range(value)
    if isinstance(found, Skip):
        return found
    if type(found) is not int or found < 1:
        raise ValueError("not a number of rows")
    return Rows(found, is_dynamic=isinstance(value, str))


def _steps(value: Any) -> Any:
    return Skip("no bound") if value is None or value in (-1, 0) else read_range(value)


def _multiplied(value: Any) -> Any:
    found = read_range(value)
    if isinstance(found, Skip):
        return found
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise ValueError("not a number")
    return float(f"{found * DEFAULT_RATE:.6g}")


def _targets(value: Any) -> Any:
    if value is True or value in ("all", "all-linear"):
        return "all-linear"
    if value is False or value is None:
        return Skip("the named modules count")
    return ",".join(map(str, value)) if isinstance(value, list) else value


def _bits(value: Any) -> Any:
    """4 for anything that means nf4, 0 for none. Raises ValueError for other widths."""
    word = str(value).lower().replace("-", "").replace("_", "")
    if word in ("false", "0", "16", "32", "none", "no", "16bit", "bf16", ""):
        return 0
    if word in ("true", "4", "4bit", "nf4", "4bitnf4", "bnb4bit", "bnb", "int4", "qlora"):
        return 4
    raise ValueError("lorad quantises a base to 4 bits (nf4) or not at all")


def _eight_bits(value: Any) -> Any:
    if value:
        raise ValueError("lorad quantises a base to 4 bits (nf4) or not at all")
    return Skip("no 8-bit base")


def _tuner(value: Any) -> Any:
    word = str(value).lower()
    if word in ("lora", "qlora", "full", "auto"):
        return word
    if value is None or word == "none":
        return "full"  # without an adapter every weight is trained
    raise ValueError("lorad trains lora, qlora or full")


def _use_peft(value: Any) -> Any:
    return "lora" if value else "full"


def _one_of(words: Mapping[str, str], known: str) -> Reader:
    def read(value: Any) -> Any:
        found = words.get(str(value).lower())
        if found is None:
            raise ValueError(f"lorad knows {known}")
        return found

    return read


def _switch(value: Any) -> Any:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "on" if value == "unsloth" else value


def _boards(value: Any) -> Any:
    words = [value] if isinstance(value, str) else list(value or ())
    return [word for word in words if word not in ("none", "all")]


def _overlong(value: Any) -> Any:
    word = str(value).lower()
    if word in ("raise", "error"):
        return 0.0
    if word in ("drop", "delete"):
        return Skip("what lorad does anyway: rows over max_length are left out and counted")
    raise ValueError("a truncated row can lose what it teaches: lorad leaves rows over max_length out; split them, or raise max_length")


def only(wanted: Any, otherwise: str, why: str = "what lorad does anyway") -> tuple[str, Reader]:
    """The rule of a key that may say one thing alone. Args: wanted: a value, or several in a tuple; otherwise: why not."""

    def read(value: Any) -> Any:
        allowed = wanted if isinstance(wanted, tuple) else (wanted,)
        if not any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in allowed):
            raise ValueError(otherwise)
        return Skip(why)

    return "@nothing", read


def _as_is(value: Any) -> Any:
    return value


ANSWERS_ONLY = "lorad learns answers only: a loss on the questions teaches the model to ask them"
NO_HEADS = 'lorad trains no whole layers beside an adapter, since servers refuse them; new tokens: `lorad models init NAME --from BASE --add-tokens "…"`'
NO_CODE = "lorad runs no code that comes with a model"
SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant", "constant_with_warmup": "constant"}
OPTIMIZERS = dict.fromkeys(("auto",), "auto") | dict.fromkeys(
    ("adamw", "adamw_torch", "adamw_torch_fused", "adamw_hf", "paged_adamw_32bit", "paged_adamw"), "adamw"
)
OPTIMIZERS |= dict.fromkeys(("adamw_8bit", "adamw_bnb_8bit", "paged_adamw_8bit"), "adamw_8bit")
OBJECTIVES = {word: word for word in ("auto", "sft", "dpo", "kto", "orpo")} | {"supervised": "sft"}
STAGES = "sft, dpo, kto and orpo"


def _names(key: str, read: Reader, *names: str) -> dict[str, tuple[str, Reader]]:
    return dict.fromkeys(names, (key, read))


NAMES: dict[str, tuple[str, Reader]] = {
    **_names("lora.r", read_range, "lora_r", "r", "lora_rank", "rank", "adapter_rank"),
    **_names("lora.alpha", read_range, "lora_alpha", "alpha", "adapter_alpha"),
    **_names("lora.dropout", read_range, "lora_dropout", "dropout", "adapter_dropout"),
    **_names("lora.targets", _targets, "target_modules", "lora_target_modules", "lora_target", "lora_target_linear", "targets", "lora_targets"),
    **_names("lora.use_rslora", _as_is, "use_rslora", "peft_use_rslora"),
    **_names("lora.use_dora", _as_is, "use_dora", "peft_use_dora"),
    **_names("@scale", _as_is, "scale"),
    **_names("@tuner", _tuner, "adapter", "finetuning_type", "train_type", "tuner_type", "fine_tune_type"),
    **_names("@tuner", _use_peft, "use_peft"),
    **_names("method", _tuner, "method"),
    **_names("@bits", _bits, "load_in_4bit", "quantization_bit", "quant_bits", "quantization"),
    **_names("learning_rate", read_range, "learning_rate", "lr"),
    **_names("learning_rate", _multiplied, "learning_rate_multiplier"),
    **_names("training.epochs", read_range, "num_train_epochs", "num_epochs", "epochs", "n_epochs"),
    **_names("training.max_steps", _steps, "max_steps", "iters"),
    **_names("batch_size", read_rows, "batch_size"),
    **_names("@device", read_rows, "per_device_train_batch_size", "micro_batch_size", "micro_batch"),
    **_names("@accumulate", read_rows, "gradient_accumulation_steps", "gradient_accumulation", "grad_accumulation_steps"),
    **_names("@effective", read_rows, "effective_batch_size", "global_batch_size", "total_batch_size"),
    **_names("max_length", read_range, "max_length", "max_seq_length", "max_seq_len", "max_sequence_length", "sequence_len", "cutoff_len", "model_max_length"),
    **_names("training.packing", _as_is, "packing", "sample_packing", "neat_packing"),
    **_names("training.last_turn_only", _as_is, "mask_history"),
    **_names("training.warmup_ratio", read_range, "warmup_ratio"),
    **_names("training.warmup_steps", read_range, "warmup_steps", "warmup"),
    **_names("training.scheduler", _one_of(SCHEDULES, "cosine, linear and constant"), "lr_scheduler_type", "lr_scheduler", "lr_schedule", "scheduler"),
    **_names("training.optimizer", _one_of(OPTIMIZERS, "adamw and adamw_8bit"), "optim", "optimizer"),
    **_names("training.weight_decay", read_range, "weight_decay"),
    **_names("training.max_grad_norm", read_range, "max_grad_norm", "gradient_clipping"),
    **_names("training.seed", _as_is, "seed", "random_state"),
    **_names("training.checkpoints", _as_is, "save_total_limit"),
    **_names("training.patience", _as_is, "early_stopping_patience"),
    **_names("training.gradient_checkpointing", _switch, "gradient_checkpointing", "use_gradient_checkpointing", "grad_checkpoint"),
    **_names("training.compile", _switch, "torch_compile"),
    **_names("training.boards", _boards, "report_to"),
    **_names("training.beta", _as_is, "beta", "pref_beta", "rl_beta", "dpo_beta"),
    **_names("training.max_overlong_share", _overlong, "overlong", "excess_length_strategy", "truncation_strategy"),
    **_names("objective", _one_of(OBJECTIVES, STAGES), "objective", "rl", "rlhf_type", "stage"),
    **_names("@base", _as_is, "base_model", "model_name_or_path", "model_id", "base", "model"),
    "load_in_8bit": ("@nothing", _eight_bits),
    "quantization.type": ("@bits", _bits),
    "method.type": ("objective", _one_of(OBJECTIVES, STAGES)),
    "train_on_inputs": only(False, ANSWERS_ONLY),
    "completion_only_loss": only(True, ANSWERS_ONLY),
    "assistant_only_loss": only(True, ANSWERS_ONLY),
    "train_on_completions": only(True, ANSWERS_ONLY),
    "mask_prompt": only(True, ANSWERS_ONLY),
    "loss_scale": only("default", "lorad weights messages and rows by their own `weight`"),
    "trust_remote_code": only(False, NO_CODE),
    "modules_to_save": only((None, []), NO_HEADS),
    "lora_modules_to_save": only((None, []), NO_HEADS),
    "bias": only("none", "lorad trains no biases"),
    "task_type": only("CAUSAL_LM", "lorad trains causal language models"),
    "peft_type": only("LORA", "lorad trains LoRA adapters"),
    "double_quantization": only(True, "qlora always quantises its constants too"),
    "bnb_4bit_use_double_quant": only(True, "qlora always quantises its constants too"),
    "bnb_4bit_quant_type": only("nf4", "qlora is nf4"),
    "compute_dtype": only(("bfloat16", "bf16", "auto"), "lorad computes in bf16, or in fp32 on a CPU without it"),
    "bnb_4bit_compute_dtype": only(("bfloat16", "bf16", "auto"), "lorad computes in bf16, or in fp32 on a CPU without it"),
    "bf16": only((True, "auto"), "lorad computes in bf16, or in fp32 on a CPU without it"),
    "fp16": only((False, None), "lorad computes in bf16, or in fp32 on a CPU without it"),
    "neftune_noise_alpha": only((None, 0), "lorad adds no noise to embeddings"),
    "finetune_vision_layers": only(False, "lorad trains the language model alone"),
    "finetune_language_layers": only(True, "lorad trains the language model"),
    "train_mlp": only(True, "name the layers with lora.targets"),
    "train_attn": only(True, "name the layers with lora.targets"),
    "finetune_attention_modules": only(True, "name the layers with lora.targets"),
    "finetune_mlp_modules": only(True, "name the layers with lora.targets"),
    "train_unembed": only(False, NO_HEADS),
    "adapter_name_or_path": only(None, "say it at the training: `lorad train FILE --continue-from ADAPTER`"),
    "lora_model_dir": only(None, "say it at the training: `lorad train FILE --continue-from ADAPTER`"),
    "resume_adapter_file": only(None, "say it at the training: `lorad train FILE --continue-from ADAPTER`"),
}
"""Foreign name -> (lorad's key, or a pseudo key that `core.aliases` combines, and the reader of its value)."""

_GROUPS_OF_CONFIGS = {"quantization_config", "bnb_config", "lora_config", "lora_parameters", "peft_config", "training_args", "training_arguments"}
_GROUPS_OF_API = {"hyperparameters", "supervised", "dpo", "method"}
GROUPS = frozenset(
    {"training", "train", "trainer", "lora", "peft", "model", "optimizer", "adapter", "sft", "quantization"} | _GROUPS_OF_CONFIGS | _GROUPS_OF_API
)
"""Words that other tools group their keys by; they do not change what a key below them means."""

_OWN_CHECKPOINTS = "left out: lorad spaces training.checkpoints evenly, and always keeps the last step"
_OWN_SPLITS = "left out: lorad draws its own splits, by conversation"
_OUTPUT = "left out: lorad names its own folders, or --out does"
_ROWS = "left out: the rows are the file that is dropped or named on the command line"
_SPEED = "left out: the trainer chooses what is fastest here"
_LOG = "left out: every step is told, at most once a second"
_RESUME = "left out: lorad resumes by itself; in the foreground with --resume"
_ANYWAY = "what lorad does anyway"


def _unread(why: str, *names: str) -> dict[str, str]:
    return dict.fromkeys(names, why)


UNREAD: dict[str, str] = {
    **_unread(_OWN_CHECKPOINTS, "save_steps", "eval_steps", "save_strategy", "eval_strategy", "evaluation_strategy", "save_every"),
    **_unread(_OWN_CHECKPOINTS, "saves_per_epoch", "evals_per_epoch", "steps_per_eval"),
    **_unread(_OWN_SPLITS, "val_ratio", "val_set_size", "val_size", "split_dataset_ratio", "val_split", "val_batches", "test_split_ratio"),
    **_unread(_OUTPUT, "output_dir", "run_name", "adapter_path", "overwrite_output_dir", "hub_model_id", "push_to_hub"),
    **_unread(_ROWS, "dataset", "datasets", "dataset_dir", "dataset_prepared_path", "train_file", "training_file", "validation_file"),
    **_unread(_ROWS, "train_data", "data", "template", "chat_template"),
    **_unread(_SPEED, "group_by_length", "dataloader_num_workers", "preprocessing_num_workers", "flash_attention", "attn_implementation"),
    **_unread(_SPEED, "flash_attn", "tf32"),
    **_unread(_LOG, "logging_steps", "logging_first_step", "steps_per_report", "log_interval"),
    **_unread(_RESUME, "resume_from_checkpoint", "auto_resume_from_checkpoints", "resume_only_model"),
    **_unread(_ANYWAY, "do_train", "train_on_eos", "remove_unused_columns"),
}
"""Foreign names of which no value comes, with the reason."""

_IMPORT = "not read: it belongs to the import of a personal corpus"
LATER: dict[str, str] = {
    "sources": _IMPORT,
    "editions": _IMPORT,
    "schedule.auto_update": "not read: every drop that is accepted is trained on anyway",
    "schedule.trigger": "not read: every drop that is accepted is trained on anyway",
    "schedule.interval": "not read: write an entry in schedule.entries, which names its adapter",
}
"""Keys and sections of configs of whole pipelines, with what becomes of them."""
