"""Code of a user's own that fails, or returns what it should not."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.cli.wrong_inputs.case import Case

AUDIT = "audit own.py:net --out new --data mine.py:data --audits robustness --attacks fgsm --inputs 8"
TRAIN = "train new --data own.py:data --model mlp --epochs 1"
HEAD = "import numpy as np\nimport torch\nfrom torch import nn\n\n\n"
# A network's forward.
FORWARDS = {
    "return None": "return None",
    "return a text": "return 'cat'",
    "return NaN": "return self.fc(x) * float('nan')",
    "return one number": "return self.fc(x).sum()",
    "return labels": "return self.fc(x).argmax(1)",
    "return half of them": "return self.fc(x)[: len(x) // 2]",
    "return more rows": "return torch.cat([self.fc(x)] * 2)",
    "return integers": "return self.fc(x).long()",
    "return complex numbers": "return self.fc(x) + 0j",
    "return numpy's": "return self.fc(x).detach().numpy()",
    "return a list": "return self.fc(x).tolist()",
    "return a dict": "return {'a': 3}",
    "return three classes": "return torch.zeros(len(x), 3)",
    "return no class": "return torch.zeros(len(x), 0)",
    "return a generator": "yield self.fc(x)",
    "return itself": "return self",
    "raise": "raise ValueError('out of luck')",
    "raise without words": "raise RuntimeError",
    "raise with lines": "raise ValueError('one\\ntwo\\nthree')",
    "assert": "assert x.shape[1] == 77",
    "exit": "raise SystemExit(0)",
    "sys.exit": "import sys; sys.exit('enough')",
    "recurse": "return self(x)",
    "recurse elsewhere": "return self.forward(x)",
    "want a GPU": "return self.fc(x.cuda())",
    "want a keyword": "return self.fc(x)",
    "divide": "return self.fc(x) / (1 // 0)",
    "look up": "return self.fc[x]",
    "import": "import no_such_thing",
    "stop": "raise StopIteration",
    "memory": "return torch.zeros(1 << 48)",
    "a bare exception": "raise type('Odd', (BaseException,), {})('odd')",
    "an exception that has no words": "raise type('Odd', (Exception,), {'__str__': lambda self: 1 / 0})()",
    "an OSError": "open('/nowhere/at/all')",
    "a full disk": "import errno; raise OSError(errno.ENOSPC, 'No space left on device')",
    "double gradient": "return torch.autograd.grad(self.fc(x).sum(), x)[0]",
}
FILES = {
    "a syntax error": "def net(:\n    pass\n",
    "an import error": "import no_such_thing\n",
    "an import of a name": "from torch import no_such_thing\n",
    "no such function": "def network():\n    pass\n",
    "a number": "net = 3\n",
    "a class of something else": "class net:\n    pass\n",
    "an instance": "net = nn.Linear(2, 2)\n",
    "NUL": "net = '\0'\n",
    "an exit": "raise SystemExit(0)\n",
    "an error": "1 / 0\n",
    "imports itself": "import own\nfrom own import net\n",
    "changes the directory and fails": "import os\nos.chdir('/')\nraise ValueError('lost')\n",
    "deletes itself and fails": "raise ValueError('gone')\n",
    "argparse": "import argparse\nargparse.ArgumentParser().parse_args(['--nothing'])\n",
    "async": "async def net(**options):\n    return nn.Linear(2, 2)\n",
    "a generator": "def net():\n    yield nn.Linear(2, 2)\n",
    "a lambda of two": "net = lambda a, b: nn.Linear(2, 2)\n",
    "recursion": "def net():\n    return net()\n",
    "another name": "def net(unknown):\n    return nn.Linear(2, 2)\n",
    "a class, not made": "def net():\n    return nn.Linear\n",
    "returns nothing": "def net():\n    nn.Linear(2, 2)\n",
    "exits": "def net():\n    raise SystemExit(3)\n",
    "on no device": "def net():\n    return nn.Linear(2, 2, device='meta')\n",
    "lazy": "def net():\n    return nn.Sequential(nn.LazyConv2d(2, 3))\n",
    "abstract": "class net(nn.Module):\n    pass\n",
}
DATA = {
    "None": "return None",
    "a number": "return 3",
    "a text": "return 'folder'",
    "one pair": "return x, y",
    "a list of numbers": "return [1, 2, 3]",
    "four": "return 1, 2, 3, 4",
    "counts that differ": "return (x, y[:5]), (x, y)",
    "no inputs": "return (x[:0], y[:0]), (x, y)",
    "no test": "return (x, y), (x[:0], y[:0])",
    "one input": "return (x[:1], y[:1]), (x, y)",
    "one class": "return (x, 0 * y), (x, 0 * y)",
    "NaN": "return (x * np.nan, y), (x, y)",
    "inf": "return (x + np.inf, y), (x, y)",
    "labels out of range": "return (x, y - 5), (x, y)",
    "labels as text": "return (x, np.array(['a', 'b'] * 20)), (x, y)",
    "labels as numbers": "return (x, y + 0.5), (x, y)",
    "labels of two columns": "return (x, np.stack([y, y], 1)), (x, y)",
    "inputs as text": "return (np.array([['a', 'b']] * 40), y), (x, y)",
    "inputs as objects": "return (np.array([object()] * 40), y), (x, y)",
    "complex inputs": "return (x + 1j, y), (x, y)",
    "inputs of other shapes": "return (x, y), (np.zeros((40, 5), np.float32), y)",
    "ragged": "return ([[1], [1, 2]], [0, 1]), (x, y)",
    "a number of inputs": "return (3, 4), (5, 6)",
    "a dict of others": "return {'a': (x, y), 'b': (x, y)}",
    "train alone": "return {'train': (x, y)}",
    "nothing": "pass",
    "an error": "raise ValueError('out of luck')",
    "an exit": "raise SystemExit(1)",
    "recursion": "return data()",
    "an empty loader": "return torch.utils.data.DataLoader([]), torch.utils.data.DataLoader([])",
    "a loader that fails": "return (b / 0 for b in [1]), [(x, y)]",
    "a loader of texts": "return ['ab', 'cd'], ['ab']",
    "a loader that ends early": "return iter([]), [(x, y)]",
    "an infinite loader": "import itertools; return itertools.repeat((x.repeat(1 << 16, 1), y.repeat(1 << 16))), 3",
    "a generator": "yield (x, y)",
    "a class of data": "return torch.utils.data.Dataset(), torch.utils.data.Dataset()",
}
NETWORK = """class net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 2)

    def forward(self, {argument}):
        {body}
