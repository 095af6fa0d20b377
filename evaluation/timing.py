"""Several runs timed in turn, so that what slows a machine down for a while slows all of them down."""

from collections.abc import Sequence
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
    """Measure the latency of evaluated runs anew, in rounds of one after the other, and write it into their metrics.

    Each run keeps the batch sizes, the precision and the time that its own measurement had. Nothing is done if they were timed
    together before, if one was measured on another device, or if its weights are gone.
    """
    metrics = [run.read_json(f"metrics{suffix}.json") for run in runs]
    names = sorted(str(run.config.name) for run in runs)
    here = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    alike = all(m["device"] == here and m["threads"] == torch.get_num_threads() for m in metrics)
    gone = [run for run, m in zip(runs, metrics) if not run.path(f"{m['checkpoint']}.pt").is_file()]
    if gone or not alike or all(m.get("latency_timed_with") == names for m in metrics):
        return
    passes = {}
    for place, (run, values) in enumerate(zip(runs, metrics)):
        model = restore_model(run.config, run.load_checkpoint(f"{values['checkpoint']}.pt")).to(device).eval()
        size, seconds = input_spec(model).size, run.config.evaluate.latency_seconds
        model = FlipAverage(model).eval() if values["tta"] else model
        context = partial(autocast, device, values["precision"])
        for count in values["latency_ms"]:
            images = random_inputs(int(count), size, device)
            warm_up(model, images, context=context, seconds=seconds)
            passes[place, count] = partial(time_passes, model, images, context=context, seconds=seconds / ROUNDS)
    times = {key: [] for key in passes}
    for _ in tqdm(range(ROUNDS), "timing in turn", leave=False):
        for key, measure in passes.items():
            times[key] += measure(at_least=3)[1:]  # the first one meets the caches of another model
    for place, (run, values) in enumerate(zip(runs, metrics)):
        found = {count: summarize_times(times[place, count]) for count in values["latency_ms"]}
        batch = max(found, key=int)
        values |= {"latency_ms": found, "images_per_second": 1000 * int(batch) / found[batch]["median"]}
        run.save_json(f"metrics{suffix}.json", values | {"latency_timed_with": names})
