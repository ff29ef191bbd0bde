"""Every mistake of the user's is one line that says what came and what to do, and nothing is overwritten."""

import errno
import os
import pickle
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

TRAIN = "train new --data moons --model mlp --epochs 1"
OWN = "train new --data mine.py:data --model mine.py:net --epochs 1"


def check(line, *told):
    for part in told:
        assert part in line, line


NAMES = {
    "trian new": "there is no command 'trian'; did you mean 'train'?",
    "list attack": "there is no role 'attack'; did you mean 'attacks'?",
    "list models odenett": "there is no model 'odenett'; did you mean 'odenet'?",
    "list models odenett --json": "there is no model 'odenett'; did you mean 'odenet'?",
    "list models odenet vit": "usage: buttress list [ROLE [NAME]] [--json], ROLE one of attacks,",
    "list attacks --jsn": "usage: buttress list [ROLE",
    f"{TRAIN} --epochz 3": "there is no option 'epochz'; did you mean 'epochs'?",
    f"{TRAIN} --threat.epz 3": "there is no option 'threat.epz'; did you mean 'threat.eps'?",
    f"{TRAIN} -e 3": "there is no option '-e'",
    f"{TRAIN} more": "'more' is one word too many",
    "train new --data moon": "there is no dataset 'moon'; did you mean 'moons'?",
    "train new --data moons --model mpl": "there is no model 'mpl'; did you mean 'mlp'?",
    f"{TRAIN} --model-args.widht 3": "the model 'mlp' has no option 'widht'",
    f"{TRAIN} --data-args.nois 3": "data set 'moons' takes no 'nois'; did you mean 'noise'?",
    f"{TRAIN} --defence trade": "there is no defence 'trade'; did you mean 'trades'?",
    f"{TRAIN} --defence trades --defence.bta 6": "--defence: TRADES has no option 'bta'; did you mean 'beta'?",
    f"{TRAIN} --defence mart --defence.base at": "--defence: MART has no option 'base'; known: threat,",
    f"{TRAIN} --defence at --defence.attack pdg": "there is no attack 'pdg'; did you mean 'pgd'?",
    f"{TRAIN} --defence at --defence.attack pgd --defence.attack.stepz 3": "--defence.attack: PGD has no option",
    "audit {runs}/moons --out new --audits layer": "there is no audit 'layer'; did you mean 'layers'?",
    "audit {runs}/moons --out new --attacks pgd,fsgm": "there is no attack 'fsgm'; did you mean 'fgsm'?",
    "attack {runs}/moons --out new --by slat": "there is no attack 'slat'; did you mean 'salt'?",
    "audit smallcn --out new": "'smallcn' is no run's folder and no model; did you mean 'smallcnn'?",
    "audit mlp --out new --data moons": "mlp is an architecture without trained weights: give --weights",
}