"""
HEAD_OF_METHODS = """from dataclasses import dataclass

from buttress.attacks import Attack
from buttress.audits import Audit
from buttress.defences import Defence
from buttress.threat import Threat


"""
_PERTURB = "    def perturb(self, oracle, x, y, random):\n"
METHODS = {
    "attacks": f"@dataclass(frozen=True)\nclass Own(Attack):\n    threat: Threat = Threat()\n\n{_PERTURB}",
    "attacks without threats": f"class Own(Attack):\n{_PERTURB}",
    "audits": "class Own(Audit):\n    def ask(self, subject):\n",
    "defences": "class Own(Defence):\n    def loss(self, model, batch, at):\n",
}
REFERENCES = [
    *("own.py", "own.py:", "own.py:net:x", "own.py:3", "own.py:net.x", "nowhere.py:net", "no.such:net", "own:"),
    *("/own.py:net", "moons:net", "\udce9.py:net", "own.py :net", "os:getcwd", "torch.nn:Linear", "builtins:print"),
]
ANSWERS = {
    "None": "return None",
    "a text": "return 'x'",
    "NaN": "return torch.tensor(float('nan'))",
    "an error": "raise ValueError('out of luck')",
    "an exit": "raise SystemExit(0)",
    "another number": "return torch.zeros(3)",
    "recursion": "return self.loss(1, 2, 3) if hasattr(self, 'loss') else self.perturb(1, 2, 3, 4)",
}


def cases() -> Iterator[Case]:
    """All of these."""
    audit, train = tuple(AUDIT.split()), tuple(TRAIN.split())
    for what, body in FORWARDS.items():
        argument = "x, *, mask" if what == "want a keyword" else "x"
        text = NETWORK.format(argument=argument, body=body)
        yield Case("networks' answers", audit, partial(_own, text))
        yield Case("networks' answers in training", (*_training(), "--dry-run"), partial(_own, text))
    for text in FILES.values():
        yield Case("users' files", audit, partial(_own, text), chatty="argparse" in text)
    for body in DATA.values():
        text = f"def data():\n    x, y = np.random.rand(40, 2).astype(np.float32), np.arange(40) % 2\n    {body}\n"
        yield Case("users' data", train, partial(_own, text))
    for role, text in METHODS.items():
        option = {"audits": "--audits", "defences": "--defence"}.get(role, "--attacks")
        audit_of_run = ("audit", "moons", "--out", "new", "--inputs", "8")
        words = (*(_training("mine.py:net") if role == "defences" else audit_of_run), option, "own.py:Own")
        bodies = [text + f"        {body}\n" for body in ANSWERS.values()]
        for own in (*bodies, text.replace("(self, ", "(") + "        pass\n"):
            yield Case(f"users' {role}", words, partial(_own, HEAD_OF_METHODS + own), late=True)
    for name in REFERENCES:
        words = ("audit", name, *audit[2:])  # what is gone from a place and is here is used, and a line says so
        yield Case("references", words, partial(_own, FILES["a number"]), chatty=name.startswith("/"))
    yield Case("references", audit, lambda here: (here / "own.py").mkdir())
    yield Case("references", audit, lambda here: (here / "own.py").symlink_to("own.py"))
    yield Case("references", audit, lambda here: (here / "own.py").write_bytes(b"\xff\xfe\0"))


def _training(model: str = "own.py:net") -> tuple[str, ...]:
    return ("train", "new", "--data", "mine.py:data", "--model", model, "--epochs", "1")


def _own(text: str, here: Path) -> None:
    (here / "own.py").write_text(HEAD + text)
