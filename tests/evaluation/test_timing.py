"""Runs timed in turn: each network once, and a slow one no longer than it must be."""

from types import SimpleNamespace

import pytest
import torch
from support import make_config

from evaluation import cost, timing

CPU = torch.device("cpu")


def fake_run(name, *, batches=("1", "8"), **model):
    """What is asked of a run here, with what would be written into its metrics."""
    run = SimpleNamespace(config=make_config(model=model).model_copy(update={"name": name}), metrics={})
    run.metrics |= {"latency_ms": {count: {"median": 1.0, "p90": 1.0} for count in batches}, "tta": None}
    run.metrics |= {"device": "cpu", "threads": torch.get_num_threads(), "checkpoint": "best", "precision": "fp32"}
    run.read_json = lambda name: run.metrics
    run.save_json = lambda name, values: run.metrics.update(values)
    run.path = lambda name: SimpleNamespace(is_file=lambda: True)
    run.load_checkpoint = lambda name: {}
    return run


@pytest.fixture
def clock(monkeypatch):
    """A network that takes 3 s for each image; the list holds the time and the number of passes."""
    clock = [0.0, 0]

    class Network(torch.nn.Module):
        def forward(self, images):
            clock[0] += 3.0 * len(images)
            clock[1] += 1

    monkeypatch.setattr(cost.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(timing, "restore_model", lambda config, checkpoint: Network())
    monkeypatch.setattr(timing, "input_spec", lambda model: SimpleNamespace(size=(8, 8)))
    return clock


def test_runs_that_differ_in_their_weights_alone_share_a_measurement(clock):
    deeper = fake_run("deeper", kwargs={"depth": 9})
    runs = [fake_run("a-seed0"), fake_run("a-seed1"), deeper]
    timing.time_in_turn(runs, "", CPU)
    networks, batches = 2, 2
    assert clock[1] == networks * batches * (
        2 + timing.ROUNDS
    )  # two to get warm, then one a round: each is longer than that
    for run in runs:
        assert run.metrics["latency_ms"]["8"]["median"] == pytest.approx(24_000)
        assert run.metrics["images_per_second"] == pytest.approx(1 / 3)
        assert run.metrics["latency_timed_with"] == ["a-seed0", "a-seed1", "deeper"]
    done = clock[1]
    timing.time_in_turn(runs, "", CPU)
    assert clock[1] == done  # timed together before


def test_the_first_pass_of_a_round_is_left_out_where_there_are_more(monkeypatch):
    monkeypatch.setattr(timing, "time_passes", lambda *args, **kwargs: [9.0, 1.0, 1.0])
    assert timing._round(seconds=1) == [1.0, 1.0]
    monkeypatch.setattr(timing, "time_passes", lambda *args, **kwargs: [9.0])
    assert timing._round(seconds=1) == [9.0]