VALUES = {
    f"{TRAIN} --threat.eps -1": "eps must be a number of 0 or more, in input units such as 8/255; got -1.0",
    f"{TRAIN} --threat.eps nan": "eps must be a number of 0 or more, in input units such as 8/255; got nan",
    f"{TRAIN} --threat.eps lots": "--threat.eps takes a number; got 'lots'",
    f"{TRAIN} --threat.eps 8/0": "8/0 divides by zero",
    f"{TRAIN} --threat.norm l7": "--threat.norm takes one of linf, l2, l1; got 'l7'",
    f"{TRAIN} --threat.box 3": "--threat.box takes values such as 0,1; got '3'",
    f"{TRAIN} --threat.box 1,0": "box must be (low, high) with low < high, or none; got (1.0, 0.0)",
    f"{TRAIN} --epochs 1.5": "--epochs takes a whole number; got '1.5'",
    f"{TRAIN} --epochs 0": "epochs must be a whole number of 1 or more; got 0",
    f"{TRAIN} --epochs": "--epochs needs a value",
    f"{TRAIN} --epochs --seed 3": "--epochs needs a value",
    f"{TRAIN} --batch-size 0": "batch_size must be a whole number of 1 or more; got 0",
    f"{TRAIN} --keep worst": "--keep takes one of best, last; got 'worst'",
    f"{TRAIN} --limit 0": "limit must be a whole number of 1 or more; got 0",
    f"{TRAIN} --optimiser.lr -1": "lr must be a finite number above 0",
    f"{TRAIN} --optimiser.name sdg": "there is no optimiser 'sdg'; did you mean 'sgd'?",
    f"{TRAIN} --optimiser 3": "--optimiser takes its options one by one, as in --optimiser.name",
    f"{TRAIN} --schedule.milestones 3": "milestones must be shares of the training in (0, 1)",
    f"{TRAIN} --model-args 3": "--model-args takes a mapping such as '{key: value}'; got '3'",
    f"{TRAIN} --model-args.features x": "the model 'mlp': features must be a whole number; got 'x'",
    f"{TRAIN} --data-args.noise abc": "data set 'moons': noise must be a number; got 'abc'",
    f"{TRAIN} --accelerator tpu9": "--accelerator takes one of auto, cpu, cuda, mps; got 'tpu9'",
    f"{TRAIN} --defence at --defence.attack pgd --defence.attack.steps 0": "steps must be a whole number of 1 or more",
    f"{TRAIN} --defence.x 3": "--defence: say first which defence it is, as in --defence NAME, then its options",
    f"{TRAIN} --resume": "there is no run in new to resume: leave --resume out to start one",
    "train --data moons --model mlp": "needed and not given: --out",
    "audit --out new": "needed and not given: --network",
    "audit {runs}/moons": "needed and not given: --out",
    "audit {runs}/moons --out new --inputs 0": "inputs must be a whole number of 1 or more; got 0",
    "audit {runs}/moons --out new --limit 0": "limit must be a whole number of 1 or more; got 0",
    "audit {runs}/moons --out new --inputs x": "--inputs takes a whole number; got 'x'",
    "audit {runs}/moons --out new --precision fp99": (
        "--precision takes one of fp32, bf16, folded, twin, compiled, auto; got 'fp99'"
    ),
    "audit {runs}/moons --out new --attacks gaussian": "--attacks takes an attack; Gaussian is none",
    "audit {runs}/moons --out new --attacks pgd --attacks.steps 0": "steps must be a whole number of 1 or more; got 0",
    "audit {runs}/moons --out new --audits layers --audits.layers zzz*": "no layer is called or matches 'zzz*'",
    "audit {runs}/moons --out new --audits layers --audits.layers Activation": "did you mean 'activations'?",
    "audit {runs}/moons --out new --audits layers --audits.layers act1,,act2": "an empty name: ['act1', '', 'act2']",
    "audit {runs}/moons --out new --audits layers --audits.layers ''": "learnable; got an empty name",
    "audit {runs}/moons --out new --audits layers --audits.layers []": "or activations or learnable; got none",
    "audit {runs}/moons --out new --audits layers --audits.eta -1": "eta must be a finite number of 0 or more; got",
    "audit {runs}/moons --out new --audits layers --audits.eta nan": "eta must be a finite number of 0 or more; got",
    "audit {runs}/moons --out new --audits lipschitz --audits.blocks act1,": "blocks must be a name or a list of names",
    "audit {runs}/moons --out new --audits channels --audits.layer ''": "layer must be a name; got ''",
    "audit {runs}/moons --out new --audits latent-boundary --audits.layer ''": "layer must be a name; got ''",
    "audit {runs}/moons --out new --audits robustness --audits.eps -0.1": "eps must be a number of 0 or more; got -0.1",
    "audit {runs}/moons --out new --audits latent-boundary --audits.pair 0,7": "two of the network's classes 0 to 1",
    "audit {runs}/moons --out new --fail-under 140": "from 0 to 100; got 140",
    "audit {runs}/moons --out new --fail-under 40 --audits layers": "the gate needs the robustness audit",
    "attack {runs}/moons --out new --by pgd --by.steps x": "--by.steps takes a whole number; got 'x'",
    "attack {runs}/moons --out new --by transfer": "a run's folder on the command line, as in --by.surrogate FOLDER",
    "attack {runs}/moons --out new --by transfer --by.surrogate {runs}/digits": "/digits: Normalized has a mean",
    "attack {runs}/moons --out new --by ensemble --by.models {runs}/moons,nowhere": "nowhere holds no trained model",
    "attack {runs}/moons --out new --by ensemble --by.models {runs}/digits": "/digits: Normalized has a mean",
    "attack {runs}/moons --out new --by ensemble": "--by.models FOLDER,FOLDER (of runs) on the command line",
    "attack {runs}/moons --out new --by ensemble --by.models ''": "named by its run's folder; got ''",
    "attack {runs}/moons --out new --by bpda --by.layers ''": "layers must be a name or a list of names; got an",
    "attack {runs}/moons --out new --by bpda": "--by.layers NAME,NAME on the command line",
    "attack {runs}/moons --out new --by eot --by.attack bpda": "bpda needs the names of the layers",
    "attack {runs}/moons --out new --by bpda --by.layers []": "must be names of one submodule at least; got none",
    "audit {runs}/moons --out new --audits imported": "needed and not given: --audits.file",
    "audit {runs}/moons --out new --audits robustness,imported": "needed and not given: --audits.file",
    "harden {runs}/moons --out new --base standard": "standard training attacks nothing",
    "harden {runs}/moons --out new --layers nope": "no layer is called or matches 'nope'",
    "harden {runs}/moons --out new --layers nope,activations": "no layer is called or matches 'nope'",
    "harden {runs}/moons --out new --layers act1,,act2": "an empty name: ['act1', '', 'act2']",
    "harden {runs}/moons --out new --layers []": "or activations or learnable; got none",
    "harden {runs}/moons --out new --layers act1 --eta 1": "eta chooses the layers, which --layers names here",
    "harden {runs}/moons --out new --eta -1": "eta must be a finite number of 0 or more; got -1",
    "harden {runs}/moons --out new --eta inf": "eta must be a finite number of 0 or more; got inf",
    "harden {runs}/moons --out new --warmup nan": "warmup must be a finite number of 0 or more; got nan",
    "harden {runs}/moons --out new --audit-batch 0": "audit_batch must be a whole number of 1 or more; got 0",
    "harden {runs}/moons --out new --inputs 0": "inputs must be a whole number of 1 or more; got 0",
    f"{TRAIN} --checkpoint-seconds nan": "checkpoint_seconds must be a number of 0 or more; got nan",
    f"{TRAIN} --devices 0": "devices must be a whole number of 1 or more; got 0",
    f"{TRAIN} --validate-on 0": "validate_on must be a whole number of 1 or more; got 0",
    "harden {runs}/moons --out new --gamma nan": "gamma must be a finite number of 0 or more; got nan",
    "harden {runs}/moons --out new --gamma -1": "gamma must be a finite number of 0 or more; got -1",
    "harden {runs}/moons --out new --measure centre": "there is no measure 'centre'; did you mean 'centred'?",
    "harden {runs}/moons --out new --resume": "there is no job in new to resume",
    "audit mine.py:net --out new": "mine.py:net does not say what data it is for: give --data",
    "attack mine.py:net --out new": "mine.py:net does not say what data it is for: give --data",
    "harden mine.py:net --out new": "mine.py:net does not say what data it is for: give --data",
    "harden --model mine.py:net --out new": "mine.py:net does not say what data it is for: give --data",
    "train new --model mine.py:net": "mine.py:net does not say what data it is for: give --data",
    "train new --model cnn --weights w.pt": "cnn does not say what data it is for: give --data",
    "audit cnn --weights w.pt --out new": "cnn does not say what data it is for: give --data",
    "audit net.onnx --out new": "net.onnx does not say what data it is for: give --data",
    "compare {runs}/audit --out new": "at least two audits; got 1",
    "compare {runs}/audit nowhere --out new": "there is no nowhere: audit the network first",
    "compare {runs}/audit {runs}/moons --out new": "findings.json: audit the network first",
    "compare {runs}/audit {runs}/audit-digits --out new": "compare like data",
}

