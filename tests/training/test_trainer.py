"""Recipes, early stopping, interruption, several processes."""

import csv
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import start_script
from support import TINY_VIT, make_config, make_folder, write_config

import evaluate
import train
from common.runs import Run
from data import load_dataset
from evaluation.predictions import predict_split
from models import create_model, restore_model
from training import progress, trainer
from training.optimization import Mixer, create_optimizer
from training.randomness import get_states, seed_epoch, set_states
from training.state import TrainingState
from training.stopping import reason_to_stop, stayed_near_chance

PROJECT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
TIMES = ("seconds", "images_per_second")


def start(folder, *arguments, values=TINY_VIT, name="tiny"):
    train.main([str(write_config(folder, values, name)), f"output_root={folder}", *arguments])
    return Run.open(folder / name)


def weights(run, name="last.pt"):
    return torch.load(run.path(name), weights_only=True)["model"]


def same(one, other):
    return all(torch.equal(one[key], other[key]) for key in one)


def log_without_times(run):
    with run.path("log.csv").open() as file:
        return [{k: v for k, v in row.items() if k not in TIMES} for row in csv.DictReader(file)]


# ---------------------------------------------------------------- recipes

RECIPE = {
    "randaugment": ["data.augment.aa=rand-m9-n2-mstd0.5"],
    "erasing": ["data.augment.reprob=0.25"],
    "repeats": ["data.augment.aug_repeats=3"],
    "mixup": ["train.mixup=0.8", "train.cutmix=1.0"],
    "ema": ["train.model_ema=true", "train.model_ema_decay=0.9"],
    "layer_decay": ["train.layer_decay=0.7"],
    "per epoch": ["train.sched_on_updates=false"],
    "drop": ["model.kwargs={embed_dim: 32, num_heads: 2, depth: 2}"],
}


@pytest.mark.parametrize("option", RECIPE)
def test_every_option_changes_the_run_and_repeats(tmp_path, vit_run, option):
    runs = [start(tmp_path, *RECIPE[option], name=name) for name in "ab"]
    plain, one, other = (weights(run, "best.pt") for run in (Run.open(vit_run), *runs))
    assert same(one, other)
    assert plain.keys() != one.keys() or not same(plain, one)


def test_accumulation_takes_the_same_steps(tmp_path, vit_run):
    one = weights(Run.open(vit_run))
    four = weights(start(tmp_path, "train.grad_accum_steps=4", name="four"))
    for key in one:
        torch.testing.assert_close(one[key], four[key], atol=2e-3, rtol=1e-2)


def test_the_average_is_what_is_evaluated_and_kept(tmp_path):
    run = start(tmp_path, "train.epochs=1", "train.model_ema=true", "train.model_ema_decay=0.99")
    last, best = torch.load(run.path("last.pt"), weights_only=True), weights(run, "best.pt")
    assert same(best, last["ema"]) and not same(best, last["model"])
    evaluate.main([str(run.directory), "--split", "val"])
    assert run.read_json("metrics-val.json")["accuracy"] == run.read_json("train.json")["val_accuracy"]


def test_layer_decay_scales_by_depth():
    cfg = make_config(model={"name": "vit_tiny_patch16_224", "kwargs": {"depth": 3, "patch_size": 4}})
    cfg = cfg.model_copy(update={"train": cfg.train.model_copy(update={"layer_decay": 0.5})})
    model = create_model(cfg, num_classes=3)
    scale = {}
    for group in create_optimizer(model, cfg).param_groups:
        for parameter in group["params"]:
            scale[id(parameter)] = group["lr_scale"]
    assert scale[id(model.head.weight)] == 1
    assert scale[id(model.blocks[2].attn.qkv.weight)] == 0.5
    assert scale[id(model.blocks[0].attn.qkv.weight)] == 0.125
    assert scale[id(model.patch_embed.proj.weight)] == 0.0625


