"Synthetic people before a camera."

import numpy as np
import pytest
from deepfake_nbs.miniature import hair
from deepfake_nbs.miniature import people
from deepfake_nbs.miniature import portraits


@pytest.mark.parametrize("hair", sorted(hair.HAIR_REACH))
@pytest.mark.parametrize("collar", ["crew", "jacket"])
def test_every_hair_style_and_collar_draws_a_finite_image(hair, collar):
    who = people.Identity(
        hair=hair,
        collar=collar,
        beard_style="goatee",
        beard=0.9,
        glasses="round",
        age=0.9,
        freckles=0.5,
        pattern="check",
    )
    portrait = portraits.draw_portrait(who, people.View(yaw=-0.4, mouth_open=0.4), portraits.Camera(), 1, 96)
    assert np.isfinite(portrait.image).all() and portrait.image.std() > 0.05
    x0, y0, x1, y1 = portrait.head_box
    assert 0.3 < (x1 - x0) / (y1 - y0) < 1.3


@pytest.mark.parametrize(
    "field, value",
    [
        ("yaw", 0.5),
        ("smile", 1.0),
        ("mouth_open", 0.8),
        ("light", 0.9),
        ("eyes", 0.3),
        ("gaze_x", 0.5),
        ("roll", 0.2),
        ("brow_raise", 1.0),
        ("warmth", -1.0),
    ],
)
def test_every_part_of_a_view_changes_the_image(field, value):
    who = people.random_identity(np.random.default_rng(21))
    images = [
        portraits.draw_portrait(who, view, portraits.Camera(), 1, 96).image
        for view in (people.View(), people.View(**{field: value}))
    ]
    assert np.abs(images[0] - images[1]).max() > 0.03


def test_a_contact_sheet_has_one_cell_an_image(pair):
    figure = portraits.plot_contact_sheet(
        [[p.image for p in pair]] * 2, ["a", "b"], ["x", "y"], [[p.head_box] for p in pair]
    )
    assert len(figure.axes) == 4 and figure.axes[0].get_title() == "a" and len(figure.axes[0].patches) == 1
