"""What last.pt saves, a resume restores: wherever a run was killed, and with however many processes it goes on."""

import os
import signal
from types import SimpleNamespace

import pytest
import torch
from support import TINY_VIT, make_config, write_config

import train
import training.state
from common import distributed
from common.console import run_script
from common.runs import Run
from training.progress import Signals
from training.state import TrainingState, changes_of_images


def start(folder, *arguments, name="tiny"):
    train.main([str(write_config(folder, TINY_VIT, name)), f"output_root={folder}", *arguments])
    return Run.open(folder / name)


@pytest.mark.parametrize("option", ["train.patience=1", "train.stop_at=0.05"])
def test_a_run_killed_before_it_could_say_that_it_is_done_trains_no_more(tmp_path, monkeypatch, option):
    options = ["train.epochs=6", "train.lr=1e-9", "train.warmup_lr=0", "train.batch_size=512", option]
    whole = start(tmp_path, *options, name="whole")
    assert whole.read_json("train.json")["epochs_run"] < 6
    with monkeypatch.context() as patched:
        patched.setattr(TrainingState, "summarize", lambda *args, **kwargs: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            start(tmp_path, *options)
    run = start(tmp_path, *options, "--resume")
    for name in ("best.pt", "last.pt"):
        one, other = (r.load_checkpoint(name)["model"] for r in (whole, run))
        assert all(torch.equal(one[key], other[key]) for key in one)
    one, other = (r.read_json("train.json") for r in (whole, run))
    assert all(one[key] == other[key] for key in ("best_epoch", "epochs_run", "stopped_because"))


def state_within_an_epoch(processes, generators):
    return SimpleNamespace(
        progress={
            "step": 3,
            "seconds": 1.0,
            "sums": [torch.tensor([1.0, 2.0, 3.0]) * (rank + 1) for rank in range(processes)],
            "states": [{"generator": generator.get_state()} for generator in generators],
        }
    )


@pytest.mark.parametrize(("before", "now"), [(2, 1), (1, 2), (2, 2), (3, 2)])
def test_sums_of_an_epoch_survive_another_number_of_processes(monkeypatch, before, now):
    restored = []
    monkeypatch.setattr("training.state.set_states", lambda states, generator: restored.append(states))
    monkeypatch.setattr(distributed, "world_size", lambda: now)
    total = torch.zeros(3)
    for rank in range(now):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        state = state_within_an_epoch(before, [torch.Generator()] * before)
        step, seconds, sums = TrainingState.take_progress(state, torch.Generator(), torch.device("cpu"))
        assert (step, seconds, state.progress) == (3, 1.0, None)
        total += sums
    assert total.tolist() == [number * sum(range(1, before + 1)) for number in (1, 2, 3)]
    assert len(restored) == (now if before == now else 0)


@pytest.mark.parametrize(
    ("before", "now", "words"),
    [(1, 1, ""), (2, 2, ""), (2, 1, ", with 1 instead of 2 processes"), (1, 2, ", with 2 instead of 1 processes")],
)
def test_a_resume_says_where_it_goes_on_and_with_how_many_processes(monkeypatch, before, now, words):
    monkeypatch.setattr(distributed, "world_size", lambda: now)
    place = TrainingState._place_within(state_within_an_epoch(before, [torch.Generator()] * before))
    assert place.startswith(", step 3 of the next") and words in place
    assert place.endswith("it draws other random numbers") == bool(words)
    assert TrainingState._place_within(SimpleNamespace(progress=None)) == ""


def test_a_run_stopped_within_an_epoch_goes_on_from_its_step(tmp_path, monkeypatch, capsys):
    options = ["train.epochs=2", "train.batch_size=64", "train.checkpoint_every_steps=3"]
    whole, save = start(tmp_path, *options, name="whole"), TrainingState.save_progress

    def stop(self, step, *more):
        save(self, step, *more)
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(TrainingState, "save_progress", stop)
        with pytest.raises(ZeroDivisionError):
            start(tmp_path, *options)
    run = start(tmp_path, *options, "--resume")
    assert "after epoch 0, step 3 of the next" in capsys.readouterr().out
    one, other = (r.load_checkpoint("last.pt")["model"] for r in (whole, run))
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(("text", "told"), [("first\nsecond", "(ValueError: first)"), ("", "(ValueError: )")])
def test_a_foreign_checkpoint_is_named_with_the_first_line_of_the_error(tmp_path, text, told):
    state = SimpleNamespace(run=SimpleNamespace(path=tmp_path.joinpath))
    message = str(TrainingState._foreign(state, ValueError(text)))
    assert f"last.pt is not of this run {told}; restore" in message and "second" not in message


OFF = {"crop_padding": 0, "hflip": 0.0}


@pytest.mark.parametrize(
    ("augment", "mixing", "words"),
    [
        (OFF, {}, ""),
        (OFF | {"ratio": [0.9, 1.1], "aug_repeats": 2}, {}, ""),
        *[
            (OFF | {key: 0.5}, {}, "augmented")
            for key in ("hflip", "vflip", "grayscale_prob", "gaussian_blur_prob", "reprob")
        ],
        *[(OFF | {"color_jitter": 0.4}, {}, "augmented"), (OFF | {"aa": "rand-m9"}, {}, "augmented")],
        (OFF, {"mixup": 0.2}, "mixed"),
        (OFF | {"scale": [0.5, 1.0]}, {"cutmix": 1.0}, "augmented and mixed"),
    ],
    ids=str,
)
def test_figures_say_how_training_images_are_changed(augment, mixing, words):
    assert changes_of_images(make_config(data={"augment": augment}, train=mixing)) == words


def test_the_figure_of_the_learning_rate_ends_each_epoch_at_a_whole_number(tmp_path, monkeypatch):
    drawn = []
    original = training.state.learning_rate
    monkeypatch.setattr(
        training.state,
        "learning_rate",
        lambda epochs, lr, **words: drawn.append((epochs, lr)) or original(epochs, lr, **words),
    )
    start(tmp_path, "train.epochs=2", "train.batch_size=512")
    ((epochs, rates),) = drawn
    steps = len(rates) // 2
    assert steps > 1 and epochs == pytest.approx([(i + 1) / steps for i in range(2 * steps)])


def test_hanging_up_is_heard_unless_it_was_to_be_ignored():
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGHUP)
    assert signals.received == signal.SIGHUP
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    try:
        with Signals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
        assert not signals.received
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (KeyboardInterrupt(), 130, "stopped by SIGINT; what was written is whole"),
        (PermissionError(13, "Permission denied", "x.yaml"), 2, "error: x.yaml: Permission denied"),
        (OSError(36, "File name too long"), 2, "error: File name too long"),
    ],
)
def test_what_stops_a_script_is_one_line(capsys, error, code, line):
    def main(argv):
        raise error

    with pytest.raises(SystemExit) as stop:
        run_script(main, [])
    assert stop.value.code == code and capsys.readouterr().err.strip() == line
