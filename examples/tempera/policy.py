"""The learnt editor's policy: attention over hidden states of prompt and exemplars, a logit for each edit."""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from .environment import Actions

__all__ = ["AttentionPolicy", "PolicyShape", "load_policy", "save_policy"]

MOST = 5.0


@dataclass(frozen=True, slots=True)
class PolicyShape:
    """The sizes that a policy is built for: of hidden states, of the edits, and its own."""

    hidden_size: int
    num_slots: int
    num_pool: int
    num_templates: int
    num_instruction_edits: int = 0
    width: int = 64
    heads: int = 4
    layers: int = 2

    @classmethod
    def of(cls, actions: Actions, hidden_size: int) -> "PolicyShape":
        """The shape for these edits."""
        edits = len(actions.instruction) if actions.instruction else 0
        return cls(hidden_size, actions.num_slots, actions.num_pool, actions.num_templates, edits)


class Normalizer(nn.Module):
    """Hidden states less their mean, over their deviation, as seen so far; far values are cut off."""

    count: Tensor
    mean: Tensor
    squares: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("squares", torch.zeros(size))

    def see(self, values: Tensor) -> None:
        """Take values (..., size) into the statistics."""
        rows = values.reshape(-1, values.shape[-1])
        total = self.count + len(rows)
        shift = rows.mean(0) - self.mean
        self.squares += ((rows - rows.mean(0)) ** 2).sum(0) + shift**2 * self.count * len(rows) / total
        self.mean += shift * len(rows) / total
        self.count.copy_(total)

    def forward(self, values: Tensor) -> Tensor:
        """The normalized values."""
        deviation = (self.squares / self.count.clamp(min=1)).sqrt() + 1e-5
        return ((values - self.mean) / deviation).clamp(-MOST, MOST)


class AttentionPolicy(nn.Module):
    """Features (states, 1 + slots + pool, hidden size) and template ids (states, slots) to logits and values.

    The items attend to each other. A swap's logit is a product of its two exemplars' projections, a template's comes
    from its slot, and a stop's from the prompt.
    """

    def __init__(self, shape: PolicyShape) -> None:
        super().__init__()
        self.shape = shape
        width = shape.width
        self.normalizer = Normalizer(shape.hidden_size)
        self.project = nn.Sequential(nn.Linear(shape.hidden_size, width), nn.GELU(), nn.Linear(width, width))
        self.kinds = nn.Embedding(1 + shape.num_slots + 1, width)
        self.templates = nn.Embedding(shape.num_templates, width)
        layer = nn.TransformerEncoderLayer(
            width, shape.heads, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.attend = nn.TransformerEncoder(layer, shape.layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.out_of_slot = nn.Linear(width, width)
        self.into_slot = nn.Linear(width, width)
        self.pool_merit = nn.Linear(width, 1)
        self.other_slot = nn.Linear(width, width)
        self.template_logits = nn.Linear(width, shape.num_templates)
        self.prompt_logits = nn.Linear(width, 1 + shape.num_instruction_edits)
        self.value = nn.Linear(width, 1)
        kinds = [0, *range(1, shape.num_slots + 1), *[shape.num_slots + 1] * shape.num_pool]
        self.register_buffer("kind_ids", torch.tensor(kinds), persistent=False)
        self.register_buffer("pairs", torch.combinations(torch.arange(shape.num_slots)), persistent=False)

    kind_ids: Tensor
    pairs: Tensor

    def forward(self, features: Tensor, template_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (states, edits) in the order of `Actions`, and values (states,)."""
        slots = self.shape.num_slots
        items = self.project(self.normalizer(features)) + self.kinds(self.kind_ids)
        items = torch.cat(
            [items[:, :1], items[:, 1 : 1 + slots] + self.templates(template_ids), items[:, 1 + slots :]], dim=1
        )
        items = self.norm(self.attend(items))
        prompt, slot, pool = items[:, 0], items[:, 1 : 1 + slots], items[:, 1 + slots :]
        return self.logits(prompt, slot, pool), self.value(prompt).squeeze(-1)

    def logits(self, prompt: Tensor, slot: Tensor, pool: Tensor) -> Tensor:
        """The logits of all edits, from the items that attention gave."""
        scale = self.shape.width**-0.5
        stop, instruction = self.prompt_logits(prompt).split([1, self.shape.num_instruction_edits], dim=-1)
        out = self.out_of_slot(slot)
        swaps = out @ self.other_slot(slot).transpose(1, 2) * scale
        left, right = self.pairs.unbind(-1)
        moves = out @ self.into_slot(pool).transpose(1, 2) * scale + self.pool_merit(pool).transpose(1, 2)
        templates = self.template_logits(slot).transpose(1, 2)
        parts = [stop, swaps[:, left, right], stop.expand(-1, slot.shape[1]), moves.flatten(1), templates.flatten(1)]
        return torch.cat([*parts, instruction], dim=-1)


def save_policy(policy: AttentionPolicy, path: Path) -> None:
    """Write a policy to a file."""
    torch.save({"shape": asdict(policy.shape), "weights": policy.state_dict()}, path)


def load_policy(path: Path) -> AttentionPolicy:
    """Read a policy that `save_policy` wrote; raises OSError where there is none."""
    saved = torch.load(path, weights_only=True)
    policy = AttentionPolicy(PolicyShape(**saved["shape"]))
    policy.load_state_dict(saved["weights"])
    return policy
