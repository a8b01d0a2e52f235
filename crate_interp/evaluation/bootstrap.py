"""How far a score would move with other images: the bootstrap over the images' records.

Shapes: n images, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float, Int64

from crate_interp.errors import InputError

__all__ = [
    "Bootstrap",
    "Interval",
    "bootstrap_score",
    "bootstrap_scores",
    "draw_images",
    "mean_bootstrap",
]

RESAMPLES = 2000
LEVEL = 0.95

Record = TypeVar("Record")


class Interval(NamedTuple):
    """Confidence interval of a score.

    Attributes:
        low: Lower end.
        high: Upper end.
    """

    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """A score, and the scores of resampled images.

    Two of the same number of images and the same seed are of the same resamples, so that their
    difference is paired: it compares two models on the same images.

    Attributes:
        score: Score of the images themselves.
        resampled: Scores of the resamples.
        images: Number of images, n.
        seed: Seed of the resamples.
    """

    score: float
    resampled: Float[np.ndarray, " R"]
    images: int
    seed: int

    def interval(self, level: float = LEVEL) -> Interval:
        """Compute the interval between percentiles of the resamples.

        Args:
            level: Share of the resamples that it holds, above 0 and below 1.

        Returns:
            The interval; NaN where the score of a resample is not defined.

        Raises:
            InputError: The level is out of range.
        """
        if not 0 < level < 1:
            raise InputError(f"level: expected a share above 0 and below 1, found {level}")
        tail = 100 * (1 - level) / 2
        low, high = np.percentile(self.resampled, [tail, 100 - tail])
        return Interval(float(low), float(high))

    def __sub__(self, other: Bootstrap) -> Bootstrap:
        """Compute the paired difference of two scores of the same images.

        Raises:
            InputError: They are not of the same resamples.
        """
        _check_pairs([self, other])
        difference = self.resampled - other.resampled
        return Bootstrap(self.score - other.score, difference, self.images, self.seed)


def bootstrap_score(
    score: Callable[[Sequence[Record]], float],
    records: Sequence[Record],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Bootstrap:
    """Score the images, and as many images drawn from them with replacement, again and again.

    Whatever the score chooses by all images (a best head, a threshold) is chosen anew in each
    resample.

    Args:
        score: Score of the records of some images.
        records: Record of each image; the same images in the same order for scores to compare.
        resamples: Number of resamples, R, at least 1.
        seed: Seed of the choice of images, 0 or more.

    Raises:
        InputError: There is no record or no resample, or as the score.

    Reference:
        Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13: the percentile
        interval.
    """
    named = bootstrap_scores(lambda chosen: {"": score(chosen)}, records, resamples, seed)
    return named[""]


def bootstrap_scores(
    score: Callable[[Sequence[Record]], Mapping[str, float]],
    records: Sequence[Record],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Bootstrap]:
    """Resample several scores of the same images at once, as `bootstrap_score` does one.

    Args:
        score: Scores of the records of some images, by name.
        records: As `bootstrap_score`.
        resamples: As `bootstrap_score`.
        seed: As `bootstrap_score`.

    Raises:
        InputError: As `bootstrap_score`.
    """
    drawn = draw_images(len(records), resamples, seed).tolist()
    values = [score([records[number] for number in numbers]) for numbers in drawn]
    return {
        name: Bootstrap(
            float(whole), np.array([value[name] for value in values], float), len(records), seed
        )
        for name, whole in score(records).items()
    }


def draw_images(images: int, resamples: int, seed: int) -> Int64[np.ndarray, "R n"]:
    """Draw the images of each resample, with replacement.

    Args:
        images: Number of images, n.
        resamples: Number of resamples, R.
        seed: Seed of the choice.

    Raises:
        InputError: There is no image or no resample.
    """
    if not images:
        raise InputError("bootstrap: expected the record of one image or more, found none")
    if resamples < 1 or seed < 0:
        raise InputError(
            f"bootstrap: expected 1 resample or more and a seed of at least 0, found {resamples} "
            f"and {seed}"
        )
    return np.random.default_rng(seed).integers(0, images, (resamples, images))


def mean_bootstrap(parts: Sequence[Bootstrap]) -> Bootstrap:
    """Average scores of the same images, for instance of several seeds of one model.

    Raises:
        InputError: There is none, or they are not of the same resamples.
    """
    if not parts:
        raise InputError("bootstrap: expected one score or more to average, found none")
    _check_pairs(parts)
    resampled = np.mean([part.resampled for part in parts], axis=0)
    score = float(np.mean([part.score for part in parts]))
    return Bootstrap(score, resampled, parts[0].images, parts[0].seed)


def _check_pairs(parts: Sequence[Bootstrap]) -> None:
    kinds = sorted({(part.images, len(part.resampled), part.seed) for part in parts})
    if len(kinds) > 1:
        raise InputError(
            "bootstrap: expected scores of the same resamples, found (images, resamples, seed) "
            f"{kinds[0]} and {kinds[1]}"
        )
