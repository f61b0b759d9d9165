"""Statistics of answers: pure NumPy, the same result for the same answers. Shares are in percent throughout.

Intervals of paired differences are Tango's score intervals (Statistics in Medicine 17, 1998): they have a width where
no pair is discordant, and cover closely from a few dozen images on. Bounds that a decision rests on are conservative:
exact for one share (Clopper-Pearson), continuity-corrected for a paired drop, and a betting bound for means.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sait_deploy.errors import InvalidArgument
from sait_deploy.evaluation.estimate import Estimate

CONFIDENCE: Final = 0.95
"""Of two-sided intervals."""

_HALVINGS: Final = 100
_CLOSE: Final = 1e-13
_BOLDEST_BET: Final = 0.9
"""Share of the stake that a bet may lose: at 1 a single worst value would settle all."""

_ORDER_SEED: Final = 0
_MOST_IMAGES: Final = 10**9


def paired_difference(first_right: ArrayLike, second_right: ArrayLike) -> Estimate:
    """Returns in how many more images the first is right, in points, with Tango's 95 % score interval.

    Args:
        first_right: bool [n].
        second_right: bool [n], of the same images.

    Raises:
        InvalidArgument: the lengths differ, or nothing was given.
    """
    return difference_of_counts(*_discordant(first_right, second_right))


def difference_of_counts(lost: int, gained: int, images: int) -> Estimate:
    """Returns in how many more images the first is right, in points, with Tango's 95 % score interval.

    Args:
        lost: images that the first alone has right.
        gained: images that the second alone has right.
        images: all of them, those of both and of neither too.

    Raises:
        InvalidArgument: numbers of images that cannot be.
    """
    _check_counts(lost, gained, images)
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    value = (lost - gained) / images
    low, high = -_score_bound(gained, lost, images, z, 0.0), _score_bound(lost, gained, images, z, 0.0)
    return Estimate(100 * low, 100 * value, 100 * high)


def rank_correlation(first: ArrayLike, second: ArrayLike) -> float | None:
    """Returns Spearman's rank correlation, equal values sharing their mean rank; None where all of one are equal.

    Args:
        first: numbers [n].
        second: numbers [n], of the same images.
    """
    ranks = []
    for values in (first, second):
        _, place, count = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
        if len(count) < 2:
            return None
        own = (np.cumsum(count) - (count - 1) / 2)[place]
        ranks.append((own - own.mean()) / np.linalg.norm(own - own.mean()))
    return float(ranks[0] @ ranks[1])


def drop_upper_bound(lost: int, gained: int, images: int, confidence: float) -> float:
    """Returns a bound, in points, that the drop from dense to the other stays below with this confidence.

    It is the smaller of two: Tango's one-sided score bound with a continuity correction of half an image, and the
    exact bound of the share that dense alone has right, which no gain is set against. From thirty images and a
    confidence of 0.9 on, together they fall short of a drop of up to ten points no more often than they may, unless
    more than half of the images are discordant (enumerated in the tests). Without one discordant pair they are
    ``upper_bound`` of no event.

    Args:
        lost: images that dense alone has right.
        gained: images that the other alone has right.
        images: all of them, those of both and of neither too.
        confidence: between 0.5 and 1.

    Returns:
        Points, up to 100; below 0 where the other is better beyond doubt.

    Raises:
        InvalidArgument: numbers of images that cannot be, or a confidence that is none.
    """
    _check_confidence(confidence)
    _check_counts(lost, gained, images)
    score = 100 * _score_bound(lost, gained, images, NormalDist().inv_cdf(confidence), 0.5)
    return min(score, upper_bound(lost, images, confidence))


def upper_bound(events: int, images: int, confidence: float) -> float:
    """Returns the exact (Clopper-Pearson) upper bound of a share, in percent.

    It is the share at which no more than ``events`` of ``images`` have a probability of 1 less the confidence.

    Raises:
        InvalidArgument: more events than images, no images, or a confidence that is none.
    """
    _check_confidence(confidence)
    if not (0 <= events <= images and images >= 1):
        raise InvalidArgument(
            f"{events} events in {images} images cannot be", "give 0 <= events <= images, images >= 1"
        )
    if events == images:
        return 100.0
    unlikely = math.log1p(-confidence)
    return 100 * _crossing(lambda share: _log_at_most(events, images, share) <= unlikely, events / images, 1.0)


def images_needed(limit_percent: float, confidence: float, events: int = 0) -> int:
    """Returns the fewest images at which that many events keep ``upper_bound`` at or below the limit.

    Raises:
        InvalidArgument: a limit outside (0, 100), negative events, a confidence that is none, or a limit so small that
            it needs more than a thousand million images.
    """
    _check_confidence(confidence)
    if not 0 < limit_percent < 100:
        raise InvalidArgument(f"a limit of {limit_percent:g} % cannot be shown to hold", "give one between 0 and 100")
    if events < 0:
        raise InvalidArgument(f"{events} events cannot be", "give a number from 0")
    share, unlikely = limit_percent / 100, math.log1p(-confidence)

    def enough(images: int) -> bool:
        return images > events and images * share >= events and _log_at_most(events, images, share) <= unlikely

    high = events + 1
    while not enough(high):
        high *= 2
        if high > _MOST_IMAGES:
            raise InvalidArgument(f"a limit of {limit_percent:g} % needs more than {_MOST_IMAGES} images")
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def mean_lower_bound(values: ArrayLike, confidence: float) -> float:
    """Returns a bound that the mean of what the values were drawn from stays above with this confidence.

    It is the betting bound of Waudby-Smith and Ramdas (2024), valid for any distribution on [-1, 1] and any number of
    values: a bankroll bets against each mean that is too low, and one against which it grew 1 / (1 - confidence)-fold
    is refuted. The values are taken in an order shuffled by a fixed seed, so that the images' order has no say.

    Args:
        values: float [n] in [-1, 1], such as cosines; rounding beyond is cut off.
        confidence: between 0.5 and 1.

    Raises:
        InvalidArgument: no values, values that are not numbers or lie outside [-1, 1], or a confidence that is none.
    """
    _check_confidence(confidence)
    given = np.asarray(values, dtype=np.float64)
    if given.ndim != 1 or not given.size or not (np.abs(given) <= 1 + 1e-3).all():
        raise InvalidArgument("a mean is bounded from a non-empty list of numbers from -1 to 1")
    losses = np.random.default_rng(_ORDER_SEED).permutation((1 - given.clip(-1, 1)) / 2)
    bets, goal = _bets(losses, confidence), -math.log1p(-confidence)

    def refuted(mean: float) -> bool:
        stakes = np.minimum(bets, _BOLDEST_BET / (1 - mean))
        return float(np.log1p(stakes * (mean - losses)).sum()) >= goal

    most = math.nextafter(1.0, 0.0)
    worst = _crossing(refuted, float(losses.mean()), most) if refuted(most) else 1.0
    return 1 - 2 * worst


def _bets(losses: NDArray[np.float64], confidence: float) -> NDArray[np.float64]:
    """Returns how much to bet on each value, from the values before it alone, float64 [n]."""
    count = np.arange(1, losses.size + 1)
    # One imagined value of one half and a variance of a quarter stand for what is known before the first.
    means = (0.5 + np.cumsum(losses)) / (count + 1)
    variances = (0.25 + np.cumsum((losses - means) ** 2)) / (count + 1)
    before = np.concatenate([[0.25], variances[:-1]])
    bets: NDArray[np.float64] = np.sqrt(-2 * math.log1p(-confidence) / (losses.size * before))
    return bets


def _discordant(first: ArrayLike, second: ArrayLike) -> tuple[int, int, int]:
    """Returns in how many images only the first is right, in how many only the second, and how many there are."""
    one, other = np.asarray(first), np.asarray(second)
    if one.dtype != np.bool_ or other.dtype != np.bool_ or one.ndim != 1 or one.shape != other.shape or not one.size:
        raise InvalidArgument(
            f"answers {one.dtype} {list(one.shape)} and {other.dtype} {list(other.shape)} cannot be paired",
            "give one true or false per image for both, of the same images",
        )
    return int((one & ~other).sum()), int((~one & other).sum()), int(one.size)


def _score_bound(lost: int, gained: int, images: int, z: float, correction: float) -> float:
    """Returns the difference above (lost - gained) / images that lies z standard errors of its own from it."""
    observed = (lost - gained) / images
    if observed >= 1:
        return 1.0

    def refuted(difference: float) -> bool:
        # The likeliest share gained, were this the difference: the positive root of Tango's equation.
        half_b = (difference * (2 * images - lost + gained) - lost - gained) / 2
        root = math.sqrt(max(0.0, half_b * half_b + 2 * images * gained * difference * (1 - difference)))
        share_gained = max(0.0, -difference, (root - half_b) / (2 * images))
        variance = images * max(0.0, 2 * share_gained + difference * (1 - difference))
        return images * difference - (lost - gained) - correction >= z * math.sqrt(variance)

    return _crossing(refuted, observed, 1.0)


def _log_at_most(events: int, images: int, share: float) -> float:
    """Returns the logarithm of the probability of at most ``events`` among ``images``, each with this probability."""
    if share >= 1:
        return -math.inf if events < images else 0.0
    if share <= 0:
        return 0.0
    log_term = math.lgamma(images + 1) - math.lgamma(events + 1) - math.lgamma(images - events + 1)
    log_term += events * math.log(share) + (images - events) * math.log1p(-share)
    # Below the mean the terms fall off from the last; 32 standard deviations on, nothing is left of them.
    steps = np.arange(min(events, 64 + math.ceil(16 * math.sqrt(images))), dtype=np.float64)
    ratios = np.log(events - steps) - np.log(images - events + 1 + steps) + math.log1p(-share) - math.log(share)
    terms = np.concatenate([[0.0], np.cumsum(ratios)])
    largest = float(terms.max())
    return min(0.0, log_term + largest + math.log(float(np.exp(terms - largest).sum())))


def _crossing(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Returns the least number from ``low`` on at which a monotone condition holds, which it does at ``high``."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
        if high - low <= _CLOSE * max(abs(low), abs(high)):
            break
    return high


def _check_counts(lost: int, gained: int, images: int) -> None:
    if min(lost, gained) < 0 or lost + gained > images or images < 1:
        raise InvalidArgument(f"{lost} lost and {gained} gained of {images} images cannot be")


def _check_confidence(confidence: float) -> None:
    if not 0.5 <= confidence < 1:
        raise InvalidArgument(f"confidence {confidence!r} is none", "give a share such as 0.95")
