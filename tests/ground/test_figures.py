"Looks of figures: colours and markers that differ, and axes of AUC."

import matplotlib.pyplot as plt
import pytest

from deepfake_nbs.figures import MARKERS, PALETTE, auc_limits, distinguish_lines, line_look


def test_seven_lines_differ_in_colour_and_marker():
    looks = [line_look(i) for i in range(7)]
    assert len({look["color"] for look in looks}) == len({look["marker"] for look in looks}) == 7
    assert line_look(7) == dict(color=PALETTE[0], marker=MARKERS[7])


def test_lines_get_looks_of_their_own_and_the_legend_shows_them():
    _, ax = plt.subplots()
    for name in "abc":
        ax.plot([0, 1], [0, 1], marker="o", label=name)
    ax.plot([1], [1], "*", color="gold", label="chosen")
    ax.axhline(0.5, ls=":", color="grey", label="level")
    ax.legend()
    assert distinguish_lines(ax, 2) == 5
    drawn = {line.get_label(): (line.get_color(), line.get_marker()) for line in ax.get_lines()}
    assert [drawn[name] for name in "abc"] == [tuple(line_look(i).values()) for i in (2, 3, 4)]
    assert drawn["chosen"] == ("gold", "*") and drawn["level"][0] == "grey"
    shown = {text.get_text(): line.get_color() for line, text in zip(*legend_parts(ax), strict=True)}
    assert shown == {name: colour for name, (colour, _) in drawn.items()}
    plt.close("all")


def legend_parts(ax):
    return ax.get_legend().get_lines(), ax.get_legend().get_texts()


@pytest.mark.parametrize("values, low", [([], 0.4), ([0.9, float("nan")], 0.4), ([0.3, 0.9], 0.28)])
def test_an_axis_of_auc_starts_at_four_tenths_or_below_what_is_drawn(values, low):
    assert auc_limits(values) == (pytest.approx(low), 1.01)