MISFITS = {
    "audit {runs}/digits --out new --data moons": "mean and std for 1 channels, but the inputs have shape 2x2",
    "audit {runs}/moons --out new --data digits": "MLP cannot take inputs of shape 2x1x8x8: its first layer, fc1",
    "attack {runs}/moons --out new --data digits": "MLP cannot take inputs of shape 2x1x8x8",
    "audit {runs}/moons --out new --data digits --dry-run": "MLP cannot take inputs of shape 2x1x8x8",
    "train new --data moons --model cnn": "CNN cannot take inputs of shape 2x2",
    "train new --data mine.py:data --model mine.py:net --model-args.classes 1": None,  # one logit tells two classes
    "audit mine.py:net --out new --data digits --model-args.classes 3": "tells 3 classes apart, digits has 10",
    "train new --data mine.py:labels_out_of_range --model mine.py:net": "expected labels from 0 to 1, got 5",
    "train new --data mine.py:data --model mine.py:pair": "it returned a tuple",
    "train new --data mine.py:data --model mine.py:pair --output 7": "the model returns a tuple of 2: give a position",
    "train new --data mine.py:data --model mine.py:probabilities": "the model returns probabilities",
    "audit mine.py:probabilities --out new --data mine.py:data": "the model returns probabilities",
}

