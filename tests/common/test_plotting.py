"""What all figures share: numbers, titles and marks, and the check that texts do not overlap."""

import matplotlib
import pytest
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from support import layout_faults

from common import plotting
from training import figures as training_figures


def test_layout_faults_are_found():
    figure = Figure(figsize=(3, 3))
    figure.text(0.5, 0.5, "one")
    figure.text(0.51, 0.5, "other")
    figure.text(0.95, 0.1, "outside")
    assert layout_faults(figure) == ["'outside' leaves the page", "'one' overlaps 'other'"]


def test_marks_exist_in_the_font():
    font = FT2Font(matplotlib.get_data_path() + "/fonts/ttf/DejaVuSans.ttf")
    for mark, _ in plotting.MARKS.values():
        assert all(font.get_char_index(ord(character)) for character in mark)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.01234567, "0.01235"),
        (45.6, "45.6"),
        (1234.4, "1,234"),
        (2.5e8, "250 M"),
        (4.25e9, "4.25 G"),
        (-3e6, "-3 M"),
    ],
)
def test_numbers_are_written_for_people(value, text):
    assert plotting.readable(value) == text


def test_a_word_is_broken_only_if_it_is_longer_than_a_line():
    assert plotting.wrap("lrprollout at patch_embed", 2, 12).split("\n") == ["lrprollout at", "patch_embed"]
    assert max(map(len, plotting.wrap("a_very_long_name_of_a_run in it", 1, 12).split("\n"))) < 16


def test_long_titles_are_wrapped_and_own_line_breaks_stay():
    figure = training_figures.learning_rate([0, 1], [1, 0], title="first\n" + "a long second line " * 10)
    assert figure.get_suptitle().split("\n")[0] == "first"
    assert figure.get_suptitle().count("\n") >= 3
    assert not layout_faults(figure)
