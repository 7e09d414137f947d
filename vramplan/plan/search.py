"""The largest number that fits, with as few trials as possible: a trial is a prediction."""

from collections.abc import Callable

#: Bytes that are lacking at a number; 0 or less when it fits.
Gap = Callable[[int], int]


def largest(gap: Gap, low: int, high: int, *, near: int = 0) -> int | None:
    """A number of [low, high] that fits while the next does not (or is `high`); None when `low` does not fit.

    Where fitting is monotone it is the largest that fits. Guesses follow the line through the gaps of the two lowest
    numbers that failed, which is straight over long stretches; every fourth failure is followed by halving the
    interval, so that no shape of the gap makes it slow. `near` is a number that the answer is expected at. The upper
    end is looked for from below: a trial takes longer the larger its number.
    """
    if gap(low) > 0:
        return None
    fits, fails = low, max(near, low, 1)
    while (missing := gap(fails := min(4 * fails, high))) <= 0:
        if fails == high:
            return high
        fits = fails
    search = _Search(gap, fits, (fails, missing))
    if fits < near <= fails:
        search.around(near)
    return search.run()


class _Search:
    """An interval whose lower end fits and whose upper end does not."""

    def __init__(self, gap: Gap, fits: int, fails: tuple[int, int]) -> None:
        self._gap = gap
        self._fits = fits
        self._fails = fails  # the number and what it lacks
        self._before: tuple[int, int] | None = None  # the one that failed before it, further up

    def _try(self, number: int) -> bool:
        missing = self._gap(number)
        if missing > 0:
            self._before, self._fails = self._fails, (number, missing)
        else:
            self._fits = number
        return missing <= 0

    def around(self, near: int) -> None:
        """Close the interval around `near`, in steps that grow."""
        sign, step = (1, 1) if near < self._fails[0] and self._try(near) else (-1, 1)
        number = near + sign
        while self._fits < number < self._fails[0] and self._try(number) is (sign > 0):
            step *= 4
            number = near + sign * step

    def run(self) -> int:
        """The lower end once nothing lies between the ends."""
        failures, step = 0, 0
        while self._fails[0] - self._fits > 1:
            guess = self._middle if failures % 4 == 3 and not step else self._guess(step)
            if self._try(min(max(guess, self._fits + 1), self._fails[0] - 1)):
                step = max(step * 4, 1)
            else:
                failures, step = failures + 1, 0
        return self._fits

    @property
    def _middle(self) -> int:
        return (self._fits + self._fails[0]) // 2

    def _guess(self, step: int) -> int:
        """Where the line reaches 0; when that fits already, steps up from what fits until one fails; the middle."""
        if self._before is None or self._before[1] <= self._fails[1]:
            return self._middle
        (upper, lacks_more), (lower, lacks) = self._before, self._fails
        root = lower - -(-lacks * (upper - lower) // (lacks_more - lacks))
        if root > self._fits:
            return root
        return self._fits + step if step else self._middle
