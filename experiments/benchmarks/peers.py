"""Published controllers, run on the same task: `pip install '.[peers]'`.

Each is given choice counts and a function that evaluates; a network that it proposes
again is answered from memory, and neither evaluated nor counted.

Not among them: Vizier, whose designers need the jax extra of google-vizier, with Flax,
Equinox and TensorFlow Probability's nightly, and Syne-Tune, which installs. Neither has
been run.
"""

# Peers are optional, and not installed where types are checked.
# pyright: reportMissingImports=false

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from experiments.benchmarks.imagenet_task import Floats, Tokens

Evaluate = Callable[[Tokens], Floats]

# A search ends after so many proposals for each child that was asked for, even where
# most were repeats: by then it has converged, and some peers take long to propose.
_MAX_PROPOSALS = 2


class _Memory:
    """Answers repeated tokens from memory; says when there were enough children."""

    def __init__(self, evaluate: Evaluate, num_children: int) -> None:
        self._evaluate = evaluate
        self._num_children = num_children
        self._known: dict[tuple[int, ...], float] = {}
        self._num_proposed = 0

    @property
    def done(self) -> bool:
        return (
            len(self._known) >= self._num_children
            or self._num_proposed >= _MAX_PROPOSALS * self._num_children
        )

    def __call__(self, tokens: tuple[int, ...]) -> float:
        self._num_proposed += 1
        if tokens not in self._known:
            found = self._evaluate(np.array([tokens], np.int32))
            self._known[tokens] = float(found[0])
        return self._known[tokens]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Peer:
    """`package` must be importable; `run(num_choices, memory, seed)` searches."""

    package: str
    run: Callable[[tuple[int, ...], _Memory, int], None]

    def search(
        self,
        num_choices: tuple[int, ...],
        evaluate: Evaluate,
        num_children: int,
        seed: int,
    ) -> None:
        """Has `num_children` different networks evaluated, or all that it finds."""
        self.run(num_choices, _Memory(evaluate, num_children), seed)


def _pyglove_evolution(population: int, tournament: int) -> Peer:
    def run(num_choices: tuple[int, ...], memory: _Memory, seed: int) -> None:
        import pyglove as pg

        space = pg.Dict(
            {f"d{d}": pg.oneof(range(count)) for d, count in enumerate(num_choices)}
        )
        algorithm = pg.evolution.regularized_evolution(
            mutator=pg.evolution.mutators.Uniform(seed=seed),
            population_size=population,
            tournament_size=tournament,
            seed=seed,
        )
        # Not pg.sample, which builds each example anew, symbol by symbol.
        algorithm.setup(pg.dna_spec(space))
        while not memory.done:
            # The same proposals, in two thirds of the time.
            with pg.enable_type_check(enabled=False):
                dna: Any = algorithm.propose()
            algorithm.feedback(dna, memory(tuple(dna.to_numbers())))

    return Peer(package="pyglove", run=run)


def _torch_reinforce(num_choices: tuple[int, ...], memory: _Memory, seed: int) -> None:
    """Accel-NASBench's LSTM-REINFORCE, restated from its paper, in PyTorch.

    One LSTM layer of 100 units, learning rate 3.5e-4, entropy weight 1e-5, baseline
    decay 0.95, batches of 6.
    """
    import torch
    from torch import nn

    torch.manual_seed(seed)
    torch.set_num_threads(1)
    hidden, batch = 100, 6
    cell = nn.LSTMCell(hidden, hidden)
    heads = nn.ModuleList(nn.Linear(hidden, count) for count in num_choices)
    embeds = nn.ModuleList(nn.Embedding(count, hidden) for count in num_choices)
    modules = nn.ModuleList([cell, heads, embeds])
    for weight in modules.parameters():
        nn.init.uniform_(weight, -0.1, 0.1)
    optimizer = torch.optim.Adam(modules.parameters(), lr=3.5e-4)
    baseline = math.nan
    while not memory.done:
        inputs = torch.zeros(batch, hidden)
        state = (torch.zeros(batch, hidden), torch.zeros(batch, hidden))
        log_probs, entropies = torch.zeros(batch), torch.zeros(batch)
        tokens: list[Any] = []
        for head, embed in zip(heads, embeds, strict=True):
            state = cell(inputs, state)
            choice = torch.distributions.Categorical(logits=head(state[0]))
            token = choice.sample()
            log_probs = log_probs + choice.log_prob(token)
            entropies = entropies + choice.entropy()
            inputs = embed(token)
            tokens.append(token)
        rows = torch.stack(tokens, dim=1).tolist()
        rewards = torch.tensor([memory(tuple(row)) for row in rows]) / 100.0
        mean = float(rewards.mean())
        baseline = mean if math.isnan(baseline) else 0.95 * baseline + 0.05 * mean
        loss = -((rewards - baseline) * log_probs + 1e-5 * entropies).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _optuna_tpe(num_choices: tuple[int, ...], memory: _Memory, seed: int) -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed)
    )
    while not memory.done:
        trial = study.ask()
        tokens = tuple(
            trial.suggest_categorical(f"d{d}", tuple(range(count)))
            for d, count in enumerate(num_choices)
        )
        study.tell(trial, memory(tokens))


PEERS: Mapping[str, Peer] = {
    "pyglove-evolution-20-5": _pyglove_evolution(20, 5),
    "pyglove-evolution-50-12": _pyglove_evolution(50, 12),
    "pyglove-evolution-100-25": _pyglove_evolution(100, 25),
    "torch-lstm-reinforce": Peer(package="torch", run=_torch_reinforce),
    "optuna-tpe": Peer(package="optuna", run=_optuna_tpe),
}
