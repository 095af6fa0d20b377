"""Time several runs in turn, so that a slow phase of the machine affects all of them alike."""

import json
from collections.abc import Callable, Sequence
from functools import partial

import torch
from tqdm import tqdm

from common.devices import autocast
from common.runs import Run
from evaluation.cost import random_inputs, summarize_times, time_passes, warm_up
from evaluation.predictions import FlipAverage
from models import input_spec, restore_model

ROUNDS = 5


def time_in_turn(runs: Sequence[Run], suffix: str, device: torch.device) -> None:
    """Measure the latency of evaluated runs again, in rounds in which each has its turn, and write it into their metrics.

    Each run keeps the batch sizes, the precision and the duration of its own measurement. Runs with the same network, such
    as seeds, share a measurement, since weights do not change it. Nothing is done if the runs were timed together before,
    if one was measured on another device, or if the weights of one are missing.
    """
    metrics = [run.read_json(f"metrics{suffix}.json") for run in runs]
    names = sorted(str(run.config.name) for run in runs)
    here = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    alike = all(m["device"] == here and m["threads"] == torch.get_num_threads() for m in metrics)
    gone = [run for run, m in zip(runs, metrics) if not run.path(f"{m['checkpoint']}.pt").is_file()]
    if gone or not alike or all(m.get("latency_timed_with") == names for m in metrics):
        return
    networks = [_network(run, values) for run, values in zip(runs, metrics)]
    passes = {}
    for network in tqdm(dict.fromkeys(networks), "warming up", leave=False):
        first = networks.index(network)
        passes |= {(network, count): f for count, f in _passes(runs[first], metrics[first], device).items()}
    times = {key: [] for key in passes}
    for _ in tqdm(range(ROUNDS), "timing in turn", leave=False):
        for key, measure in passes.items():
            times[key] += measure()
    for run, network, values in zip(runs, networks, metrics):
        found = {count: summarize_times(times[network, count]) for count in values["latency_ms"]}
        batch = max(found, key=int)
        values |= {"latency_ms": found, "images_per_second": 1000 * int(batch) / found[batch]["median"]}
        run.save_json(f"metrics{suffix}.json", values | {"latency_timed_with": names})


def _network(run: Run, metrics: dict) -> str:
    """A key of everything that the time of a forward pass depends on; equal for runs that differ only in their weights."""
    config = run.config
    about = (config.model.name, config.model.kwargs, config.data.image_size, config.evaluate.latency_seconds)
    return json.dumps((*about, metrics["precision"], metrics["tta"], list(metrics["latency_ms"])), sort_keys=True)


def _passes(run: Run, metrics: dict, device: torch.device) -> dict[str, Callable[[], list[float]]]:
    """Warm a run up -> for each batch size a function that times one round of forward passes, in milliseconds."""
    model = restore_model(run.config, run.load_checkpoint(f"{metrics['checkpoint']}.pt")).to(device).eval()
    size, seconds = input_spec(model).size, run.config.evaluate.latency_seconds
    model = FlipAverage(model).eval() if metrics["tta"] else model
    context = partial(autocast, device, metrics["precision"])
    passes = {}
    for count in metrics["latency_ms"]:
        images = random_inputs(int(count), size, device)
        warm_up(model, images, context=context, seconds=seconds)
        passes[count] = partial(_round, model, images, context=context, seconds=seconds / ROUNDS)
    return passes


def _round(*args, seconds: float, **kwargs) -> list[float]:
    """Times of one round, without the first pass, since the caches hold another model's data; unless it is the only one."""
    times = time_passes(*args, **kwargs, seconds=seconds, at_least=1)
    return times if len(times) == 1 else times[1:]
