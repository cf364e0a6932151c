"""Fine-tune Qwen3-32B with LoRA on the chats of `smartstore export-finetune`.

    python deploy/finetune/train.py --data FOLDER --output FOLDER

The loss is that of the last answer alone. A model would learn its answers to the turns before too if all that the
assistant says counted, and those cite FAQs that the chat no longer shows. The chat template is the model's own, with
thinking off, as the bot asks for it: the prompt that is trained on is the one that vLLM makes.
"""

import argparse
import json
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

HERE = Path(__file__).parent
NOT_THINKING = {"enable_thinking": False}
TABLES = ("model", "lora", "training")
MOST_TOKENS = 8_192  # of a chat, where the configuration says nothing else
Config = dict[str, dict[str, Any]]
SAID = {
    "the following arguments are required": "필요한 옵션이 없습니다",
    "unrecognized arguments": "알 수 없는 옵션입니다",
    "expected one argument": "값이 하나 필요합니다",
}


class Parser(argparse.ArgumentParser):
    """An argument parser that speaks Korean."""

    def format_help(self) -> str:
        """Return the help, whose usage line argparse begins in English."""
        return super().format_help().replace("usage: ", "사용법: ", 1)

    def error(self, message: str) -> NoReturn:
        """Say that the call was not understood, and exit with 2."""
        for english, korean in SAID.items():
            message = message.replace(english, korean)
        sys.stderr.write(f"명령을 이해하지 못했습니다 ({message}). --help로 사용법을 확인해 주세요.\n")
        sys.exit(2)


def parser() -> Parser:
    """Return the parser of the command line."""
    found = Parser(
        description="`smartstore export-finetune`이 만든 대화로 모델에 LoRA 어댑터를 학습시킵니다.",
        add_help=False,
    )
    options = found.add_argument_group("옵션")
    options.add_argument("-h", "--help", action="help", help="이 도움말을 보여 줍니다.")
    options.add_argument(
        "--data", metavar="폴더", type=Path, required=True, help="train.jsonl과 validation.jsonl이 있는 폴더"
    )
    options.add_argument("--output", metavar="폴더", type=Path, required=True, help="어댑터와 체크포인트를 저장할 폴더")
    options.add_argument("--model", metavar="이름", help="모델의 이름이나 폴더 (기본값: 설정 파일의 model.name)")
    options.add_argument(
        "--config", metavar="파일", type=Path, default=HERE / "lora.toml", help="설정 파일 (기본값: 옆의 lora.toml)"
    )
    options.add_argument(
        "--set",
        metavar="이름=값",
        action="append",
        default=[],
        help="설정 하나를 바꿉니다. 여러 번 쓸 수 있습니다 (예: --set training.max_steps=50 --set lora.r=8).",
    )
    options.add_argument("--resume", action="store_true", help="저장할 폴더의 마지막 체크포인트에서 이어서 합니다.")
    return found


def read_config(path: Path, changes: Sequence[str]) -> Config:
    """Return the tables model, lora and training of a file with some values changed; exits when that fails."""
    try:
        config: Config = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        fail(f"설정 파일을 읽을 수 없습니다: {path} ({error})")
    if missing := [table for table in TABLES if not isinstance(config.get(table), dict)]:
        fail(f"{path}에 표가 없습니다: {', '.join(missing)}")
    for change in changes:
        name, _, value = change.partition("=")
        table, _, key = name.partition(".")
        if table not in TABLES or not key or not value:
            fail(f"--set {change}: `training.max_steps=50`처럼 써 주세요. 쓸 수 있는 표: {', '.join(TABLES)}")
        config[table][key] = read_value(value)
    return config


