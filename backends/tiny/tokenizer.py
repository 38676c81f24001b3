"""The embedded model's tokenizer: byte-level BPE, digits one by one, newlines alone, ChatML-like turns.

A newline is always its own token and never part of a neighbour, so text put together from pieces at line starts has
the same tokens as text encoded whole.
"""

from collections.abc import Iterable
from random import Random

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from .example import Example, Message

__all__ = ["CHAT_TEMPLATE", "END_OF_TEXT", "END_OF_TURN", "VOCAB_SIZE", "encode_example", "render", "train_tokenizer"]

VOCAB_SIZE = 1536
START_OF_TURN, END_OF_TURN, END_OF_TEXT = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
SPLIT = r"'(?i:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\r?\n|[^\S\r\n]+(?!\S)|\s"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
PROMPT_WEIGHT = 0.1


def render(message: Message) -> str:
    """A message as the chat template writes it; raw text stays as it is."""
    if message.role == "text":
        return message.content
    return f"{START_OF_TURN}{message.role}\n{message.content}{END_OF_TURN}\n"


def train_tokenizer(texts: Iterable[str], vocab_size: int = VOCAB_SIZE) -> Tokenizer:
    """Train a tokenizer on texts; any other text still encodes, at worst byte by byte."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(SPLIT), behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT, START_OF_TURN, END_OF_TURN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def encode_example(tokenizer: Tokenizer, example: Example, rng: Random) -> tuple[list[int], list[float]]:
    """Encode an example as token ids and the loss weight of each; `rng` cuts some texts in two before encoding.

    Programs build prompts from pieces that are encoded one by one, so the model must know both cuts of a space.
    """
    ids: list[int] = []
    weights: list[float] = []
    for message in example.messages:
        for text, learnt in pieces(message):
            for part in cut(text, rng):
                encoded = tokenizer.encode(part, add_special_tokens=False).ids
                ids += encoded
                weights += [1.0 if learnt else PROMPT_WEIGHT] * len(encoded)
    if example.messages[-1].role == "text":
        ids += tokenizer.encode(END_OF_TEXT).ids
        weights.append(1.0)
    return ids, weights


def pieces(message: Message) -> list[tuple[str, bool]]:
    """The parts of a rendered message, each with whether it is to be learnt in full."""
    if message.role != "assistant":
        return [(render(message), message.role == "text" and message.learn)]
    return [(f"{START_OF_TURN}assistant\n", False), (message.content + END_OF_TURN, message.learn), ("\n", False)]


def cut(text: str, rng: Random) -> list[str]:
    """Cut a text at one random space, now and then, before or after it."""
    spaces = [i for i, char in enumerate(text) if char == " "]
    if not spaces or rng.random() > 0.15:
        return [text]
    at = rng.choice(spaces) + rng.randrange(2)
    return [part for part in (text[:at], text[at:]) if part]
