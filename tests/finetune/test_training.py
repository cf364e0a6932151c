"""deploy/finetune for real: a Qwen3 of random weights learns from chats that `smartstore export-finetune` wrote."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import trl
from peft import PeftModel
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

ROOT = Path(__file__).parent.parent.parent
FINETUNE = ROOT / "deploy" / "finetune"
SAMPLE = ROOT / "indexing" / "smartstore_indexing" / "sample" / "faq.jsonl"
TEMPLATE = Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja"  # Qwen3's own, as it is published
FAQS, STEPS, MORE_STEPS = 40, 24, 28
SECONDS = 600
MODULES = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
SETTINGS = {
    "training.max_steps": STEPS,
    "training.learning_rate": 0.01,
    "training.gradient_accumulation_steps": 2,
    "training.logging_steps": 4,
    "training.eval_steps": 12,
    "training.save_steps": 12,
}

sys.path.insert(0, str(FINETUNE))
from train import NOT_THINKING, chats  # noqa: E402


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return what the real program exports of the first FAQs of the sample."""
    folder = tmp_path_factory.mktemp("data")
    source = folder / "faq.jsonl"
    source.write_text("".join(SAMPLE.read_text("utf-8").splitlines(keepends=True)[:FAQS]), "utf-8")
    program = [ROOT / ".venv" / "bin" / "smartstore", "export-finetune", source, "--output", folder / "chats"]
    subprocess.run(program, env={"PATH": os.defpath, "HOME": str(folder)}, check=True, timeout=SECONDS)
    return folder / "chats"


@pytest.fixture(scope="session")
def model(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a Qwen3 of two layers that has learned nothing, and a tokenizer made of the chats."""
    folder = tmp_path_factory.mktemp("model")
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
    learning = trainers.BpeTrainer(
        vocab_size=3_000, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    bpe.train_from_iterator((message for chat in read(data / "train.jsonl") for message in texts(chat)), learning)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=TEMPLATE.read_text()
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=8_192,
        initializer_range=0.1,  # at the usual 0.02 a head that stays as it is tells no token from another
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def trained(data: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return the folder that a whole run filled, and what the run said."""
    output = tmp_path_factory.mktemp("trained") / "adapter"
    done = train(data, model, output)
    assert done.returncode == 0, done.stdout + done.stderr
    return output, done.stdout


def train(data: Path, model: Path, output: Path, *more: str, **changes: Any) -> subprocess.CompletedProcess[str]:
    settings = [f"--set={name}={value}" for name, value in (SETTINGS | changes).items()]
    command = [sys.executable, FINETUNE / "train.py", "--data", data, "--model", model, "--output", output]
    environment = {"PATH": os.defpath, "HOME": str(output.parent), "HF_HUB_OFFLINE": "1", "LANG": "C.UTF-8"}
    return subprocess.run(
        [*command, *settings, *more],
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]


def texts(chat: dict[str, Any]) -> list[str]:
    return [message["content"] for message in chat["messages"]]


def logged(output: Path, name: str) -> list[float]:
    state = json.loads((output / "trainer_state.json").read_text("utf-8"))
    return [entry[name] for entry in state["log_history"] if name in entry]


def answer_loss(model: Any, tokenizer: Any, chat: list[dict[str, str]]) -> float:
    """Return the mean loss over the tokens of a chat's last answer, reckoned without TRL."""
    asked = tokenizer.apply_chat_template(chat[:-1], tokenize=False, add_generation_prompt=True, **NOT_THINKING)
    whole = tokenizer.apply_chat_template(chat, tokenize=False, **NOT_THINKING)
    ids = torch.tensor([tokenizer(whole, add_special_tokens=False)["input_ids"]])
    start = len(tokenizer(asked, add_special_tokens=False)["input_ids"])
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0, start - 1 : -1]
    return float(torch.nn.functional.cross_entropy(logits.float(), ids[0, start:]))


def test_loss_falls(trained: tuple[Path, str]) -> None:
    output, said = trained
    losses, validation = logged(output, "loss"), logged(output, "eval_loss")
    assert len(losses) == STEPS // 4
    assert len(validation) == 1 + STEPS // 12
    assert losses[-1] < losses[0] - 0.5
    assert validation[-1] < validation[0] - 0.5
    assert re.search(rf"^0/{STEPS}걸음: 검증 손실 {validation[0]:.4f}$", said, re.MULTILINE)
    assert re.search(rf"^{STEPS}/{STEPS}걸음: 학습 손실 {losses[-1]:.4f}$", said, re.MULTILINE)


def test_adapter_is_one_that_vllm_can_load(trained: tuple[Path, str]) -> None:
    output, _ = trained
    config = json.loads((output / "adapter_config.json").read_text("utf-8"))
    assert set(config["target_modules"]) == MODULES
    assert (config["r"], config["bias"], config["use_dora"], config["modules_to_save"]) == (16, "none", False, None)
    weights = load_file(output / "adapter_model.safetensors")
    name = re.compile(r"base_model\.model\.model\.layers\.\d\.(?:self_attn|mlp)\.(\w+)\.lora_[AB]\.weight")
    assert {found[1] for key in weights if (found := name.fullmatch(key))} == MODULES
    assert all(name.fullmatch(key) for key in weights)
    assert all(weight.abs().sum() > 0 for key, weight in weights.items() if "lora_B" in key)  # B begins as zeros


