"""A plain loop for what a method trains before the training proper: a generator, a teacher, a surrogate."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from buttress import tasks
from buttress.data.dataset import Split
from buttress.model_call import call_model
from buttress.random import derive, generator, seed_torch
from buttress.tasks import Task

Objective = Callable[[Tensor, Tensor, Tensor], Tensor]


def descend(
    parameters: Iterable[nn.Parameter],
    objective: Objective,
    split: Split,
    *,
    epochs: int,
    seed: int,
    batch_size: int = 128,
    lr: float = 1e-3,
    device: torch.device | None = None,
) -> list[float]:
    """Minimise ``objective`` by Adam over shuffled batches; the same seed gives the same bits.

    Args:
        parameters: what is trained.
        objective: (x, y, ids) of a batch -> a scalar; x in the data's units, on ``device``.
        split: the inputs.
        epochs: passes over them; 0 does nothing.
        seed: of the order of the inputs, and of torch's global state, as at the start of each epoch.
        batch_size: inputs per step; a lone last one is left out, since it cannot pass through BatchNorm.
        lr: Adam's learning rate.
        device: where batches are wanted; where they are unless given.

    Returns:
        The mean objective of each epoch.
    """
    optimizer = torch.optim.Adam(list(parameters), lr=lr)
    history = []
    for epoch in range(epochs):
        seed_torch(derive(seed, "descend", epoch), device)
        order = torch.randperm(len(split), generator=generator(seed, "order", epoch))
        parts = [part for part in torch.split(order, batch_size) if len(part) > 1 or len(split) == 1]
        total = 0.0
        for part in parts:
            x, y, ids = (values if device is None else values.to(device) for values in split.take(part))
            optimizer.zero_grad()
            value = objective(x, y, ids)
            value.backward()  # type: ignore[no-untyped-call]  # torch's own
            optimizer.step()
            total += float(value.detach())
        history.append(total / len(parts))
    optimizer.zero_grad()  # no gradient is left for the training that follows
    return history


def pretrain(
    model: nn.Module,
    split: Split,
    *,
    epochs: int,
    seed: int,
    batch_size: int = 128,
    lr: float = 1e-3,
    task: Task = tasks.classification,
) -> None:
    """Train a network by its task's objective on clean inputs, in place; its modes are left as they were."""
    flags = [(module, module.training) for module in model.modules()]
    first = next(model.parameters())
    model.train()

    def objective(x: Tensor, y: Tensor, ids: Tensor) -> Tensor:
        return task.objective(task.read(call_model(model, x.to(first.dtype))), y)

    trainable = [p for p in model.parameters() if p.requires_grad]
    descend(trainable, objective, split, epochs=epochs, seed=seed, batch_size=batch_size, lr=lr, device=first.device)
    for module, flag in flags:
        module.training = flag
