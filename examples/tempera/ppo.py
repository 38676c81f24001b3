"""Proximal policy optimization of the editor, with the settings' names of the paper's release."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from random import Random
from typing import Any

import torch
from ramify.ir.errors import UsageError
from torch import Tensor, nn
from torch.distributions import Categorical

from .environment import EditState
from .episodes import Environment
from .features import Features
from .policy import AttentionPolicy
from .rewards import REWARD_SCALE
from .tasks import Row

__all__ = ["Learner", "Progress", "Settings"]


@dataclass(frozen=True, slots=True)
class Settings:
    """What PPO goes by: `num_processes` episodes side by side, `num_steps` edits of each between two updates.

    The defaults are the example's own, for a small model and a few minutes.
    """

    num_processes: int = 32
    num_steps: int = 8
    lr: float = 2e-3
    linear_decay: bool = True
    entropy: float = 0.01
    value: float = 0.5
    minibatches: int = 4
    epochs: int = 4
    clip: float = 0.2
    gamma: float = 0.9
    gae_lambda: float = 0.95
    max_grad_norm: float = 0.5
    env_steps: int = 3072
    max_steps: int = 8
    normalize_obs: bool = True

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "Settings":
        """Settings from a mapping; entries about the data, which are not PPO's, are left alone.

        Raises UsageError for a value of the wrong type.
        """
        known = {each.name: type(each.default) for each in fields(cls)}
        for name, value in given.items():
            if name in known and not isinstance(value, (int, float) if known[name] is float else known[name]):
                raise UsageError(f"ppo setting {name}: {value!r} is no {known[name].__name__}")
        return replace(cls(), **{name: value for name, value in given.items() if name in known})

    @property
    def num_updates(self) -> int:
        """How often the policy is updated."""
        return max(1, self.env_steps // (self.num_processes * self.num_steps))


@dataclass(frozen=True, slots=True)
class Progress:
    """How training stands after an update; `reward` is the mean of whole episodes, in units of the score."""

    update: int
    env_steps: int
    reward: float
    right: float
    edits: float
    entropy: float


@dataclass(frozen=True, slots=True)
class Rollout:
    """What was seen, done and earned between two updates; tensors (steps, episodes, ...)."""

    features: Tensor
    template_ids: Tensor
    actions: Tensor
    logprobs: Tensor
    values: Tensor
    rewards: Tensor
    goes_on: Tensor


@dataclass(slots=True)
class Episode:
    """A prompt under editing, with how many edits it has had and what they earned."""

    state: EditState
    steps: int = 0
    reward: float = 0.0


class Learner:
    """Trains a policy on queries that share exemplars."""

    def __init__(
        self,
        environment: Environment,
        features: Features,
        policy: AttentionPolicy,
        settings: Settings,
        queries: Sequence[Row],
        exemplars: Sequence[Row],
        seed: int,
    ) -> None:
        self.environment, self.features, self.policy, self.settings = environment, features, policy, settings
        self.queries, self.exemplars = queries, exemplars
        self.rng = Random(f"episodes/{seed}")
        self.generator = torch.Generator().manual_seed(seed)
        self.optimizer = torch.optim.Adam(policy.parameters(), lr=settings.lr, eps=1e-5)
        self.update = 0
        self.episodes: list[Episode] = []

    def run(self) -> Iterator[Progress]:
        """Train up to the settings' number of steps, from where it stands; tells of each update."""
        while self.update < self.settings.num_updates:
            if not self.episodes:
                self.episodes = [self.new_episode() for _ in range(self.settings.num_processes)]
            ended: list[Episode] = []
            rollout, last_values = self.collect(ended)
            entropy = self.learn(rollout, last_values)
            self.update += 1
            yield self.progress(ended, entropy)

    def new_episode(self) -> Episode:
        """An episode on a query drawn at random."""
        (state,) = self.environment.start([self.rng.choice(self.queries)], self.exemplars)
        return Episode(state)

    @torch.no_grad()
    def collect(self, ended: list[Episode]) -> tuple[Rollout, Tensor]:
        """Let the policy edit; adds the episodes that end, and gives what was seen and the values of what is then."""
        steps = [self.advance(ended) for _ in range(self.settings.num_steps)]
        rollout = Rollout(*map(torch.stack, zip(*steps, strict=True)))
        return rollout, self.judge()[-1]

    def judge(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features, template ids, logits and values of the episodes' states."""
        states = [episode.state for episode in self.episodes]
        features = self.features.of(states)
        template_ids = torch.tensor([state.template_ids for state in states])
        logits, values = self.policy(features, template_ids)
        return features, template_ids, logits, values

    def advance(self, ended: list[Episode]) -> tuple[Tensor, ...]:
        """One edit in each episode; those that end are replaced by new ones. In the order of Rollout's fields."""
        if self.settings.normalize_obs:
            self.policy.normalizer.see(self.features.of([episode.state for episode in self.episodes]))
        features, template_ids, logits, values = self.judge()
        drawn = torch.multinomial(logits.softmax(-1), 1, generator=self.generator).squeeze(-1)
        logprobs = Categorical(logits=logits).log_prob(drawn)
        before = [episode.state for episode in self.episodes]
        after, rewards = self.environment.step(before, drawn.tolist())
        earned = [reward / REWARD_SCALE for reward in rewards]
        goes_on = [self.follow(number, *each, ended) for number, each in enumerate(zip(after, earned, strict=True))]
        return features, template_ids, drawn, logprobs, values, torch.tensor(earned), torch.tensor(goes_on)

    def follow(self, number: int, state: EditState, earned: float, ended: list[Episode]) -> float:
        """Take an episode on to its next state; 1 if it goes on, 0 if a new one takes its place."""
        episode = self.episodes[number]
        episode.state, episode.steps, episode.reward = state, episode.steps + 1, episode.reward + earned
        if not state.stopped and episode.steps < self.settings.max_steps:
            return 1.0
        ended.append(episode)
        self.episodes[number] = self.new_episode()
        return 0.0

    def learn(self, rollout: Rollout, last_values: Tensor) -> float:
        """Update the policy; returns the mean entropy of what it does."""
        settings = self.settings
        if settings.linear_decay:
            self.optimizer.param_groups[0]["lr"] = settings.lr * (1 - self.update / settings.num_updates)
        advantages = self.advantages(rollout, last_values)
        returns = (advantages + rollout.values).flatten()
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-5)
        seen = [rollout.features, rollout.template_ids, rollout.actions, rollout.logprobs, rollout.values, advantages]
        flat = [*(each.flatten(0, 1) for each in seen), returns]
        entropies = []
        for _ in range(settings.epochs):
            order = torch.randperm(len(returns), generator=self.generator)
            for chosen in order.chunk(settings.minibatches):
                entropies.append(self.minibatch(*(each[chosen] for each in flat)))
        return sum(entropies) / len(entropies)

    def advantages(self, rollout: Rollout, last_values: Tensor) -> Tensor:
        """Generalized advantage estimates (steps, episodes)."""
        settings, advantage, following = self.settings, torch.zeros_like(last_values), last_values
        found = []
        for step in reversed(range(len(rollout.rewards))):
            goes_on, values = rollout.goes_on[step], rollout.values[step]
            error = rollout.rewards[step] + settings.gamma * following * goes_on - values
            advantage = error + settings.gamma * settings.gae_lambda * goes_on * advantage
            following = values
            found.append(advantage)
        return torch.stack(found[::-1])

    def minibatch(
        self,
        features: Tensor,
        template_ids: Tensor,
        actions: Tensor,
        logprobs: Tensor,
        old_values: Tensor,
        advantages: Tensor,
        returns: Tensor,
    ) -> float:
        """One step of the optimizer on some of what was seen; returns the entropy."""
        settings = self.settings
        logits, values = self.policy(features, template_ids)
        chosen = Categorical(logits=logits)
        ratio = (chosen.log_prob(actions) - logprobs).exp()
        gain = torch.min(ratio * advantages, ratio.clamp(1 - settings.clip, 1 + settings.clip) * advantages).mean()
        near = old_values + (values - old_values).clamp(-settings.clip, settings.clip)
        value_loss = 0.5 * torch.max((values - returns) ** 2, (near - returns) ** 2).mean()
        entropy = chosen.entropy().mean()
        self.optimizer.zero_grad()
        torch.autograd.backward(settings.value * value_loss - gain - settings.entropy * entropy)
        nn.utils.clip_grad_norm_(self.policy.parameters(), settings.max_grad_norm)
        self.optimizer.step()
        return float(entropy.detach())

    def progress(self, ended: Sequence[Episode], entropy: float) -> Progress:
        """How training stands."""
        count = max(1, len(ended))
        return Progress(
            update=self.update,
            env_steps=self.update * self.settings.num_processes * self.settings.num_steps,
            reward=sum(episode.reward for episode in ended) / count,
            right=sum(self.environment.is_right([episode.state for episode in ended])) / count,
            edits=sum(episode.steps for episode in ended) / count,
            entropy=entropy,
        )
