import csv
import json
import re

import pytest
import torch
import yaml
from support import TINY_VIT, write_config

import evaluate
import train
from common.runs import LOG_COLUMNS, Run, open_runs
from training import trainer
from training.state import TrainingState


def run_files(directory):
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}


def start(folder, *arguments, values=TINY_VIT, name="tiny"):
    train.main([str(write_config(folder, values, name)), f"output_root={folder}", *arguments])
    return folder / name


def test_a_run_holds_what_the_next_stages_need(vit_run):
    assert run_files(vit_run) >= {
        "config.yaml",
        "environment.json",
        "log.csv",
        "best.pt",
        "last.pt",
        "train.json",
        "figures/curves.png",
        "figures/learning_rate.png",
    }
    with (vit_run / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == LOG_COLUMNS
    assert [row["epoch"] for row in rows] == ["1", "2"]
    result = json.loads((vit_run / "train.json").read_text())
    best = max(rows, key=lambda row: (float(row["val_accuracy"]), -float(row["val_loss"])))
    assert result["best_epoch"] == int(best["epoch"])
    assert result["val_accuracy"] == pytest.approx(float(best["val_accuracy"]))
    assert result["stopped_because"] == "all_epochs_done" and result["epochs_run"] == 2
    environment = json.loads((vit_run / "environment.json").read_text())
    assert environment["packages"]["torch"] == torch.__version__.split("+")[0] or environment["packages"]["torch"]
    assert {"command", "git_commit", "device"} <= set(environment)


def test_checkpoints_open_without_pickle_and_rebuild_the_model(vit_run):
    best = torch.load(vit_run / "best.pt", weights_only=True)
    assert best["class_names"] == [str(i) for i in range(10)]
    assert best["input_spec"]["size"] == [16, 16]
    assert torch.load(vit_run / "last.pt", weights_only=True)["epoch"] == 2
    assert Run.open(vit_run).config.model.name == "shallow_vit"


def test_training_learns(tmp_path):
    run = Run.open(start(tmp_path, "train.epochs=20"))
    log = run.read_log()
    assert log[-1]["train_loss"] < 0.7 * log[0]["train_loss"]
    assert log[-1]["val_accuracy"] > 0.5  # ten classes


def test_the_learning_rate_warms_up_and_falls_every_step(tmp_path):
    directory = start(tmp_path, "train.epochs=4", "train.warmup_epochs=1", "train.lr=0.01", "train.batch_size=256")
    rates = torch.load(directory / "last.pt", weights_only=True)["learning_rates"]
    steps = 6  # 1,437 images in batches of 256
    assert len(rates) == 4 * steps
    assert rates[0] == pytest.approx(1e-6) and max(rates) == pytest.approx(0.01)
    assert rates[: steps + 1] == sorted(rates[: steps + 1])
    assert rates[steps:] == sorted(rates[steps:], reverse=True) and rates[-1] < 0.001
    constant = start(tmp_path, "train.epochs=2", "train.sched=constant", "train.lr=0.01", "name=c").with_name("c")
    rates = torch.load(constant / "last.pt", weights_only=True)["learning_rates"]
    assert set(rates[len(rates) // 2 :]) == {0.01}


def test_biases_norms_and_positions_are_spared_from_weight_decay(vit_run):
    groups = torch.load(vit_run / "last.pt", weights_only=True)["optimizer"]["param_groups"]
    sizes = {group["weight_decay"]: len(group["params"]) for group in groups}
    weights = torch.load(vit_run / "best.pt", weights_only=True)["model"]
    decayed = [key for key, tensor in weights.items() if tensor.ndim > 1 and key != "pos_embed"]
    assert sizes == {0.05: len(decayed), 0.0: len(weights) - len(decayed)}


def test_the_same_seed_gives_the_same_run_and_another_does_not(tmp_path, vit_run):
    runs = [vit_run] + [start(tmp_path, f"seed={seed}", name=f"seed{seed}") for seed in (0, 1)]
    weights = [torch.load(run / "last.pt", weights_only=True)["model"] for run in runs]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert not torch.equal(weights[0]["head.weight"], weights[2]["head.weight"])


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, monkeypatch, vit_run):
    overrides = ("train.epochs=4", "model.kwargs.depth=2")
    whole = start(tmp_path, *overrides)
    end_epoch = TrainingState.end_epoch

    def interrupted(state, row):
        end_epoch(state, row)
        if len(state.log) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(TrainingState, "end_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path, *overrides, "name=again")
    again = tmp_path / "again"
    assert not Run.open(again).finished
    monkeypatch.setattr(TrainingState, "end_epoch", end_epoch)
    train.main([str(again / "config.yaml"), "--resume"])
    for name in ("best.pt", "last.pt"):
        one, other = (torch.load(d / name, weights_only=True)["model"] for d in (whole, again))
        assert all(torch.equal(one[key], other[key]) for key in one)
    columns = ("epoch", "lr", "train_loss", "train_accuracy", "val_loss", "val_accuracy")
    one, other = ([[row[key] for key in columns] for row in Run.open(d).read_log()] for d in (whole, again))
    assert one == other


def test_existing_runs_are_left_alone_unless_told(tmp_path, capsys):
    directory = start(tmp_path)
    before = {name: (directory / name).read_bytes() for name in ("best.pt", "train.json", "log.csv")}
    with pytest.raises(ValueError, match=r"is finished; pass --overwrite"):
        start(tmp_path)
    start(tmp_path, "--resume")
    assert "is finished already" in capsys.readouterr().out
    assert before == {name: (directory / name).read_bytes() for name in before}
    (directory / "train.json").unlink()
    with pytest.raises(ValueError, match="holds an unfinished run"):
        start(tmp_path)
    start(tmp_path, "--overwrite", "seed=1")
    assert before["best.pt"] != (directory / "best.pt").read_bytes()


def test_a_folder_that_is_no_run_is_never_touched(tmp_path):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "thesis.txt").write_text("years of work")
    for option in ("--overwrite", "--resume"):
        with pytest.raises(ValueError, match="not a run directory"):
            start(tmp_path, option)
    assert run_files(tmp_path / "tiny") == {"thesis.txt"}


def test_a_mistake_in_the_config_does_not_cost_the_old_run(tmp_path):
    directory = start(tmp_path)
    with pytest.raises(ValueError, match="shallow_vit cannot be built"):
        start(tmp_path, "--overwrite", "model.kwargs.depht=3")
    assert Run.open(directory).finished


def test_several_configs_run_one_after_another(tmp_path):
    paths = [str(write_config(tmp_path, TINY_VIT, name)) for name in ("one", "two")]
    train.main([*paths, f"output_root={tmp_path}", "train.epochs=1"])
    assert Run.open(tmp_path / "one").finished and Run.open(tmp_path / "two").finished
    with pytest.raises(ValueError, match="two of the configs write to"):
        train.main([*paths, f"output_root={tmp_path}", "name=same"])


def test_without_validation_the_last_epoch_is_the_result(tmp_path):
    directory = start(tmp_path, "data.val_fraction=0", "train.epochs=3")
    result = json.loads((directory / "train.json").read_text())
    assert result["best_epoch"] == 3 and result["val_accuracy"] is None and result["selected_by"] == "last epoch"
    best, last = (torch.load(directory / name, weights_only=True)["model"] for name in ("best.pt", "last.pt"))
    assert all(torch.equal(best[key], last[key]) for key in best)
    with (directory / "log.csv").open() as file:
        assert {row["val_accuracy"] for row in csv.DictReader(file)} == {""}


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    with pytest.raises(ValueError, match=r"the loss is not finite in epoch \d+ .*lower train\.lr"):
        start(tmp_path, "train.lr=1e30", "train.clip_grad=null", "train.warmup_epochs=0", "train.epochs=6")
    result = json.loads((tmp_path / "tiny" / "train.json").read_text())
    assert result["stopped_because"] == "non_finite_loss" and result["epochs_run"] < 6


def test_one_bad_run_of_several_does_not_end_the_others(tmp_path, capsys):
    broken = {**TINY_VIT["train"], "lr": 1e30, "clip_grad": None, "warmup_epochs": 0}
    paths = [str(write_config(tmp_path, TINY_VIT | {"train": broken}, "bad")), str(write_config(tmp_path, TINY_VIT))]
    with pytest.raises(ValueError, match=r"1 of 2 runs failed, as said above: .*/bad$"):
        train.main([*paths, f"output_root={tmp_path}", "train.epochs=1"])
    said = capsys.readouterr()
    assert "error: " in said.err and "bad: the loss is not finite in epoch 1" in said.err
    assert re.search(r"/bad +no epoch was finished +none of 1 ", said.out)
    assert f"compare them: python evaluate.py {tmp_path}/tiny\n" in said.out
    assert [run.config.name for run in open_runs([tmp_path], None)] == ["tiny"]  # what a study goes on with
    assert f"note: {tmp_path}/bad is left out: no epoch of it was finished" in capsys.readouterr().err
    (tmp_path / "tiny" / "train.json").unlink()
    with pytest.raises(ValueError, match="unfinished run"):  # with none left, what is wrong is said
        open_runs([tmp_path / "tiny"], None)


def test_a_loss_that_breaks_later_keeps_the_last_good_checkpoint(tmp_path, monkeypatch):
    train_step, calls = trainer.Trainer.train_step, []

    def breaks(trainer, *args):
        calls.append(1)
        sums = train_step(trainer, *args)
        sums[0] = float("nan") if len(calls) > 15 else sums[0]  # the loss, in the second epoch of 12 steps
        return sums

    monkeypatch.setattr(trainer.Trainer, "train_step", breaks)
    with pytest.raises(ValueError, match="not finite in epoch 2"):
        start(tmp_path, "train.epochs=4")
    run = Run.open(tmp_path / "tiny")
    assert run.read_json("train.json")["stopped_because"] == "non_finite_loss"
    assert run.load_checkpoint("best.pt")["epoch"] == 1 and run.load_checkpoint("last.pt")["epoch"] == 1
    assert all(tensor.isfinite().all() for tensor in run.load_checkpoint("last.pt")["model"].values())


@pytest.mark.parametrize("amp", ["bf16", "fp32"])
def test_precisions_train(tmp_path, amp):
    directory = start(tmp_path, f"train.amp={amp}", "train.epochs=1")
    assert json.loads((directory / "train.json").read_text())["precision"] == amp
    assert torch.load(directory / "best.pt", weights_only=True)["model"]["head.weight"].dtype == torch.float32


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("amp", ["bf16", "fp16", "fp32"])
def test_precisions_train_on_cuda(tmp_path, amp):
    directory = start(tmp_path, f"train.amp={amp}", "--device", "cuda")
    assert json.loads((directory / "train.json").read_text())["precision"] == amp


def test_frozen_weights_do_not_move(tmp_path, vit_run):
    pretrained = f"model.pretrained={vit_run / 'best.pt'}"
    directory = start(tmp_path, pretrained, "model.tune=head", "train.epochs=1")
    before, after = (torch.load(d / "best.pt", weights_only=True)["model"] for d in (vit_run, directory))
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert moved == {"head.weight", "head.bias"}


def test_the_resolved_config_is_what_was_asked_for(vit_run):
    values = yaml.safe_load((vit_run / "config.yaml").read_text())
    assert values["train"]["epochs"] == 2 and values["data"]["dataset"] == "digits" and values["name"] == "tiny"


@pytest.mark.slow
def test_the_quickstart_reaches_its_accuracy(tmp_path):
    import evaluate

    accuracies = []
    for seed in (0, 1, 2):
        train.main(["configs/quickstart.yaml", f"seed={seed}", f"name=seed{seed}", f"output_root={tmp_path}"])
        evaluate.main([str(tmp_path / f"seed{seed}")])
        accuracies.append(json.loads((tmp_path / f"seed{seed}" / "metrics.json").read_text())["accuracy"])
    assert sum(accuracies) / 3 >= 0.985


def test_the_test_split_is_logged_only_when_asked_and_changes_nothing(tmp_path, vit_run):
    path = write_config(tmp_path, TINY_VIT)
    train.main([str(path), f"output_root={tmp_path}", "train.log_test=true"])
    asked, plain = Run.open(tmp_path / "tiny"), Run.open(vit_run)
    assert tuple(asked.read_log()[0]) == (*LOG_COLUMNS, "test_loss", "test_accuracy")
    assert all(0 < row["test_accuracy"] <= 1 and row["test_loss"] > 0 for row in asked.read_log())
    columns = ("train_loss", "val_loss", "val_accuracy")
    assert [[row[key] for key in columns] for row in asked.read_log()] == [
        [row[key] for key in columns] for row in plain.read_log()
    ]
    evaluate.main([str(asked.directory)])
    last = asked.read_log()[asked.read_json("train.json")["best_epoch"] - 1]
    assert asked.read_json("metrics.json")["accuracy"] == pytest.approx(last["test_accuracy"])


def test_seeds_in_one_command_are_the_runs_that_are_started_singly(tmp_path, capsys):
    path, root = str(write_config(tmp_path, TINY_VIT)), f"output_root={tmp_path}"
    train.main([path, "train.epochs=1", root, "--seeds", "0", "1"])
    said = capsys.readouterr().out
    assert f"compare them: python evaluate.py {tmp_path}/tiny-seed0 {tmp_path}/tiny-seed1" in said
    train.main([path, "train.epochs=1", root, "seed=1", "name=alone"])
    together, alone = (torch.load(tmp_path / name / "best.pt", weights_only=True) for name in ("tiny-seed1", "alone"))
    assert all(torch.equal(together["model"][key], value) for key, value in alone["model"].items())
    (tmp_path / "tiny-seed0" / "train.json").unlink()  # as if it had been stopped
    train.main([path, "train.epochs=1", root, "--resume", "--seeds", "0", "1", "2"])
    said = capsys.readouterr().out
    assert "tiny-seed1 is finished already" in said and (tmp_path / "tiny-seed2" / "train.json").is_file()
    assert {run.config.name for run in open_runs([tmp_path], None)} == {
        "tiny-seed0",
        "tiny-seed1",
        "tiny-seed2",
        "alone",
    }
