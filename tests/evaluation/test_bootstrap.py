"""Intervals of scores by resampling images, against scipy and by hand."""

import numpy as np
import pytest
from scipy import stats

from crate_interp.errors import InputError
from crate_interp.evaluation import Bootstrap, Interval, bootstrap_score, mean_bootstrap

VALUES = np.random.default_rng(5).normal(size=23).tolist()
OTHERS = np.random.default_rng(6).normal(size=23).tolist()


def mean(records):
    return float(np.mean(records))


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_interval_of_a_mean_equals_scipy(level):
    found = bootstrap_score(mean, VALUES, 500, seed=3)
    expected = stats.bootstrap(
        (VALUES,),
        np.mean,
        n_resamples=500,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(3),
    )
    assert found.score == mean(VALUES)
    np.testing.assert_allclose(found.resampled, expected.bootstrap_distribution)
    np.testing.assert_allclose(found.interval(level), expected.confidence_interval)


def test_difference_of_two_is_paired():
    first, second = (bootstrap_score(mean, values, 500, 3) for values in (VALUES, OTHERS))
    difference = first - second
    expected = stats.bootstrap(
        (VALUES, OTHERS),
        lambda one, two, axis: np.mean(one, axis) - np.mean(two, axis),
        n_resamples=500,
        paired=True,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(3),
    )
    assert difference.score == pytest.approx(mean(VALUES) - mean(OTHERS))
    np.testing.assert_allclose(difference.interval(), expected.confidence_interval)
    same = first - first
    assert same.score == 0
    assert same.interval() == Interval(0.0, 0.0)


def test_what_is_chosen_by_all_images_is_chosen_anew():
    records = [(1, 0)] * 3 + [(0, 1)] * 2
    found = bootstrap_score(lambda drawn: max(np.mean(drawn, axis=0)), records, 200)
    assert found.score == 0.6
    assert found.resampled.min() >= 0.6  # of five, one column has three or more
    assert found.interval().high == 1


def test_seeds_give_the_same_and_other_resamples():
    first, again, other = (bootstrap_score(mean, VALUES, 50, seed) for seed in (1, 1, 2))
    assert (first.resampled == again.resampled).all()
    assert (first.resampled != other.resampled).any()


def test_mean_of_seeds_of_a_model():
    parts = [bootstrap_score(mean, values, 100) for values in (VALUES, OTHERS)]
    found = mean_bootstrap(parts)
    assert found.score == pytest.approx(mean(VALUES + OTHERS))
    np.testing.assert_allclose(found.resampled, (parts[0].resampled + parts[1].resampled) / 2)


def test_one_image_has_no_spread():
    assert bootstrap_score(mean, [2.0], 10).interval() == (2.0, 2.0)


def test_a_score_that_is_not_defined_has_no_interval():
    found = bootstrap_score(lambda drawn: mean(drawn) if min(drawn) < 0 else np.nan, [-1, 1], 50)
    assert np.isnan(found.interval()).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), "one image or more, found none"),
        (([1.0], 0), "1 resample or more"),
        (([1.0], 5, -1), "a seed of at least 0, found 5 and -1"),
    ],
)
def test_what_cannot_be_resampled_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        bootstrap_score(mean, *arguments)


@pytest.mark.parametrize("level", [0, 1, -0.5, float("nan")])
def test_levels_out_of_range_are_refused(level):
    with pytest.raises(InputError, match="level: expected a share"):
        bootstrap_score(mean, VALUES, 5).interval(level)


def test_scores_of_other_resamples_do_not_compare():
    one = bootstrap_score(mean, VALUES, 5)
    for other in (
        bootstrap_score(mean, VALUES[:-1], 5),
        bootstrap_score(mean, VALUES, 6),
        bootstrap_score(mean, VALUES, 5, seed=1),
    ):
        with pytest.raises(InputError, match="expected scores of the same resamples"):
            one - other
        with pytest.raises(InputError, match="expected scores of the same resamples"):
            mean_bootstrap([one, other])
    with pytest.raises(InputError, match="found none"):
        mean_bootstrap([])
    assert isinstance(one - one, Bootstrap)
