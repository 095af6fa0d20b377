"""Numbers of heat maps against brute force."""

import math
import warnings

import numpy as np
import pytest

from common.intervals import mean_interval
from explanation.quality.form import centre_to_edge, energy_inside, map_statistics, pointing_game, resample


def brute_force(map_):
    """The definitions, cell by cell; areas by cutting each cell into 20 x 20."""
    (h, w), total, top = map_.shape, map_.sum(), map_.max()
    cells = [(r, c, map_[r, c]) for r in range(h) for c in range(w)]
    mass = [v / total for *_, v in cells]
    fine = np.repeat(np.repeat(map_, 20, 0), 20, 1) / 400
    ordered, held, count = np.sort(fine.ravel())[::-1], 0.0, 0
    while held < total / 2 - 1e-12:
        held, count = held + ordered[count], count + 1
    y, x = np.mgrid[0 : 20 * h, 0 : 20 * w]
    middle = (abs((y + 0.5) / (20 * h) - 0.5) < 0.25) & (abs((x + 0.5) / (20 * w) - 0.5) < 0.25)
    r, c = divmod(int(map_.argmax()), w)
    offset = ((r + 0.5) / h - 0.5) / 0.5, ((c + 0.5) / w - 0.5) / 0.5
    mean = sum(v / top for *_, v in cells) / len(cells)
    return {
        "mean": mean,
        "std": math.sqrt(sum((v / top - mean) ** 2 for *_, v in cells) / len(cells)),
        "entropy": -sum(p * math.log(p) for p in mass if p > 0) / math.log(len(mass)),
        "half_mass_area": count / fine.size,
        "half_max_area": sum(v > top / 2 for *_, v in cells) / len(cells),
        "centre_mass": fine[middle].sum() / total,
        "peak_distance": math.sqrt(offset[0] ** 2 + offset[1] ** 2) / math.sqrt(2),
    }


@pytest.mark.parametrize("grid", [(7, 7), (4, 6), (14, 14), (2, 3)])
def test_statistics_equal_brute_force(grid):
    maps = np.random.default_rng(0).gamma(0.5, size=(3, *grid))
    maps[0, 0, :] = 0
    found = map_statistics(maps)
    for i, map_ in enumerate(maps):
        for name, expected in brute_force(map_).items():
            assert found[name][i] == pytest.approx(expected, abs=1e-2 if "area" in name else 1e-9), name


def test_statistics_of_maps_that_one_knows():
    even, corner = np.ones((7, 7)), np.zeros((7, 7))
    corner[0, 0] = 5
    values = map_statistics(np.stack([even, corner]))
    assert values["entropy"].tolist() == pytest.approx([1, 0]) and values["mean"].tolist() == pytest.approx([1, 1 / 49])
    assert values["half_mass_area"].tolist() == pytest.approx([0.5, 0.5 / 49])
    assert values["centre_mass"].tolist() == pytest.approx([0.25, 0])
    assert values["peak_distance"][1] == pytest.approx(6 / 7)
    assert centre_to_edge(0.25) == pytest.approx(1) and centre_to_edge(1) is None
    scaled = map_statistics(1000 * np.stack([even, corner]))  # raw maps of two models differ in scale
    assert all(np.allclose(values[name], scaled[name]) for name in values)


def test_a_common_grid_keeps_what_a_map_says():
    y, x = np.mgrid[0:28, 0:28]
    blob = np.exp(-((y - 9) ** 2 + (x - 17) ** 2) / 60)[None]
    fine, coarse = resample(blob, (14, 14)), resample(resample(blob, (7, 7)), (14, 14))
    assert fine.shape == coarse.shape == (1, 14, 14)
    for name, value in map_statistics(fine).items():
        assert value == pytest.approx(map_statistics(coarse)[name], abs=0.08), name
    np.testing.assert_allclose(resample(blob, (14, 14))[0, 6:8, 6:8].mean(), blob[0, 12:16, 12:16].mean(), rtol=0.05)


def test_localisation_counts_maxima_and_mass():
    maps, regions = np.zeros((3, 4, 4)), np.zeros((3, 4, 4), bool)
    regions[:, :2, :2] = True
    maps[0, 1, 1], maps[0, 3, 3] = 3, 1
    maps[1, 3, 0], maps[1, 0, 0] = 3, 1
    maps[2] = 1  # every cell is a maximum: a quarter of them is right
    assert pointing_game(maps, regions).tolist() == [1, 0, 0.25]
    assert energy_inside(maps, regions).tolist() == [0.75, 0.25, 0.25]


def test_intervals_of_a_mean_cover_as_often_as_they_say():
    random = np.random.default_rng(0)
    samples = random.gamma(2, size=(60, 400))  # 400 samples of 60 images; the mean is 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mean, interval = mean_interval(samples, resamples=500)
    np.testing.assert_allclose(mean, samples.mean(0))
    covered = ((interval[:, 0] <= 2) & (interval[:, 1] >= 2)).mean()
    assert 0.90 <= covered <= 0.97
    np.testing.assert_array_equal(interval, mean_interval(samples, resamples=500)[1])
    normal = 1.96 * samples.std(0, ddof=1) / np.sqrt(60)
    np.testing.assert_allclose(np.ptp(interval, axis=1) / 2, normal, rtol=0.25)
    assert mean_interval([[3.0]])[1].tolist() == [[3, 3]]
