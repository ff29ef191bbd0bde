"""Every registered defence for any network on the same data, audited alike and compared: accuracies against cost.

    python benchmarks/every_defence.py --out runs/every            # an hour or so on two cores
    python benchmarks/every_defence.py --out runs/every --only at trades dial

Each is trained with its default settings on the embedded digits under the same threat, and audited by AutoAttack, by
corruptions and by attacks in other norms. A method that replays its batches has fewer epochs, one that learns a few
inputs of its own has more. The report of `buttress compare` has them in one table and one figure, with
the Pareto front of clean accuracy, robust accuracy and training passes; table.md beside it has the table as Markdown,
with a star at methods that train something beforehand, which their passes leave out. What they take in time is asked by
defence_times.py, on an idle machine.
What is there already is not made again.
Defaults are not tuned, and one seed tells little: `buttress reproduce` has the claims, with seeds and intervals.
"""

import argparse
import json
import sys
from pathlib import Path

from buttress import registry
from buttress.cli import main as buttress

THREAT = ["--threat.eps", "0.2"]
TRAINING = ["--batch-size", "64", "--keep", "last", "--optimiser.lr", "0.002", "--seed", "0"]
EPOCHS, OWN_EPOCHS = 30, {"free": 4, "adv-kip": 300}  # 8 replays a batch; 100 learned inputs
OPTIONS = {"layer-regularised": ["--defence.layers", "[relu1, relu2]"]}  # without layers it is its base
LEFT_OUT = {"snode-ncg", "auxiliary-from"}  # for one architecture, and for networks with a term of their own
NETWORK = ["--data", "digits", "--model", "cnn", "--model-args", "{width: 16}"]
# Sized for 8x8 images: the audit's own are for larger ones.
UNSEEN = "[{name: pgd, steps: 20, threat: {norm: l2, eps: 1.0}}, {name: pgd, steps: 20, threat: {norm: l1, eps: 4.0}}]"
AUDITS = ["--audits", "robustness", "--audits.eps", "0.2", "--audits", "unseen", "--audits.unseen", UNSEEN]


def run(words):
    """One command; a failure ends the benchmark."""
    print("buttress", *words, flush=True)
    status = buttress(words)
    if status:
        sys.exit(status)


def table(folder):
    """Markdown of a comparison, the most robust first."""
    rows = []
    for name, findings in json.loads((folder / "findings.json").read_text())["networks"].items():
        data = {finding["kind"]: finding["data"] for finding in findings}
        cost, unseen = data["trade-off"], data["unseen"]
        shares = [cost["clean"], cost["robust"]]
        shares += [unseen[key]["accuracy"] for key in ("mean_corruption", "mean_style", "unseen")]
        cells = [*(f"{100 * share:.1f}" for share in shares), f"{cost['passes']:,.0f}"]
        first = " *" if registry.defence.get(name)().preparation else ""  # its passes are not counted
        rows.append((cost["robust"], [name + first, *cells, "yes" if cost["front"] else ""]))
    rows.sort(key=lambda row: -row[0])
    head = ["method", "clean", "robust", "corrupted", "styles", "other norms", "passes", "front"]
    lines = [head, ["---", *["---:"] * 6, "---"], *(cells for _, cells in rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    usual = [name for name in registry.defence.names() if name not in LEFT_OUT]
    parser.add_argument("--out", type=Path, required=True, help="folder for runs, audits and the comparison")
    parser.add_argument("--only", nargs="*", default=usual, help="these defences")
    parser.add_argument("--inputs", default="297", help="test inputs")
    chosen = parser.parse_args()
    audits = []
    for name in chosen.only:
        trained, audited = chosen.out / "runs" / name, chosen.out / "audits" / name
        if not (trained / "model.json").exists():
            again = ["--resume"] if (trained / "run.json").exists() else []
            epochs = ["--epochs", str(OWN_EPOCHS.get(name, EPOCHS))]
            run(
                [
                    "train",
                    str(trained),
                    *NETWORK,
                    "--defence",
                    name,
                    *OPTIONS.get(name, []),
                    *THREAT,
                    *TRAINING,
                    *epochs,
                    *again,
                ]
            )
        if not (audited / "findings.json").exists():
            attack = ["--attacks", "autoattack", *THREAT, "--inputs", chosen.inputs]
            run(["audit", str(trained), "--out", str(audited), *AUDITS, *attack, "--precision", "fp32"])
        audits.append(str(audited))
    together, number = chosen.out / "compared", 2
    while together.exists():
        together, number = chosen.out / f"compared-{number}", number + 1
    run(["compare", *audits, "--out", str(together)])
    (together / "table.md").write_text(table(together))


if __name__ == "__main__":
    main()
