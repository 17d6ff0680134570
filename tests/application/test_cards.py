"Answers of the demo as HTML: labels, roles, text alternatives, contrast, no external address, nothing unescaped."

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from PIL import Image

from deepfake_nbs.application.cards import (
    boxes_html,
    frames_svg,
    gauge_svg,
    gauge_text,
    head_card,
    heads_html,
    heatmap_html,
    image_uri,
    matches_html,
    model_html,
    photo_html,
    problem_html,
    shown_heads,
    stress_html,
    verdict_sentence,
    video_html,
    why_rows,
)
from deepfake_nbs.application.evidence import (
    Evidence,
    HeadPrediction,
    Match,
    Stress,
    StressStep,
    Thresholds,
    make_band,
)
from deepfake_nbs.application.explain import HeatmapNumbers
from deepfake_nbs.application.risk import RiskThresholds
from deepfake_nbs.application.style import COLOURS, SCRIPT, contrast, style_sheet, weak_pairs
from deepfake_nbs.application.video import VideoEvidence

NAME = "<img src=x onerror=alert(1)> & 'so'.jpg"
LIMITS = Thresholds(0.2, 0.7, "chosen <by> hand", 1.4)
NETWORK = dict(net="light", row=8, trained_on="<CVCS>", margin=0.2, weights="abc")
HEADS = tuple(HeadPrediction((10.0 * i, 5.0, 10.0 * i + 9, 30.0), 0.9, 0.1, "real", 3.0) for i in range(12))
BAND = make_band(0.1, [StressStep("JPEG 30", "jpeg", 30, 0.8, verdict="fake")])
FULL = Evidence(
    NAME,
    (130, 90),
    "head",
    0.1,
    "real",
    "",
    HEADS,
    11,
    ("head <2> is",),
    LIMITS,
    NETWORK,
    {},
    dict(read=0.25, heads=0.5),
    (Match("/no/<b>.png", 0.9, "real", "<i>"),),
    3.0,
    20.0,
    Stress((replace(BAND, verdict="real"),) * 12, 11, 0.5, 3.0),
)
FILM = VideoEvidence(
    NAME,
    (0, 5, 10),
    (None,) * 3,
    (0.6, None, 0.8),
    0.7,
    (0.65, 0.7, 0.75),
    "fake",
    "",
    (),
    LIMITS,
    NETWORK,
    {},
    dict(read=0.5),
)


@pytest.fixture(scope="module")
def photo():
    return Image.effect_noise((130, 90), 60).convert("RGB")


@pytest.fixture(scope="module")
def html(photo):
    "Everything that an answer may hold."
    heatmap = heatmap_html(b"png", HeatmapNumbers(0.75, 0.4, 48, "<run>"))
    return photo_html(FULL, photo, heatmap) + video_html(FILM) + problem_html(NAME) + model_html(f"# {NAME}")