OWN_FILES = {
    "train new --data mine.py:dat": "'mine.py:dat': mine.py has no 'dat'; did you mean 'data'?",
    "train new --data nowhere.py:data": "there is no file nowhere.py",
    "train new --data nowhere.mine:data": "there is no module 'nowhere' on the path",
    "train new --data mine.py:number": "expected a Dataset, (train, test) loaders or ((x, y), (x_test, y_",
    f"{OWN} --defence mine.py:Min": "mine.py has no 'Min'; did you mean 'Mine'?",
    f"{OWN} --defence mine.py:net": "'mine.py:net' is a function: defences are classes",
    f"{OWN} --defence mine.py:Count": "--defence takes a defence; Count is none",
    f"{OWN} --defence mine.py:Mine --defence.y 3": "--defence: Mine has no option 'y'; ",
    "train new --data mine.py:data --model mine.py:number": "a torch.nn.Module was expected",
    "train new --data mine.py:data --model mine.py:failing": "in failing: ValueError: out of luck",
    "audit {runs}/moons --out new --attacks mine.py:Broken": "in perturb: NameError: name 'undefined' is not defined",
    "audit {runs}/moons --out new --audits mine.py:Tensors": "mine.py:Tensors, data.y is a Tensor",
    "train new --data mine.py:data --model syntax.py:net": "syntax.py, line 2: ",
    "train new --data mine.py:data --model imports.py:net": "imports.py, line 1, in <module>: ModuleNotFoundError: ",
}


@pytest.mark.parametrize("words", [*NAMES, *VALUES])
def test_names_and_values(words, refused, runs):
    assert (NAMES | VALUES)[words] in refused(words.replace("{runs}", str(runs)))


@pytest.mark.parametrize("words", [words for words, told in MISFITS.items() if told])
def test_networks_and_data_that_do_not_fit(words, refused, runs):
    assert MISFITS[words] in refused(words.replace("{runs}", str(runs)))


def test_one_logit_fits_two_classes_and_a_tuple_fits_with_its_position(here, done):
    (words,) = [words for words, told in MISFITS.items() if told is None]
    done(f"{words} --epochs 1")
    done("train pair --data mine.py:data --model mine.py:pair --epochs 1 --output 0")
    done("audit pair --out audit --inputs 8 --audits robustness")


@pytest.mark.parametrize("words", OWN_FILES)
def test_a_users_own_files(words, here, refused, runs):
    (here / "syntax.py").write_text("x = 1\ndef net(:\n    pass\n")
    (here / "imports.py").write_text("import no_such_thing\n")
    assert OWN_FILES[words] in refused(words.replace("{runs}", str(runs)))


