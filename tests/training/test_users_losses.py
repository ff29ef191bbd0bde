"""What a defence of a user's own returns as its objective, when it is none."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from buttress import fit
from buttress.data.sets.moons import moons
from buttress.defences import Defence, Loss
from buttress.errors import UserError

WRONG = {
    "a tensor": (lambda output, y: cross_entropy(output, y), "returned a Tensor from loss: return defences.Loss"),
    "nothing": (lambda output, y: None, "returned a NoneType from loss"),
    "a value for each input": (
        lambda output, y: Loss(cross_entropy(output, y, reduction="none")),
        r"returned a tensor of shape \(\d+,\) as its loss: a tensor of one number",
    ),
    "a number": (lambda output, y: Loss(1.0), "returned a float as its loss"),
    "a constant": (lambda output, y: Loss(torch.tensor(1.0)), "returned a loss that does not depend on the weights"),
    "detached": (lambda output, y: Loss(cross_entropy(output, y).detach()), "returned a loss that does not depend on"),
    "figures": (
        lambda output, y: Loss(cross_entropy(output, y), {"outputs": output}),
        r"returned 'outputs' among its figures, of shape \(\d+, 2\): give one number",
    ),
}


class Wrong(Defence):
    def __init__(self, objective):
        super().__init__()
        self.objective = objective

    def loss(self, model, batch, at):
        return self.objective(at.clean(batch.x), batch.y)


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_objective_is_told_with_the_defences_name(kind):
    objective, told = WRONG[kind]
    with pytest.raises(UserError, match=f"test_users_losses:Wrong {told}"):
        fit(torch.nn.Linear(2, 2), moons(samples=40), Wrong(objective), epochs=1)