def test_swins_tables_and_norms_are_not_decayed():
    swin = {"patch_size": 2, "window_size": 4, "embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4]}
    cfg = make_config(data={"image_size": 32}, model={"name": "swin_tiny_patch4_window7_224", "kwargs": swin})
    model = create_model(cfg, num_classes=3)
    decay = {}
    for group in create_optimizer(model, cfg).param_groups:
        decay |= {id(parameter): group["weight_decay"] for parameter in group["params"]}
    for name, parameter in model.named_parameters():
        spared = parameter.ndim == 1 or "relative_position_bias_table" in name
        assert decay[id(parameter)] == (0 if spared else 0.05), name


def test_mixed_labels_add_up_and_an_odd_image_is_left_alone():
    np.random.seed(0)
    mixer = Mixer(make_config(train={"mixup": 1.0, "cutmix": 1.0}).train, num_classes=4)
    images = torch.rand(5, 3, 8, 8)
    before, labels = images.clone(), torch.tensor([0, 1, 2, 3, 1])
    mixed, targets = mixer(images, labels)
    torch.testing.assert_close(targets.sum(1), torch.ones(5))
    assert torch.equal(mixed[4], before[4]) and targets[4].tolist() == [0, 1, 0, 0]
    assert not torch.equal(mixed[:4], before[:4])


def test_random_states_come_back():
    _, generator = seed_epoch(3, 5)
    states = get_states(generator)
    drawn = [torch.rand(3).tolist(), np.random.rand(3).tolist(), torch.rand(3, generator=generator).tolist()]
    set_states(states, generator)
    assert drawn == [torch.rand(3).tolist(), np.random.rand(3).tolist(), torch.rand(3, generator=generator).tolist()]
    orders = [torch.randperm(50, generator=seed_epoch(3, 5, rank)[0]).tolist() for rank in (0, 1)]
    masks = [torch.rand(3, generator=seed_epoch(3, 5, rank)[1]).tolist() for rank in (0, 1)]
    assert orders[0] == orders[1] and masks[0] != masks[1]


# ---------------------------------------------------------------- stopping


def rows(*accuracies, loss=0.0):
    row = {"train_loss": loss}
    return [row | {"epoch": i + 1, "val_accuracy": a, "train_accuracy": a} for i, a in enumerate(accuracies)]


def test_reasons_to_stop():
    cfg = make_config(train={"patience": 2}).train
    assert reason_to_stop(rows(0.1, 0.3, 0.2), cfg, None) is None
    assert reason_to_stop(rows(0.1, 0.3, 0.2, 0.3), cfg, None) == "no_improvement"  # an equal is no improvement
    assert reason_to_stop(rows(0.1, 0.3), cfg, 0.3) == "target_reached"
    assert reason_to_stop(rows(0.1, 0.3), cfg, 0.31) is None


def test_staying_near_chance_is_divergence():
    cfg = make_config(train={"warmup_epochs": 1}).train

    def diverged(log, chance=0.1, count=1000):
        return stayed_near_chance(log, cfg, chance=chance, num_train=count, num_val=count)

    assert diverged(rows(0.5, 0.1, 0.11))  # the warmup does not count
    assert not diverged(rows(0.1))
    assert diverged(rows(0.1, 0.18, 0.18), count=50_000)  # a Swin that was reported at 18.03 % of ten classes
    assert not diverged(rows(0.1, 0.1, 0.2))
    assert not diverged(rows(0.01, 0.03), chance=0.01) and diverged(rows(0.01, 0.011), chance=0.01, count=50_000)
    assert not diverged(rows(0.5, 0.62), chance=0.5) and diverged(rows(0.5, 0.51), chance=0.5, count=5_000)
    assert not diverged(rows(0.5, 0.83), chance=0.5, count=12)  # too few images to tell
    assert not diverged(rows(0.01, 0.03), chance=0.01, count=100)
    assert diverged(rows(0.01, 0.03, loss=4.61), chance=0.01, count=100)  # the loss of guessing tells
    assert not diverged(rows(0.5, 0.95, loss=0.7), chance=0.5, count=100)
    mixed_labels = [row | {"train_accuracy": 0.12} for row in rows(0.1, 0.45)]
    assert not diverged(mixed_labels)
    assert diverged([row | {"val_accuracy": None} for row in rows(0.1, 0.1)])  # nothing held out
    assert diverged([row | {"val_accuracy": None} for row in rows(0.1, 0.6, 0.1)])  # then the last epoch is the result


def test_stopping_at_a_fraction_of_a_baseline(tmp_path):
    baseline = start(tmp_path, "train.epochs=12", name="baseline")
    reached = baseline.read_json("train.json")["val_accuracy"]
    relative = f"train.stop_at_fraction_of={{run: {baseline.directory}, fraction: 0.8}}"
    run = start(tmp_path, "train.epochs=12", relative)
    result = run.read_json("train.json")
    assert result["stopped_because"] == "target_reached" and result["epochs_run"] < 12
    assert result["target"] == pytest.approx(0.8 * reached) and result["val_accuracy"] >= result["target"]
    assert all(row["val_accuracy"] < result["target"] for row in run.read_log()[:-1])


def test_a_run_that_learns_nothing_is_reported(tmp_path, capsys):
    run = start(tmp_path, "train.lr=1e-12", "train.epochs=3", "train.warmup_lr=0")
    assert run.read_json("train.json")["diverged"] is True
    assert "stayed near chance" in capsys.readouterr().out


# ---------------------------------------------------------------- nothing lost

# Everything with a random or running state: dropout, mixup, EMA, augmentation, and saving within epochs.
RESUMED = [
    "train.epochs=5",
    "train.model_ema=true",
    "train.mixup=0.8",
    "train.batch_size=32",
    "data.augment.aa=rand-m9-n1",
    "data.augment.reprob=0.25",
    "model.name=vit_tiny_patch16_224",
    "model.kwargs={patch_size: 4, embed_dim: 32, num_heads: 2, depth: 2, drop_path_rate: 0.3, proj_drop_rate: 0.1}",
]


def launch(folder, name, *arguments):
    path = write_config(folder, TINY_VIT, name)
    return start_script("train.py", path, f"output_root={folder}", *arguments, output=folder / "said")


def wait_for(condition, process):
    deadline = time.monotonic() + 120
    while not condition():
        assert process.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return start(tmp_path_factory.mktemp("whole"), *RESUMED, name="whole")


@pytest.mark.parametrize("options", [[], ["train.checkpoint_every_steps=7"]], ids=["epochs", "steps"])
def test_a_killed_run_goes_on_bit_for_bit(tmp_path, uninterrupted, options):
    process = launch(tmp_path, "killed", *RESUMED, *options)
    last = tmp_path / "killed" / "last.pt"
    wait_for(last.is_file, process)
    time.sleep(0.3)  # somewhere within a later epoch
    process.kill()
    process.join()
    run = Run.open(tmp_path / "killed")
    assert not run.finished
    if options:  # within an epoch: the last step that was saved
        assert torch.load(last, weights_only=True)["epoch"] < 5
    start(tmp_path, *RESUMED, *options, "--resume", name="killed")
    for name in ("last.pt", "best.pt"):
        assert same(weights(uninterrupted, name), weights(run, name)), name
    ema, other = (torch.load(r.path("last.pt"), weights_only=True)["ema"] for r in (uninterrupted, run))
    assert same(ema, other)
    assert log_without_times(run) == log_without_times(uninterrupted)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_says_how_to_go_on(tmp_path, uninterrupted, number, code):
    process = launch(tmp_path, "stopped", *RESUMED)
    run_directory = tmp_path / "stopped"
    wait_for((run_directory / "log.csv").is_file, process)
    os.kill(process.pid, number)
    process.join(timeout=60)
    assert process.exitcode == code
    errors = (tmp_path / "said.err").read_text()
    assert f"python train.py {run_directory / 'config.yaml'} --resume" in errors
    saved = torch.load(run_directory / "last.pt", weights_only=True)
    assert saved["progress"] is None or 0 < saved["progress"]["step"] < 45
    assert same(weights(start(tmp_path, *RESUMED, "--resume", name="stopped")), weights(uninterrupted))


def test_a_signal_stops_epochs_of_a_single_step_and_validation(tmp_path, monkeypatch, capsys):
    validate = trainer.Trainer.validate

    def signalled(trainer):
        os.kill(os.getpid(), signal.SIGINT)
        return validate(trainer)

    monkeypatch.setattr(trainer.Trainer, "validate", signalled)
    with pytest.raises(SystemExit) as stop:
        start(tmp_path, "train.epochs=5", "train.batch_size=2000")
    assert stop.value.code == 130
    assert "--resume" in capsys.readouterr().err
    run = Run.open(tmp_path / "tiny")
    assert len(run.read_log()) == 1 and not run.finished


def test_a_signal_in_the_last_epoch_stops_the_configs_after_it(tmp_path, monkeypatch, capsys):
    end_epoch = TrainingState.end_epoch

    def signalled(state, row):
        end_epoch(state, row)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(TrainingState, "end_epoch", signalled)
    paths = [str(write_config(tmp_path, TINY_VIT, name)) for name in ("one", "two")]
    with pytest.raises(SystemExit) as stop:
        train.main([*paths, f"output_root={tmp_path}", "train.epochs=1"])
    assert stop.value.code == 143
    assert "This run is finished." in capsys.readouterr().err
    assert Run.open(tmp_path / "one").finished and not (tmp_path / "two").exists()


def test_a_resume_with_another_config_lists_the_keys(tmp_path):
    run = start(tmp_path)
    run.path("train.json").unlink()
    with pytest.raises(ValueError, match=r"train\.epochs: 2 -> 3; train\.lr: 0\.003 -> 0\.1"):
        start(tmp_path, "--resume", "train.epochs=3", "train.lr=0.1")
    start(tmp_path, "--resume", "data.num_workers=1", "train.checkpoint_every_steps=3")  # without effect on the result
    assert run.finished


def test_a_truncated_checkpoint_is_named_and_the_best_still_serves(tmp_path):
    run = start(tmp_path)
    run.path("train.json").rename(tmp_path / "train.json")
    run.path("last.pt").write_bytes(run.path("last.pt").read_bytes()[:3000])
    with pytest.raises(ValueError, match=r"last\.pt is damaged"):
        start(tmp_path, "--resume")
    (tmp_path / "train.json").rename(run.path("train.json"))
    evaluate.main([str(run.directory)])


def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path, monkeypatch):
    run = start(tmp_path)
    before = run.path("last.pt").read_bytes()

    def full(values, path):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(ValueError, match=r"last\.pt cannot be written \(No space left on device\)"):
        run.save_checkpoint("last.pt", {})
    assert run.path("last.pt").read_bytes() == before
    assert not list(run.directory.glob(".*last.pt"))