CONFIGURATIONS = {
    "epochz: 3": "there is no option 'epochz'; did you mean 'epochs'?",
    "threat: {epz: 3}": "there is no option 'threat.epz'; did you mean 'threat.eps'?",
    "defence: {name: trades, bta: 6}": "--defence: TRADES has no option 'bta'; did you mean 'beta'?",
    "defence: {name: trade}": "there is no defence 'trade'; did you mean 'trades'?",
    "epochs: many": "--epochs takes a whole number; got 'many'",
    "threat: {eps: -1}": "eps must be a number of 0 or more",
    "threat: {eps: 8/0}": "8/0 divides by zero",
    "[epochs, 3]": "must map options to values; got a list",
    "just words": "must map options to values; got a str",
    "": "must map options to values; got a NoneType",
    "epochs: [3": "is no YAML",
}


@pytest.mark.parametrize("text", CONFIGURATIONS)
def test_configurations(text, here, refused):
    (here / "job.yaml").write_text(text)
    assert CONFIGURATIONS[text] in refused(f"{TRAIN} --config job.yaml")


def test_a_configuration_that_is_not_there_or_is_no_text(here, refused):
    assert "nowhere.yaml cannot be read: No such file" in refused(f"{TRAIN} --config nowhere.yaml")
    (here / "job.yaml").write_bytes(b"\xff\xfe\x00epochs")
    assert "is no YAML" in refused(f"{TRAIN} --config job.yaml")


@pytest.mark.parametrize(
    "job",
    [
        "train {0}",
        "audit {runs}/moons --out {0}",
        "attack {runs}/moons --out {0}",
        "harden --out {0}",
        "compare {runs}/audit {runs}/audit --out {0}",
    ],
)
def test_an_output_folder_with_anything_in_it_is_left_alone(job, here, refused, runs):
    (here / "full").mkdir()
    (here / "full" / "notes.txt").write_text("mine")
    (here / "file").write_text("mine")
    settings = "" if job.startswith("compare") else " --data moons" + (" --model mlp" if job[0] in "th" else "")
    for place in (here / "full", here / "file", runs / "moons"):
        line = refused(job.replace("{runs}", str(runs)).format(place) + settings)
        check(line, str(place), "choose")


def test_resuming_with_another_setting_is_told(refused, runs, here):
    shutil.copytree(runs / "moons", here / "run")
    words = (
        "train run --data moons --data-args.samples 200 --data-args.test 60 --model mlp --seed 3 --epochs 9 --resume"
    )
    check(refused(words), "run holds a run with epochs 1, the settings now have 9")


def test_damaged_runs_and_checkpoints(here, refused, runs):
    shutil.copytree(runs / "moons", here / "run")
    weights = here / "run" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    check(refused("audit run --out new"), "model.safetensors is no whole safetensors file (corrupt or truncated)")
    weights.write_bytes(b"\0" * 100)
    check(refused("audit run --out new"), "model.safetensors is no whole safetensors file")
    tensors = load_file(runs / "moons" / "model.safetensors")
    save_file(
        {name: value for name, value in tensors.items() if "fc1" not in name} | {"other": torch.zeros(1)}, weights
    )
    check(refused("audit run --out new"), "2 missing (fc1.weight, fc1.bias)", "1 unexpected (other)")
    weights.unlink()
    check(refused("audit run --out new"), "there is no file of weights")
    (here / "run" / "model.json").write_text("{")
    check(refused("audit run --out new"), "model.json cannot be read")
    (here / "run" / "model.json").unlink()
    check(refused("audit run --out new"), "run holds no trained model (its run is not finished: resume it)")
    for part in ("state.pt", "weights.safetensors", "progress.json"):
        shutil.rmtree(here / "run")
        shutil.copytree(runs / "moons", here / "run")
        newest = max((here / "run" / "checkpoints").iterdir())
        (newest / part).write_bytes((newest / part).read_bytes()[:20])
        words = "train run --data moons --data-args.samples 200 --data-args.test 60 --model mlp --seed 3 --epochs 1"
        check(refused(f"{words} --resume"), "cannot be read", "remove it, and the one before it is used")