def test_adapter_loads_again_and_answers(trained: tuple[Path, str], data: Path, model: Path) -> None:
    output, _ = trained
    tokenizer = AutoTokenizer.from_pretrained(output)
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), output).eval()
    tested = [chat["messages"] for chat in read(data / "validation.jsonl")]
    # The run's own figure, so it counted these tokens and no others, and the adapter is the one that it had.
    mean = sum(answer_loss(loaded, tokenizer, chat) for chat in tested) / len(tested)
    assert mean == pytest.approx(min(logged(output, "eval_loss")), rel=1e-3)

    asked = tokenizer.apply_chat_template(
        tested[0][:-1], add_generation_prompt=True, return_dict=True, return_tensors="pt", **NOT_THINKING
    )
    with torch.no_grad():
        written = loaded.generate(**asked, max_new_tokens=16, do_sample=False)
    assert 0 < written.shape[1] - asked["input_ids"].shape[1] <= 16


def test_prompt_that_is_trained_on_is_the_one_that_is_served(data: Path, model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model)
    chat = next(chat for chat in read(data / "train.jsonl") if chat["kind"] == "multi_turn")["messages"]
    one = data.parent / "one.jsonl"
    one.write_text(json.dumps({"messages": chat}), "utf-8")
    (row,) = chats(one, tokenizer, 8_192)
    assert (row["prompt"], row["completion"]) == (chat[:-1], chat[-1:])
    whole = tokenizer.apply_chat_template(chat, tokenize=False, **row["chat_template_kwargs"])
    served = tokenizer.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True, **NOT_THINKING)
    assert served.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert served.count("<think>") == 1  # none in the turns before
    assert whole == f"{served}{chat[-1]['content']}<|im_end|>\n"


def test_chats_that_are_too_long_are_left_out_and_not_cut(
    data: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model)
    all_of_them = chats(data / "validation.jsonl", tokenizer, 8_192)
    lengths = sorted(
        len(tokenizer(tokenizer.apply_chat_template(chat["messages"], tokenize=False, **NOT_THINKING))["input_ids"])
        for chat in read(data / "validation.jsonl")
    )
    assert len(all_of_them) == len(lengths)
    assert len(chats(data / "validation.jsonl", tokenizer, lengths[-1] - 1)) == len(lengths) - 1
    assert "긴 대화 1건을 뺐습니다" in capsys.readouterr().out


def test_interrupted_run_is_resumed(trained: tuple[Path, str], data: Path, model: Path, tmp_path: Path) -> None:
    output = tmp_path / "adapter"
    shutil.copytree(trained[0], output)
    more = {"training.max_steps": MORE_STEPS, "training.eval_steps": 4, "training.save_steps": 4}
    refused = train(data, model, output, **more)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "--resume" in refused.stderr
    assert "Traceback" not in refused.stderr

    done = train(data, model, output, "--resume", **more)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^(\d+)/\d+걸음: 학습 손실", done.stdout, re.MULTILINE) == [str(MORE_STEPS)]
    assert logged(output, "loss")[:-1] == logged(trained[0], "loss")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--data", "nowhere"], "smartstore export-finetune"),
        (["--set", "training.steps=3"], "[training]에 없는 설정입니다: steps"),
        (["--model", "nowhere"], "모델을 읽을 수 없습니다: nowhere"),
        (["--set", "max_steps=3"], "쓸 수 있는 표: model, lora, training"),
        (["--config", "nowhere.toml"], "설정 파일을 읽을 수 없습니다"),
    ],
    ids=["no data", "unknown setting", "no model", "no table", "no configuration"],
)
def test_wrong_call_is_told_in_korean(data: Path, model: Path, tmp_path: Path, options: list[str], said: str) -> None:
    refused = train(data, model, tmp_path / "adapter", *options)
    assert refused.returncode == 1
    assert refused.stderr.startswith("오류: ")
    assert said in refused.stderr
    assert not (tmp_path / "adapter").exists()


def test_base_and_adapter_are_served_together(trained: tuple[Path, str], tmp_path: Path) -> None:
    vllm = tmp_path / "vllm"
    vllm.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n', "utf-8")
    vllm.chmod(0o755)
    done = subprocess.run(
        [FINETUNE / "serve.sh", trained[0], "--tensor-parallel-size", "2"],
        env={"PATH": f"{tmp_path}:{os.defpath}"},
        capture_output=True,
        text=True,
        check=True,
    )
    command = done.stdout.split()
    assert command[:2] == ["serve", "Qwen/Qwen3-32B"]
    assert "--enable-lora" in command
    assert command[command.index("--lora-modules") + 1] == f"smartstore-faq={trained[0]}"
    assert command[command.index("--max-lora-rank") + 1] == "16"
    assert command[-2:] == ["--tensor-parallel-size", "2"]
