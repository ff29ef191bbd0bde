"""A defence in a Trainer that calls as Hugging Face's does: as a plain loop trains."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from buttress import defences
from buttress.errors import UserError

MODULE = "buttress.integrations.hugging_face"


class Trainer:
    """The calls of Hugging Face's Trainer around a loss."""

    loss_is_scaled_for_ga = None

    def __init__(self, model, batches, accumulated=1, compute_loss_func=None, label_smoother=None, wrapper=None):
        self.model, self.batches = model, batches
        self.wrapped = model if wrapper is None else wrapper(model)
        self.compute_loss_func, self.label_smoother = compute_loss_func, label_smoother
        self.model_accepts_loss_kwargs = True
        self.args = SimpleNamespace(gradient_accumulation_steps=accumulated)
        self.callback_handler = SimpleNamespace(train_dataloader=batches)
        self.state = SimpleNamespace(num_train_epochs=2, max_steps=2 * len(batches) // accumulated, global_step=0)
        self.logged = []

    def train(self, begin=0, stop=None):
        accumulated = self.args.gradient_accumulation_steps
        self.state.global_step = begin
        optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        for number, (x, y) in list(enumerate(self.batches * 2))[begin * accumulated : stop]:
            self.model.train()
            loss = self.compute_loss(self.wrapped, {"pixel_values": x, "labels": y}, num_items_in_batch=len(x))
            scaled = (
                self.model_accepts_loss_kwargs if self.loss_is_scaled_for_ga is None else self.loss_is_scaled_for_ga
            )
            (loss if scaled else loss / accumulated).backward()
            if (number + 1) % accumulated == 0:
                optimizer.step()
                optimizer.zero_grad()
                self.state.global_step += 1

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(**inputs)
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    def log(self, figures):
        self.logged.append(figures)


class Model(nn.Module):
    """In the manner of Hugging Face's: inputs by their name, a dict with the loss where there are labels."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, pixel_values, labels=None):
        logits = self.net(pixel_values)
        return {"logits": logits} if labels is None else {"loss": logits.sum(), "logits": logits}


@pytest.fixture
def hugging_face(with_package):
    return with_package(MODULE, "transformers", {"Trainer": Trainer, "TrainerCallback": object})


@pytest.mark.parametrize("defence", [defences.TRADES, defences.AdversarialTraining, defences.Standard])
@pytest.mark.parametrize("accumulated", [1, 2])
def test_a_defence_trains_as_in_a_plain_loop(defence, accumulated, hugging_face, small, batches, by_hand, same_weights):
    trainer = hugging_face.DefenceTrainer(Model(small()), batches, accumulated, defence=defence(), seed=3)
    trainer.train()
    same_weights(trainer.model.net, by_hand(small(), defence(), accumulated=accumulated))


def test_a_training_that_goes_on_goes_on_at_its_step(hugging_face, small, batches, by_hand, same_weights):
    model = Model(small())
    for begin, stop in ((0, 4), (2, None)):  # steps of two batches
        hugging_face.DefenceTrainer(model, batches, 2, defence=defences.TRADES(), seed=3).train(begin, stop)
    same_weights(model.net, by_hand(small(), defences.TRADES(), accumulated=2))


class Wrapper(nn.Module):
    """What several processes wrap a network into, whose gradients are shared for its own calls alone."""

    def __init__(self, module):
        super().__init__()
        self.module, self.calls = module, 0

    def forward(self, *args, **options):
        self.calls += 1
        return self.module(*args, **options)


def test_gradients_go_through_what_several_processes_wrap_the_network_into(
    hugging_face, small, batches, by_hand, same_weights
):
    trainer = hugging_face.DefenceTrainer(Model(small()), batches, defence=defences.TRADES(), seed=3, wrapper=Wrapper)
    trainer.train()
    assert trainer.wrapped.calls == 2 * len(batches)  # one for each step
    assert "forward" not in vars(trainer.model)
    same_weights(trainer.model.net, by_hand(small(), defences.TRADES()))


def test_evaluation_is_the_trainers_own(hugging_face, small, batches):
    trainer = hugging_face.DefenceTrainer(Model(small()), batches, defence=defences.TRADES())
    x, y = batches[0]
    inputs = {"pixel_values": x, "labels": y}
    trainer.model.eval()
    loss, outputs = trainer.compute_loss(trainer.model, inputs, return_outputs=True)
    assert loss == outputs["logits"].sum()
    assert trainer.compute_loss(trainer.model, inputs) == loss


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"compute_loss_func": print}, "compute_loss_func has no effect on a defence"),
        ({"label_smoother": print}, "label smoothing has no effect on a defence"),
    ],
)
def test_options_without_effect_are_refused(options, line, hugging_face, small, batches):
    with pytest.raises(UserError, match=line):
        hugging_face.DefenceTrainer(Model(small()), batches, defence=defences.TRADES(), **options)


def test_inputs_that_an_image_processor_has_normalised_are_refused(hugging_face, small, batches):
    trainer = hugging_face.DefenceTrainer(
        Model(small()), [(x * 4 - 2, y) for x, y in batches], defence=defences.TRADES()
    )
    with pytest.raises(UserError, match=r"inputs must lie in the box \[0.0, 1.0\]"):
        trainer.train()


def test_accuracies_are_logged_and_among_the_metrics(hugging_face, small, batches):
    trainer = hugging_face.DefenceTrainer(Model(small()), batches, defence=defences.Standard())
    callback = hugging_face.TrainerRobustness(trainer, batches)
    metrics = {"eval_loss": 1.0}
    callback.on_epoch_end(None, None, None, model=trainer.model)
    callback.on_evaluate(None, None, None, metrics=metrics)
    (logged,) = trainer.logged
    assert metrics == {"eval_loss": 1.0, **{f"eval_{name}": value for name, value in logged.items()}}
    assert logged["robust_accuracy"] <= logged["clean_accuracy"]


def test_without_transformers_the_line_says_what_to_install(with_package):
    with pytest.raises(
        UserError, match=r"Hugging Face's Trainer cannot be imported \(.*\): pip install 'buttress\[hugging-face\]'"
    ):
        with_package(MODULE, "transformers", None)
