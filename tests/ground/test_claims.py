"Published values, and the arithmetic of precision and recall."

import numpy as np
import pytest

from deepfake_nbs import claims


def implied_fakes(**published):
    real = claims.implied_real_fraction(published, claims.PRECISION_AND_RECALL)
    return None if real is None else (1 - real[1], 1 - real[0])


def test_the_fraction_of_fakes_follows_from_precision_and_recall():
    low, high = implied_fakes(precision_0=f"{240 / 310:.6f}", precision_1=f"{630 / 690:.6f}", recall_0=".800000", recall_1=".900000")
    assert low <= 0.7 <= high and high - low < 1e-4  # 300 real, 700 fake
    assert implied_fakes(precision_0=".9999", precision_1=".5000", recall_0=".5000", recall_1=".5000") is None
    low, high = implied_fakes(precision_0=".8428", precision_1=".8980", recall_0=".7811", recall_1=".9297")
    assert 0.674 < low < high < 0.675


def test_the_fraction_of_fakes_in_the_report_s_test_set():
    published = claims.published_values()
    low, high = claims.implied_majority(published)
    assert 0.674 < low < high < 0.675
    impossible = published.copy()
    impossible["epoch-8-precision_0"], impossible["epoch-8-recall_1"] = ".9999", ".5000"
    assert np.isnan(claims.implied_majority(impossible)).all()


@pytest.mark.parametrize("real, right_real, right_fake", [(300, 240, 630), (500, 10, 499), (1, 1, 999)])
def test_a_test_set_that_exists_is_possible(real, right_real, right_fake):
    fake = 1000 - real
    called_real, called_fake = right_real + fake - right_fake, right_fake + real - right_real
    printed = dict(recall_0=right_real / real, recall_1=right_fake / fake, precision_0=right_real / called_real,
                   precision_1=right_fake / called_fake, test_accuracy=(right_real + right_fake) / 1000)
    low, high = claims.implied_real_fraction({name: f"{value:.3f}" for name, value in printed.items()})
    assert low - 1e-9 <= real / 1000 <= high + 1e-9


def test_published_values_keep_their_digits():
    published = claims.published_values()
    assert published["baselines-svm-accuracy"] == ".6756" and published.index.is_unique