def test_weights_that_are_none_or_run_code(here, refused):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(here / "executed"),)

    audit = "audit mine.py:net --out new --data mine.py:data --weights"
    torch.save(Evil(), here / "evil.pt")
    check(refused(f"{audit} evil.pt"), "evil.pt is a pickle that wants to run code (posix.mkdir), which is refused")
    with (here / "evil.pkl").open("wb") as file:
        pickle.dump(Evil(), file)
    check(refused(f"{audit} evil.pkl"), "evil.pkl is")
    torch.save({"weight": torch.zeros(2)}, here / "other.pt")
    check(
        refused(f"{audit} other.pt"), "other.pt does not fit Sequential: 6 missing (1.weight", "1 unexpected (weight)"
    )
    check(refused(f"{audit} nowhere.pt"), "there is no file of weights at nowhere.pt")
    check(refused(f"{audit} mine.py"), "mine.py is no whole torch file of weights")
    assert not (here / "executed").exists()


def test_damaged_data_files(here, refused):
    (here / "files").mkdir()
    for name in (
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    ):
        (here / "files" / name).write_bytes(b"\0\0\x08\x03" + b"\0\0\0\x02" * 3 + b"\0")
    check(refused("train new --data mnist --data-dir files --model cnn"), "-ubyte")
    check(refused("train new --data mnist --data-dir nowhere --model cnn"), "nowhere")
    (here / "images" / "train" / "a").mkdir(parents=True)
    (here / "images" / "train" / "a" / "1.png").write_bytes(b"no image")
    check(refused("train new --data folder:images --model cnn"), "images")


def test_damaged_findings(here, refused, runs):
    shutil.copytree(runs / "audit", here / "audit")
    whole = (here / "audit" / "findings.json").read_text()
    for text in (whole[:200], "{}", whole.replace('"same_inputs"', '"others"'), whole.replace('"stands"', '"falls"')):
        (here / "audit" / "findings.json").write_text(text)
        line = refused(f"compare {runs}/audit audit --out new")
        assert "no findings.json of buttress" in line or "audit the networks again" in line


def no_space(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    "words",
    [
        "audit {runs}/moons --out new --inputs 8 --audits robustness",
        "attack {runs}/moons --out new --inputs 8",
        "compare {runs}/audit {runs}/audit --out new",
        f"{TRAIN}",
    ],
)
@pytest.mark.parametrize("place", [(Path, "write_text"), (os, "fsync")])
def test_no_space_left(words, place, here, runs, run, monkeypatch):
    """The line says so; what is there is intact, and the folder can be used when there is space again."""
    words = words.replace("{runs}", str(runs))
    with monkeypatch.context() as patch:
        patch.setattr(*place, no_space)
        told = run(words)
    assert told.status == 2
    assert told.err.startswith("buttress: no space left to write ")
    assert told.err.count("\n") == 1
    assert not [path for path in (here / "new").rglob("*") if path.name.endswith(".tmp")]
    if words.startswith(("audit", "compare")):
        assert run(words).status == 0


def test_no_space_for_tensors(here, runs, run, monkeypatch):
    monkeypatch.setattr(sys.modules["buttress.jobs.attack"], "save_file", no_space)
    told = run(f"attack {runs}/moons --out new --inputs 8")
    assert told.err == "buttress: no space left to write new/examples.safetensors; what was there before is intact\n"
    assert not (here / "new").exists()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_folder_that_cannot_be_written(number, here, runs, run, monkeypatch):
    def refuse(self, *_, **__):
        raise OSError(number, os.strerror(number), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    told = run(f"audit {runs}/moons --out new --inputs 8 --audits robustness")
    line = f"buttress: nothing can be written to new: {os.strerror(number)}; choose another output place\n"
    assert (told.status, told.err) == (2, line)


def test_our_own_faults_come_with_a_traceback_and_status_1(runs, run, here, monkeypatch):
    monkeypatch.setattr("buttress.audits.robustness._accuracy", lambda found: None)
    told = run(f"audit {runs}/moons --out new --inputs 8 --audits robustness")
    assert told.status == 1
    assert told.err.startswith("Traceback")
    assert told.err.endswith("this is our fault; please report it with the lines above\n")
