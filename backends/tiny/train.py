"""Train the embedded model: `python -m ramify.backends.tiny.train --minutes N --out DIR`.

In: the generated tasks. Out: a Hugging Face model folder (bfloat16) in DIR, and DIR/trainer.pt to go on from: a further
run with the same DIR continues from there, with a learning rate that rises and falls again over its own minutes.
`--start FOLDER` begins with another model's weights and tokenizer instead of new ones. `--only TASK` is for one task:
what the mixture teaches late, a few minutes alone teach soon, and the mixture then keeps.
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from .example import Example
from .tasks import TASKS, draw, draw_task
from .tokenizer import CHAT_TEMPLATE, END_OF_TEXT, END_OF_TURN, encode_example, render, train_tokenizer

__all__ = ["main"]

TOKENIZER_TEXTS = 20_000
BATCH_TOKENS = 4096
POOL = 512
LONG_CHATS = 0.05
CHECKPOINT_SECONDS = 300
WARMUP = 0.03


@dataclass(frozen=True, slots=True)
class Batch:
    """Token ids and loss weights, both (rows, length), padded on the right with weight 0."""

    ids: Tensor
    weights: Tensor


def model_config(tokenizer: Tokenizer) -> LlamaConfig:
    """The shape of the model: about 4.5 million parameters."""
    end = tokenizer.token_to_id(END_OF_TURN)
    return LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=256,
        intermediate_size=640,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=end,
        pad_token_id=tokenizer.token_to_id(END_OF_TEXT),
        initializer_range=0.04,
    )


def long_chat(index: int) -> Example:
    """Several examples as one chat, to practise longer contexts and changes of subject."""
    rng = Random(f"train-long/{index}")
    parts = [draw_task(rng.choice(CHAT_TASKS), "train", rng.randrange(10**9)) for _ in range(rng.randint(3, 10))]
    turns = [turn for part in parts for turn in part.messages if turn.role != "system"]
    return Example("long", tuple(turns), parts[-1].accepts)


# Ten of these fit the context; those of the example programs are longer.
CHAT_TASKS = ("quiz", "sums", "yes-no", "pick", "extract", "extract-json", "copy", "chat", "tips", "unknown")


def batches(tokenizer: Tokenizer, first: int, only: str | None) -> Iterator[tuple[int, Batch]]:
    """Yield (next example's index, batch) for ever, from example `first`; a batch holds rows of like length."""
    while True:
        rng = Random(f"train-batch/{first}")
        picked = [lesson(index, rng, only) for index in range(first, first + POOL)]
        rows = sorted((encode_example(tokenizer, example, rng) for example in picked), key=lambda row: len(row[0]))
        first += POOL
        groups = list(grouped(rows))
        rng.shuffle(groups)
        for group in groups:
            yield first, padded(group)


def lesson(index: int, rng: Random, only: str | None) -> Example:
    """Example `index` of one task, or of the mixture and now and then a long chat."""
    if only is not None:
        return draw_task(only, "train", index)
    return long_chat(index) if rng.random() < LONG_CHATS else draw("train", index)


def grouped(rows: list[tuple[list[int], list[float]]]) -> Iterator[list[tuple[list[int], list[float]]]]:
    """Cut rows sorted by length into groups of at most BATCH_TOKENS tokens, padding included."""
    group: list[tuple[list[int], list[float]]] = []
    for row in rows:
        if group and len(row[0]) * (len(group) + 1) > BATCH_TOKENS:
            yield group
            group = []
        group.append(row)
    if group:
        yield group


def padded(rows: list[tuple[list[int], list[float]]]) -> Batch:
    """Rows as one rectangle."""
    length = max(len(ids) for ids, _ in rows)
    ids = [row + [0] * (length - len(row)) for row, _ in rows]
    weights = [row + [0.0] * (length - len(row)) for _, row in rows]
    return Batch(torch.tensor(ids), torch.tensor(weights))


def batch_loss(model: LlamaForCausalLM, batch: Batch, device: torch.device) -> Tensor:
    """The weighted mean cross entropy of each token given those before it."""
    ids, weights = batch.ids.to(device), batch.weights.to(device)[:, 1:].flatten()
    with torch.autocast(device.type, dtype=torch.bfloat16):
        logits = model(input_ids=ids[:, :-1]).logits
    losses = nn.functional.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none")
    return (losses * weights).sum() / weights.sum()


def rate_factor(progress: float) -> float:
    """The share of the peak learning rate at a progress of 0..1: a short rise, then a straight fall to nothing."""
    return min(progress / WARMUP, (1 - progress) / (1 - WARMUP), 1.0)


class Optimizers:
    """Muon for the blocks' matrices and AdamW for the embedding and the norms, on one schedule."""

    def __init__(self, model: LlamaForCausalLM, rate: float) -> None:
        matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
        others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
        self.parts: list[torch.optim.Optimizer] = [
            torch.optim.Muon(matrices, lr=rate, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.95), weight_decay=0.0),
        ]
        self.rate = rate

    def step(self, factor: float) -> None:
        """Take a step at a share of the peak learning rate, and clear the gradients."""
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = self.rate * factor
            part.step()
            part.zero_grad(set_to_none=True)

    def state(self) -> list[dict[str, object]]:
        """What `load` takes."""
        return [part.state_dict() for part in self.parts]

    def load(self, state: list[dict[str, object]]) -> None:
        """Restore what `state` gave."""
        for part, saved in zip(self.parts, state, strict=True):
            part.load_state_dict(saved)