class Elements(HTMLParser):
    "Every element with its attributes; fails where an element is not closed."

    VOID = {"img", "br", "path", "rect", "circle"}

    def __init__(self, text):
        super().__init__()
        self.found, self.open = [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_names_are_text_and_never_elements(html):
    assert NAME not in html and "&lt;img src=x onerror=alert(1)&gt;" in html
    assert not any("onerror" in attrs for _, attrs in Elements(html).found)
    for raw in ("<by>", "<CVCS>", "<2>", "<i>", "<run>"):
        assert raw not in html


def test_every_image_has_a_text_alternative_and_every_drawing_a_name_or_is_hidden(html):
    found = Elements(html).found
    images = [attrs for tag, attrs in found if tag == "img"]
    assert len(images) == 12 and all("alt" in attrs for attrs in images)
    assert sum(bool(attrs["alt"]) for attrs in images) == 2, (
        "the photograph and the heatmap; crops repeat what is beside them"
    )
    for attrs in (attrs for tag, attrs in found if tag == "svg"):
        assert attrs.get("aria-hidden") == "true" or (attrs["role"] == "img" and attrs["aria-label"])


def test_tables_have_captions_and_headers_with_a_scope(html):
    found = Elements(html).found
    tags = [tag for tag, _ in found]
    assert tags.count("table") == tags.count("caption") == 4
    assert all(attrs.get("scope") in ("row", "col") for tag, attrs in found if tag == "th")


def test_what_scrolls_can_be_reached_with_the_keyboard(html):
    (card,) = [attrs for _, attrs in Elements(html).found if attrs.get("class") == "dn-model"]
    assert (card["tabindex"], card["role"], card["aria-label"]) == ("0", "region", "Model card")


def test_headings_follow_each_other_without_a_gap(html):
    levels = [int(tag[1]) for tag, _ in Elements(html).found if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 3 and set(levels) == {3, 4}


def test_nothing_comes_from_elsewhere(html):
    without_data = re.sub(r"data:image/[^\"]*", "", html)
    for text in (without_data, style_sheet(), SCRIPT):
        assert not re.search(r"https?:|[\"'(]//[a-z]|@import", text)
    sources = [attrs["src"] for _, attrs in Elements(html).found if "src" in attrs]
    assert all(source.startswith("data:image/") for source in sources)


def test_every_colour_of_a_text_reaches_aa_and_the_answers_use_no_other(html):
    assert weak_pairs() == {}
    used = set(re.findall(r"#[0-9a-f]{6}\b", html + style_sheet()))
    assert used <= {*COLOURS.values()}
    assert contrast("#d55e00", "#ffffff") < 4.5, "the orange of the figures would fail: text has a darker one"


def test_drawn_text_stands_on_the_page_in_a_colour_that_can_be_read(html):
    for tag, attrs in Elements(html).found:
        if tag == "text" and attrs["fill"] != COLOURS["page"]:
            assert contrast(attrs["fill"], COLOURS["page"]) >= 4.5


def test_the_gauge_shows_both_limits_and_its_text_says_them():
    drawn = gauge_svg(0.83, LIMITS, "fake", BAND)
    assert re.findall(r">(real to|fake from) ([\d.]+)<", drawn) == [
        ("real to", "0.20"),
        ("fake from", "0.70"),
    ]
    assert gauge_text(0.83, LIMITS, BAND) in drawn and "under distortion 0.100 to 0.800" in drawn
    # 0.2 of a scale of 284 that starts at 8
    assert 'd="M64.8 18' in drawn and 'd="M206.8 18' in drawn
    never = gauge_svg(0.83, Thresholds(None, None, ""), "unsure")
    assert "real to" not in never and "real is never given; fake is never given" in never


@pytest.mark.parametrize("p", [0.0, 0.001, 0.999, 1.0, -0.2, 1.3])
def test_numbers_at_the_ends_stay_inside_the_drawing(p):
    drawn = gauge_svg(p, Thresholds(p, p, ""), "unsure")
    places = [float(x) for x in re.findall(r' x="([-\d.]+)"', drawn)]
    assert all(0 <= x <= 300 for x in places)


def test_ten_heads_get_a_card_and_the_rest_is_counted(photo):
    assert shown_heads(FULL) == [*range(9), 11] and "Head 12 (main head)" in head_card(FULL, 11, photo)
    cards = heads_html(FULL, photo)
    assert cards.count("<li") == 10 and "2 more heads: 2 real" in cards
    assert boxes_html(FULL, photo).count("<text") == 10
    whole = replace(FULL, region="whole image", heads=(), main_head=None, stress=None)
    assert "The whole image" in heads_html(whole, photo)


@pytest.mark.parametrize(
    "verdict, p, reason, sentence",
    [
        ("real", 0.1, "", "The network classifies this head as real: P(fake) 0.100 is not above 0.200."),
        ("fake", 0.7, "", "The network classifies this head as fake: P(fake) 0.700 is not below 0.700."),
        ("unsure", 0.5, "", "The network is unsure about this head: P(fake) 0.500 reaches neither limit."),
        ("unsure", 0.5, "too far", "The network gives no verdict: too far."),
        (None, None, "no head was found", "Nothing was classified: no head was found."),
    ],
)
def test_a_verdict_is_a_sentence(verdict, p, reason, sentence):
    assert verdict_sentence(replace(FULL, verdict=verdict, probability=p, reason=reason)) == sentence


def test_why_names_limits_calibration_distance_and_risk():
    rows = dict(why_rows(FULL))
    assert rows["Limits"] == "real up to 0.200, fake from 0.700, otherwise unsure; chosen <by> hand"
    assert "temperature 1.40" in rows["Calibration"] and rows["Network"].startswith("light, run 8 of Table 1")
    assert rows["Distance from the training images"] == "3.0, limit 20.0: near enough for a verdict"
    far = dict(why_rows(replace(FULL, distance=21.0)))
    assert far["Distance from the training images"].endswith("too far for a verdict")
    assert "Risk" not in rows
    at_risk = dict(why_rows(replace(FULL, thresholds=RiskThresholds(0.2, 0.7, "", risk=0.05))))
    assert "at most 0.05 of real images" in at_risk["Risk"]


def test_parts_that_nobody_asked_for_are_not_there():
    plain = replace(FULL, stress=None, matches=())
    assert stress_html(plain) == matches_html(plain) == model_html("") == ""
    assert "The verdict flips at JPEG 30." in stress_html(FULL)
    assert "<b>no such file" not in matches_html(FULL) and "no such file" in matches_html(FULL)


def test_a_heatmap_never_stands_alone():
    numbers = HeatmapNumbers(0.75, 0.4, 48, "a run")
    both = heatmap_html(b"png", numbers)
    assert "0.75 with the weights" in both and "0.40 with random weights" in both
    for one in (heatmap_html(b"png", None, "not measured"), heatmap_html(None, numbers, "not measured")):
        assert "<img" not in one and "not measured" in one


def test_a_frame_without_a_head_has_no_point_and_a_row():
    assert frames_svg(FILM).count("<circle") == 2 and "no head" in video_html(FILM)
    nothing = replace(
        FILM, probabilities=(None,) * 3, mean=None, verdict=None, reason="no head was found in any frame"
    )
    assert "<circle" not in frames_svg(nothing) and "Nothing was classified" in video_html(nothing)


def test_an_image_loses_its_metadata():
    image = Image.new("RGB", (2000, 10))
    image.info["exif"] = image.info["comment"] = b"SECRET PLACE"
    import base64

    content = base64.b64decode(image_uri(image, 900).partition(",")[2])
    assert b"SECRET" not in content
