"Synthetic people before a camera."

import cv2
import numpy as np
import pytest
from deepfake_nbs.miniature import hair
from deepfake_nbs.miniature import people
from deepfake_nbs.miniature import portraits
from deepfake_nbs.miniature import surface


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


def test_a_blur_keeps_the_mean_and_spreads_a_spot():
    spot = np.zeros((31, 31), np.float32)
    spot[15, 15] = 1
    soft = people.blur(spot, 2.0)
    assert soft.shape == spot.shape and soft.dtype == np.float32
    assert soft.sum() == pytest.approx(1, abs=1e-3) and 0 < soft[15, 17] < soft[15, 15] < 0.1


def test_a_resize_takes_width_before_height():
    small = people.resize(np.ones((20, 40, 3), np.float32), 10, 5, cv2.INTER_AREA)
    assert small.shape == (5, 10, 3) and np.allclose(small, 1)


def test_locks_hang_lower_than_a_bob_and_leave_the_face_free():
    stage = surface.make_stage(96, 96, people.View(scale=0.2))
    who = people.Identity(hair="long")
    long, bob = (
        hair.long_hair_cover(stage.x, stage, people.Identity(hair=style), front=True)[0]
        for style in ("long", "bob")
    )
    assert long.sum() > bob.sum() and 0 <= long.min() and long.max() <= 1
    middle = (np.abs(stage.x) < 0.5 * who.width) & (np.abs(stage.y) < 0.5)
    assert long[middle].max() < 0.01


@pytest.mark.parametrize("low, high", [(0.0, 1.0), (np.zeros(3), np.ones(3))])
def test_a_smooth_step_is_the_same_for_numbers_and_arrays(low, high):
    x = np.array([-1.0, 0.5, 2.0])
    assert people.smoothstep(x, low, high).tolist() == [0, 0.5, 1]