@torch.no_grad()
def teacher_forced(model: LlamaForCausalLM, tokenizer: Tokenizer, task: str, draws: int, device: torch.device) -> float:
    """The share of held-out draws whose whole reference reply is the greedy choice; a lower bound of the accuracy."""
    right = 0
    for index in range(draws):
        held_out = draw_task(task, "held-out", index)
        prompt = "".join(render(message) for message in held_out.prompt)
        is_chat = held_out.messages[-1].role != "text"
        ids = tokenizer.encode(prompt + "<|im_start|>assistant\n" if is_chat else prompt).ids
        answer = tokenizer.encode(held_out.answer + (END_OF_TURN if is_chat else "")).ids
        logits = model(input_ids=torch.tensor([ids + answer[:-1]], device=device)).logits[0, len(ids) - 1 :]
        right += logits.argmax(-1).tolist() == answer
    return right / draws


def report(model: LlamaForCausalLM, tokenizer: Tokenizer, draws: int, device: torch.device) -> None:
    """Print the held-out share of each task."""
    model.train(False)
    shares = {task: teacher_forced(model, tokenizer, task, draws, device) for task in TASKS}
    model.train()
    print("  held-out  " + "  ".join(f"{task} {share:.2f}" for task, share in shares.items()), flush=True)


def new_tokenizer() -> Tokenizer:
    """Train the tokenizer on generated conversations."""
    texts = (render(turn) for i in range(TOKENIZER_TEXTS) for turn in draw("train", i).messages)
    return train_tokenizer(texts)


def save_tokenizer(tokenizer: Tokenizer, out: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json."""
    tokenizer.save(str(out / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END_OF_TURN,
        "pad_token": END_OF_TEXT,
        "bos_token": None,
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 2048,
        "chat_template": CHAT_TEMPLATE,
    }
    (out / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def save_model(model: LlamaForCausalLM, out: Path) -> None:
    """Write config.json, generation_config.json and model.safetensors, the weights in bfloat16."""
    weights = {name: value.detach().to("cpu", torch.bfloat16) for name, value in model.state_dict().items()}
    copy = LlamaForCausalLM(model.config).bfloat16()
    copy.load_state_dict(weights)
    copy.tie_weights()
    copy.generation_config.eos_token_id = [model.config.eos_token_id, model.config.pad_token_id]
    copy.save_pretrained(out)


def save_state(model: LlamaForCausalLM, optimizers: Optimizers, seen: int, out: Path) -> None:
    """Write the model folder and, beside it, what a further run needs to go on."""
    save_model(model, out)
    torch.save({"model": model.state_dict(), "optimizers": optimizers.state(), "seen": seen}, out / "trainer.pt")


def train(minutes: float, out: Path, device: torch.device, rate: float, start: Path | None, only: str | None) -> None:
    """Train for a number of minutes, from DIR/trainer.pt if it is there, else from the model in `start`, if any."""
    torch.manual_seed(0)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "tokenizer.json" if start is None else start / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path)) if path.exists() else new_tokenizer()
    save_tokenizer(tokenizer, out)
    with device:
        model = LlamaForCausalLM(model_config(tokenizer))
    if start is not None:
        model.load_state_dict(LlamaForCausalLM.from_pretrained(start, dtype=torch.float32).state_dict())
    optimizers, seen = Optimizers(model, rate), 0
    if (out / "trainer.pt").exists():
        saved = torch.load(out / "trainer.pt", map_location=device)
        model.load_state_dict(saved["model"])
        optimizers.load(saved["optimizers"])
        seen = saved["seen"]
    print(f"{model.num_parameters():,} parameters, vocabulary {tokenizer.get_vocab_size()}, from example {seen:,}")
    seen = run_steps(model, tokenizer, optimizers, batches(tokenizer, seen, only), minutes * 60, out, device)
    save_state(model, optimizers, seen, out)
    report(model, tokenizer, 100, device)


def run_steps(
    model: LlamaForCausalLM,
    tokenizer: Tokenizer,
    optimizers: Optimizers,
    data: Iterator[tuple[int, Batch]],
    seconds: float,
    out: Path,
    device: torch.device,
) -> int:
    """Step until the time is over, with a line of progress now and then; return the next example's index."""
    seen = 0
    start = time.monotonic()
    saved_at, tokens, steps, mean = start, 0, 0, 0.0
    for seen, batch in data:
        elapsed = time.monotonic() - start
        if elapsed >= seconds:
            break
        loss = batch_loss(model, batch, device)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizers.step(rate_factor(elapsed / seconds))
        steps, tokens = steps + 1, tokens + int((batch.weights > 0).sum())
        mean = 0.95 * mean + 0.05 * loss.item() if steps > 1 else loss.item()
        if steps % 50 == 0:
            print(f"{elapsed:6.0f} s  step {steps}  {tokens:,} tokens  loss {mean:.4f}", flush=True)
        if time.monotonic() - saved_at > CHECKPOINT_SECONDS:
            save_state(model, optimizers, seen, out)
            report(model, tokenizer, 12, device)
            saved_at = time.monotonic()
    return seen


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description="Train ramify's embedded model.")
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", type=Path, metavar="FOLDER", help="a model to begin with")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rate", type=float, default=3e-3, help="peak learning rate")
    parser.add_argument("--only", choices=TASKS, metavar="TASK", help="train on this task alone")
    given = parser.parse_args()
    train(given.minutes, given.out, torch.device(given.device), given.rate, given.start, given.only)


if __name__ == "__main__":
    main()