def test_out_of_memory_names_the_batch_size(tmp_path, monkeypatch):
    def too_much(*args):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(trainer.Trainer, "train_step", too_much)
    with pytest.raises(ValueError, match=r"batch_size=128; try train\.grad_accum_steps=2.*train\.batch_size=64"):
        start(tmp_path)
    assert not (tmp_path / "tiny").exists()


# ---------------------------------------------------------------- several processes


def torchrun(folder, script, *arguments):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += [str(PROJECT / script), *map(str, arguments)]
    done = subprocess.run(command, env=ENVIRONMENT, cwd=PROJECT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


def forked(folder, script, *arguments):
    """With what torchrun says in the environment, without three imports of torch."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        common = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(free.getsockname()[1])}
    ranks = [{"RANK": str(i), "LOCAL_RANK": str(i), **common} for i in range(2)]
    outputs = [folder / f"{script}-{i}" for i in range(2)]
    started = [start_script(script, *arguments, output=output, **rank) for output, rank in zip(outputs, ranks)]
    for process, output in zip(started, outputs):
        process.join(timeout=240)
        assert process.exitcode == 0, Path(f"{output}.err").read_text()
    return "".join(Path(f"{output}.out").read_text() for output in outputs)


@pytest.mark.parametrize("launcher", [forked, pytest.param(torchrun, marks=pytest.mark.slow)])
def test_two_processes_train_and_evaluate_as_one(tmp_path, launcher):
    plain = {**TINY_VIT, "data": {**TINY_VIT["data"], "augment": {"crop_padding": 0, "hflip": 0}}}
    one = start(tmp_path, values=plain, name="one")
    path = write_config(tmp_path, plain, "two")
    said = launcher(tmp_path, "train.py", path, f"output_root={tmp_path}")
    assert said.count("result: ") == 1  # one process prints
    two = Run.open(tmp_path / "two")
    assert two.read_json("train.json")["processes"] == 2
    rates = [torch.load(run.path("last.pt"), weights_only=True)["learning_rates"] for run in (one, two)]
    assert rates[0] == rates[1]  # the same number of steps
    for row, other in zip(one.read_log(), two.read_log(), strict=True):
        for key in ("train_loss", "val_loss"):
            assert row[key] == pytest.approx(other[key], abs=1e-5)

    evaluate.main([str(one.directory), "--split", "train"])
    alone = one.read_json("metrics-train.json")
    launcher(tmp_path, "evaluate.py", one.directory, "--split", "train")
    together = one.read_json("metrics-train.json")
    measured = ("latency_ms", "images_per_second", "peak_memory_mb", "threads")
    for key in alone.keys() - set(measured):
        assert alone[key] == together[key] or alone[key] == pytest.approx(together[key], abs=1e-6), key


# ---------------------------------------------------------------- impossible combinations


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        (["train.mixup=0.5", "train.batch_size=1"], "batch_size must be at least 2"),
        (["train.grad_accum_steps=3"], "does not divide batch_size"),
        (["train.layer_decay=0.5", "model.tune=head"], "layer_decay needs model.tune: full"),
        (["train.stop_at=0.5", "data.val_fraction=0"], "needs validation images"),
        (["train.stop_at=0.5", "train.stop_at_fraction_of={run: x, fraction: 0.9}"], "keep one of them"),
        (["train.stop_at_fraction_of={run: nowhere, fraction: 0.9}"], "no such run directory"),
        (["data.augment.aa=randaugment"], "rand-m9-n2-mstd0.5"),
        (["train.sched=constant", "train.min_lr=0.1"], "no effect"),
    ],
)
def test_impossible_combinations_are_refused(tmp_path, overrides, part):
    with pytest.raises(ValueError, match=part.replace(".", r"\.")):
        start(tmp_path, *overrides)
    assert not (tmp_path / "tiny").exists()


def test_a_batch_that_the_processes_cannot_share(tmp_path, monkeypatch):
    monkeypatch.setattr("common.distributed.world_size", lambda: 3)
    with pytest.raises(ValueError, match="128 does not divide into 3 processes x 1"):
        start(tmp_path)


def test_a_missing_tensorboard_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match="pip install tensorboard"):
        start(tmp_path, "train.tensorboard=true")


def test_streamed_photos_with_random_crops_repeat(tmp_path):
    root = make_folder(tmp_path / "images", count=16)
    data = {"dataset": "imagefolder", "root": str(root), "image_size": 16, "residency": "stream", "num_workers": 1}
    values = {**TINY_VIT, "data": {**data, "augment": {"scale": [0.5, 1.0]}}}
    runs = [start(tmp_path, values=values, name=name) for name in ("one", "two")]
    assert same(weights(runs[0]), weights(runs[1]))


def test_top5_accuracy_by_epoch(tmp_path, capfd):
    run = start(tmp_path, "train.log_top5=true", "train.log_test=true")
    rows, checkpoint = run.read_log(), run.load_checkpoint("best.pt")
    model, dataset = restore_model(run.config, checkpoint), load_dataset(run.config.data, seed=0)
    best = rows[run.read_json("train.json")["best_epoch"] - 1]
    assert f", top-5 {best['val_top5_accuracy']:.2%}" in capfd.readouterr().out
    for name in ("val", "test"):
        arguments = {"batch_size": 64, "device": torch.device("cpu"), "precision": "fp32"}
        found = predict_split(model, dataset.split(name), **arguments)
        by_hand = np.mean([label in row for label, row in zip(found.labels, np.argsort(found.logits)[:, -5:])])
        assert best[f"{name}_top5_accuracy"] == pytest.approx(by_hand)


def test_five_classes_have_no_top5_accuracy(tmp_path):
    root = make_folder(tmp_path / "images", count=12)
    values = {**TINY_VIT, "data": {"dataset": "imagefolder", "root": str(root), "image_size": 16}}
    run = start(tmp_path, "train.log_top5=true", "train.epochs=1", values=values)
    assert np.isnan(run.read_log()[0]["val_top5_accuracy"])


# ---------------------------------------------------------------- what is printed


def test_a_log_tells_what_is_trained_and_each_epoch(tmp_path, capfd):
    start(tmp_path, "train.epochs=3", "train.log_test=true")
    printed = capfd.readouterr()
    first, second, *epochs = printed.out.splitlines()[:5]
    assert first.startswith(
        "shallow_vit: 0.02 M parameters (100% trained), 16x16 px; digits: 1,437 train, 180 val, 180"
    )
    assert "cpu (1 threads), fp32" in first and second == f"writing {tmp_path / 'tiny'}"
    rows = Run.open(tmp_path / "tiny").read_log()
    for row, line in zip(rows, epochs, strict=True):
        assert line.startswith(f"epoch {row['epoch']:.0f}/3  training loss {row['train_loss']:.4f}, accuracy ")
        assert f"validation loss {row['val_loss']:.4f}, accuracy {row['val_accuracy']:.2%}" in line
        assert f"test loss {row['test_loss']:.4f}" in line and (" left" in line) == (row["epoch"] < 3)
    assert "\r" not in printed.out + printed.err  # no bar


def test_no_bars_where_the_output_is_no_terminal():
    code = "from common.console import run_script\nfrom tqdm import tqdm\nfor _ in tqdm(range(3)): pass"
    code = code.replace("from tqdm", "run_script(lambda argv: None)\nfrom tqdm")
    environment = {key: value for key, value in ENVIRONMENT.items() if key != "TQDM_DISABLE"}
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr


def test_time_left_is_that_of_the_epochs_to_come(monkeypatch):
    clock = iter([100.0, 130.0, 160.0])
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(clock))
    journal = progress.Journal(epochs=10, done=4)
    row = {"train_loss": 1.0, "train_accuracy": 0.5, "val_loss": None, "images_per_second": 1234.5}
    assert journal.line(row | {"epoch": 5}).endswith("accuracy 50.00%  1,234 images/s  2 min left")
    assert journal.line(row | {"epoch": 10}).endswith("1,234 images/s")
    assert [progress.describe_duration(s) for s in (45.4, 725, 12000)] == ["45 s", "12 min", "3 h 20 min"]


def test_the_loss_of_training_is_that_of_validation_on_the_same_images(tmp_path):
    """Without smoothing, on a model that does not move: both are means of the same cross-entropy."""
    values = TINY_VIT | {"data": TINY_VIT["data"] | {"augment": {"crop_padding": 0, "hflip": 0}}}
    run = start(tmp_path, "train.epochs=1", "train.smoothing=0.4", "train.lr=1e-9", values=values)
    evaluate.main([str(run.directory), "--split", "train"])
    expected = run.read_json("metrics-train.json")["loss"]
    assert run.read_log()[0]["train_loss"] == pytest.approx(expected, rel=1e-4)
