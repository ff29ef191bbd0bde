"""Tensors of every form are digested, kept, written and read back like plain ones."""

import hashlib

import pytest
import torch
from torch import nn

from buttress import models
from buttress.engine.fingerprint import digest, digest_of, plain
from buttress.engine.preserved_model import preserved
from buttress.tensor_forms import copied_network, formed_state, of_parts, overlaps, parts, plain_state
from buttress.training import checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:.*(prototype|beta state|deprecated|invariant checks are implicitly)")

MATRIX = torch.tensor([[1.0, 0, 2, 0], [0, 3, 0, 0], [0, 0, 0, 4], [5, 0, 0, 6]])
INDICES = torch.tensor([[0, 0, 3], [2, 2, 1]])
FORMS = {
    "dense": lambda a: a.clone(),
    "transposed": lambda a: a.T,
    "scalar": lambda a: a.sum(),
    "empty": lambda a: a[:0],
    "bfloat16": lambda a: a.bfloat16(),
    "bool": lambda a: a > 1,
    "expanded": lambda a: a.sum().expand(3, 3),
    "complex": lambda a: torch.complex(a, -a),
    "complex128": lambda a: torch.complex(a, -a).to(torch.complex128),
    "conjugate": lambda a: torch.complex(a, -a).conj(),
    "negated": lambda a: torch.complex(a, -a).conj().imag,
    "coo": lambda a: a.to_sparse(),
    "coo uncoalesced": lambda a: torch.sparse_coo_tensor(INDICES, a[0, :3] + 1, (4, 4)),
    "coo hybrid": lambda a: a.view(4, 2, 2).to_sparse(1),
    "coo complex": lambda a: torch.complex(a, -a).to_sparse(),
    "csr": lambda a: a.to_sparse_csr(),
    "csc": lambda a: a.to_sparse_csc(),
    "bsr": lambda a: a.to_sparse_bsr((2, 2)),
    "bsc": lambda a: a.to_sparse_bsc((2, 2)),
    "quantised": lambda a: torch.quantize_per_tensor(a, 0.1, 3, torch.qint8),
    "quantised by channel": lambda a: torch.quantize_per_channel(
        a, torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([0, 1, 2, 3]), 1, torch.quint8
    ),
    "nested": lambda a: torch.nested.nested_tensor([a[:1], a[1:]]),
    "jagged": lambda a: torch.nested.nested_tensor([a[:1], a[1:]], layout=torch.jagged),
    "mkldnn": lambda a: a.to_mkldnn(),
}
NO_STATE = {"expanded", "nested", "jagged", "mkldnn"}  # torch itself cannot load a state dict with these


def network(form, a=MATRIX):
    model = nn.Sequential(nn.Linear(2, 3))
    model.register_buffer("kept", FORMS[form](a))
    return model


def dense(value):
    if value.is_nested:
        return torch.cat([*value.unbind()])
    return (value.dequantize() if value.is_quantized else value.to_dense()).resolve_conj()


def same(one, other):
    alike = one.layout == other.layout and one.dtype == other.dtype and one.is_nested == other.is_nested
    return alike and torch.equal(dense(one), dense(other))


@pytest.mark.parametrize("form", FORMS)
def test_parts_are_plain_and_make_the_tensor_again(form):
    value = FORMS[form](MATRIX)
    found = parts(value)
    assert all(part.layout == torch.strided and not part.is_quantized and not part.is_conj() for part in found.values())
    assert same(of_parts(found, value), value)


@pytest.mark.parametrize("form", FORMS)
def test_a_digest_is_of_the_numbers(form):
    one, again, other = (FORMS[form](a) for a in (MATRIX, MATRIX.clone(), MATRIX.flip(0) * 0.5 + 1))
    assert digest_of(one) == digest_of(again)
    assert plain(one) == plain(again)
    assert (digest_of(one) == digest_of(other)) is (form == "empty")
    model = network(form)
    assert digest(model) == digest(copied_network(model))


def test_the_digest_of_a_plain_tensor_is_that_of_its_bytes():
    assert digest_of(MATRIX.T) == hashlib.sha256(MATRIX.T.contiguous().numpy().tobytes()).hexdigest()


def test_an_index_that_stands_twice_is_digested_as_once():
    twice = torch.sparse_coo_tensor(torch.tensor([[0, 0], [1, 1]]), torch.tensor([1.0, 2.0]), (2, 2))
    once = torch.sparse_coo_tensor(torch.tensor([[0], [1]]), torch.tensor([3.0]), (2, 2))
    assert digest_of(twice) == digest_of(once)


def test_meta_tensors_hold_no_numbers():
    value = torch.empty(3, device="meta")
    assert parts(value) == {}
    assert digest_of(value) == digest_of(value)
    assert of_parts({}, value) is value


@pytest.mark.parametrize("form", FORMS)
def test_a_network_comes_back_with_its_buffer(form):
    model = network(form)
    buffer = model.kept
    with preserved(model, "eval", 0, torch.device("cpu")):
        model.kept = None
    assert model.kept is buffer
    assert same(buffer, FORMS[form](MATRIX))


@pytest.mark.parametrize("form", ["dense", "complex", "conjugate", "coo", "coo hybrid", "csr", "csc", "bsr", "jagged"])
def test_what_a_pass_writes_into_a_buffer_is_undone(form):
    model = network(form)
    with preserved(model, "eval", 0, torch.device("cpu")):
        model.kept.copy_(FORMS[form](MATRIX * 2))
    assert same(model.kept, FORMS[form](MATRIX))


@pytest.mark.parametrize("form", FORMS)
def test_a_copy_of_a_network_is_deep(form):
    model = network(form)
    copy = copied_network(model)
    assert same(copy.kept, model.kept)
    assert copy.kept is not model.kept
    assert copy[0].weight is not model[0].weight


@pytest.mark.parametrize("form", [form for form in FORMS if form not in NO_STATE])
def test_weights_are_written_and_read(form, tmp_path):
    model, other = network(form), network(form, MATRIX * 2)
    models.save_weights(model, tmp_path / "net.safetensors")
    models.load_weights(other, tmp_path / "net.safetensors")
    assert same(other.kept, model.kept)
    torch.save(model.state_dict(), tmp_path / "net.pt")
    models.load_weights(other, tmp_path / "net.pt")
    assert torch.equal(other[0].weight, model[0].weight)


@pytest.mark.parametrize("form", [form for form in FORMS if form not in NO_STATE])
def test_checkpoints_hold_them(form, tmp_path):
    state = network(form).state_dict()
    checkpoint.save(tmp_path, 1, state, {}, {}, "")
    weights, _, _ = checkpoint.load(checkpoint.latest(tmp_path))
    assert all(same(value, state[name]) for name, value in formed_state(weights, state).items())
    assert formed_state(plain_state(state), state).keys() == state.keys()


def test_only_tensors_with_one_number_in_several_places_overlap():
    assert {form for form in FORMS if overlaps(FORMS[form](MATRIX))} == {"expanded"}
