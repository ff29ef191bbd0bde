"""What one types: a few lines for each command, shown in its help."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[str, ...]] = {
    "train": (
        "buttress train runs/at --data folder:images --model resnet18 --defence at --threat.eps 8/255",
        "buttress train runs/at --resume --data folder:images --model resnet18 --defence at --threat.eps 8/255",
    ),
    "audit": (
        "buttress audit net.py:Net --weights checkpoint.pt --data folder:images --normalise imagenet --out audits/mine",
        "buttress audit runs/at --out audits/at --attacks autoattack --fail-under 40",
    ),
    "harden": (
        "buttress harden net.py:Net --weights checkpoint.pt --data folder:images --normalise imagenet --out hardened",
        "buttress harden runs/plain --out hardened --epochs 10 --gamma 0.03 --warmup 1",
    ),
    "compare": ("buttress compare audits/mine audits/at --out audits/both",),
    "attack": ("buttress attack runs/at --by apgd --out examples",),
    "export": (
        "buttress export hardened/hardened --state-dict hardened.pt",
        "buttress export hardened/hardened --onnx hardened.onnx",
    ),
    "reproduce": ("buttress reproduce lsa-table2-moon --scale small --seeds 5",),
}