def read_value(text: str) -> Any:
    """Return a value as TOML has it; what is none is a text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def fail(message: str) -> NoReturn:
    """Say what is wrong and exit with 1."""
    sys.exit(f"오류: {message}")


def main(chosen: argparse.Namespace) -> None:
    """Train, and leave the adapter in the output folder."""
    config = read_config(chosen.config, chosen.set)
    files = [chosen.data / f"{part}.jsonl" for part in ("train", "validation")]
    if missing := [str(file) for file in files if not file.is_file()]:
        fail(f"파일이 없습니다: {', '.join(missing)}. `smartstore export-finetune`으로 만들어 주세요.")
    run(config, chosen.model or config["model"]["name"], files, chosen.output, resume=chosen.resume)


def run(config: Config, model: str, files: Sequence[Path], output: Path, *, resume: bool) -> None:
    """Train a model, named or in a folder, on the files of the training and the validation."""
    # Here, so that --help and a wrong call answer at once.
    import torch
    from peft import LoraConfig
    from transformers import AutoTokenizer, PrinterCallback
    from transformers.trainer_utils import get_last_checkpoint
    from trl import SFTConfig, SFTTrainer

    checkpoint = get_last_checkpoint(str(output)) if output.is_dir() else None
    if checkpoint and not resume:
        fail(f"{output}에 체크포인트가 있습니다. 이어서 하려면 --resume을, 아니면 다른 폴더를 써 주세요.")
    for table, kind in (("training", SFTConfig), ("lora", LoraConfig)):
        if unknown := config[table].keys() - {field.name for field in fields(kind)}:
            fail(f"[{table}]에 없는 설정입니다: {', '.join(sorted(unknown))}")
    gpu = torch.cuda.is_available()
    settings = {
        "bf16": gpu,
        "use_cpu": not gpu,
        "model_init_kwargs": {"dtype": "bfloat16" if gpu else "float32"},
        "max_length": MOST_TOKENS,
        "eval_strategy": "steps",
        "eval_on_start": checkpoint is None,
        "report_to": "none",
        "disable_tqdm": True,
        **config["training"],
        "completion_only_loss": True,
        "output_dir": str(output),
    }
    try:
        tokenizer = AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError) as error:
        fail(f"모델을 읽을 수 없습니다: {model} ({str(error).splitlines()[0]})")
    train, validation = (chats(file, tokenizer, settings["max_length"]) for file in files)
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(**settings),
        train_dataset=train,
        eval_dataset=validation,
        processing_class=tokenizer,
        peft_config=LoraConfig(task_type="CAUSAL_LM", **config["lora"]),
        callbacks=[told()],
    )
    trainer.remove_callback(PrinterCallback)  # told() says it
    trained, whole = trainer.model.get_nb_trainable_parameters()
    if trainer.is_world_process_zero():
        say(f"학습 {len(train):,}건, 검증 {len(validation):,}건. 매개변수 {whole:,}개 가운데 {trained:,}개를 배웁니다.")
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model()
    trainer.save_state()
    if trainer.is_world_process_zero():
        say(f"어댑터를 저장했습니다: {output}")


def chats(path: Path, tokenizer: Any, most_tokens: int) -> Any:
    """Return the chats of a file that are no longer than so many tokens, as a dataset of prompts and completions."""
    from datasets import Dataset

    rows, longer = [], 0
    for line in path.read_text(encoding="utf-8").split("\n"):
        if not line:
            continue
        *prompt, answer = json.loads(line)["messages"]
        whole = tokenizer.apply_chat_template([*prompt, answer], tokenize=False, **NOT_THINKING)
        asked = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True, **NOT_THINKING)
        if not whole.startswith(asked):
            fail("이 모델의 대화 틀은 질문까지의 글과 답까지의 글이 달라서, 학습한 것과 서비스하는 것이 어긋납니다.")
        if len(tokenizer(whole, add_special_tokens=False)["input_ids"]) > most_tokens:
            longer += 1
            continue
        rows.append({"prompt": prompt, "completion": [answer], "chat_template_kwargs": NOT_THINKING})
    if longer:
        say(f"{path.name}: {most_tokens:,}토큰보다 긴 대화 {longer:,}건을 뺐습니다.")
    if not rows:
        fail(f"{path}: 쓸 수 있는 대화가 없습니다.")
    return Dataset.from_list(rows)


def told() -> Any:
    """Return what prints the losses as they are logged."""
    from transformers import TrainerCallback

    class Told(TrainerCallback):  # type: ignore[misc]  # untyped where it is not installed
        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
            names = {"loss": "학습 손실", "eval_loss": "검증 손실"}
            losses = [f"{names[key]} {value:.4f}" for key, value in (logs or {}).items() if key in names]
            if losses and state.is_world_process_zero:
                say(f"{state.global_step}/{state.max_steps}걸음: {', '.join(losses)}")

    return Told()


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(parser().parse_args())
