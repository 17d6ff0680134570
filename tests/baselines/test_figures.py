"Figures of the baselines, and patches of visual words."

import numpy as np
import pandas as pd

from deepfake_nbs.baselines import classifiers, controls, figures, report, study, visual_words


def test_word_differences_are_in_standard_deviations_and_patches_come_from_near_the_word(easy, train_of):
    x = np.array([[0, 1.0], [2, 1], [4, 1], [6, 1]])
    np.testing.assert_allclose(visual_words.word_differences(x, [0, 0, 1, 1]), [4, 0])
    paths, rows = train_of(easy)
    words = visual_words.SiftBagOfWords(4).fit(paths)
    patches = figures.word_patches(words, paths, [0, 3], n=5)
    assert set(patches) == {0, 3} and all(len(row) <= 5 and all(patch.shape == (32, 32) for patch in row) for row in patches.values())


def test_a_patch_is_centred_on_its_keypoint():
    grey = np.zeros((99, 99), np.uint8)
    grey[48:51, 58:61] = 255
    for angle in (0.0, 90.0):
        patch = figures.crop_patch(grey, np.array([59, 49, 5, angle], np.float32), 31)
        y, x = np.nonzero(patch > 100)
        assert abs(y.mean() - 15) <= 1 and abs(x.mean() - 15) <= 1


def test_figures_can_be_drawn(easy, tmp_path, small):
    import matplotlib.pyplot as plt

    folder, manifest = easy
    study.run_baselines(manifest, folder, tmp_path, small)
    tables = study.read_baselines(tmp_path)
    metrics = controls.score_classifiers(tables["predictions"].query("split == 'test'"), 5).assign(protocol="group")
    search = classifiers.plot_search(tables["svm_search"], tables["forest_search"], 0.5)
    assert [len(ax.lines) for ax in search.axes] == [2 + 2, 1 + 2] and search.axes[0].get_xscale() == "log"
    rows = figures.plot_metric(metrics)
    assert [tick.get_text() for tick in rows.get_yticklabels()] == list(metrics["classifier"].unique())
    n = metrics["n"].iloc[0]
    fewer = metrics.assign(n=metrics["n"].where(metrics["classifier"].ne("constant"), n - 3), protocol="published")
    legend = figures.plot_metric(pd.concat([metrics, fewer])).get_legend()
    assert [text.get_text() for text in legend.get_texts()] == [f"group (n={n})", f"published (n={n - 3} to {n})"]
    labels = {metric: figures.plot_metric(metrics, metric).get_xlabel() for metric in ("balanced_accuracy", "auc", "eer")}
    assert labels == {"balanced_accuracy": "balanced accuracy", "auc": "AUC", "eer": "EER"}
    assert len(figures.plot_confusion_matrices(tables["predictions"], list(study.SIFT_CLASSIFIERS)).axes) == 2
    assert report.metrics_table(metrics, ("auc",)).index.tolist() == list(metrics["classifier"].unique())
    plt.close("all")
