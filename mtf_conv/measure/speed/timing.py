"""Ratios of times: one process, candidates in turn, medians."""

import random
import time
from typing import Callable, NamedTuple

import numpy as np


class Ratio(NamedTuple):
  """The time of one candidate over that of another, in the same rounds.

  Attributes:
    value: the median over the rounds.
    low: the lower quartile.
    high: the upper quartile.
  """

  value: float
  low: float
  high: float


class Times:
  """What `interleave` measured: seconds of each candidate in each round."""

  def __init__(self, seconds: dict):
    self._seconds = seconds

  def __contains__(self, name):
    return name in self._seconds

  def __iter__(self):
    return iter(self._seconds)

  def median(self, name) -> float:
    """Returns the seconds of a candidate."""
    return float(np.median(self._seconds[name]))

  def ratio(self, numerator, denominator) -> Ratio:
    """Compares two candidates.

    A round's times are divided before the median is taken: what slows the
    machine down for a while slows both.

    Args:
      numerator: the name of a candidate.
      denominator: the name of another.

    Returns:
      A Ratio.
    """
    return _quartiles(
        np.divide(self._seconds[numerator], self._seconds[denominator]))

  def seconds(self, name) -> Ratio:
    """Returns the seconds of a candidate, over one."""
    return _quartiles(self._seconds[name])


def _quartiles(values):
  low, value, high = np.quantile(values, [0.25, 0.5, 0.75])
  return Ratio(float(value), float(low), float(high))


def interleave(candidates: dict[str, Callable[[], object]], seconds: float,
               min_rounds=5, max_rounds=200, warm_up=2, short=0.1,
               clock=time.perf_counter) -> Times:
  """Times candidates in turn, round after round, each round in another order.

  Args:
    candidates: functions without arguments, by name. Each returns when its
      work is done.
    seconds: rounds begin until so much time has passed.
    min_rounds: how many rounds there are at least.
    max_rounds: and at most.
    warm_up: rounds that are not counted, at least one.
    short: a candidate that takes less, in seconds, is called once before the
      call that is timed, so that it finds the caches and the allocator as it
      left them itself; to longer ones that makes no difference.
    clock: a function that returns seconds.

  Returns:
    The Times.
  """
  names = list(candidates)
  order = random.Random(0)
  found = {name: [] for name in names}

  def time_of(name):
    begin = clock()
    candidates[name]()
    return clock() - begin

  for _ in range(warm_up):
    last = {name: time_of(name) for name in names}
  start = clock()
  for number in range(max_rounds):
    if number >= min_rounds and clock() - start >= seconds:
      break
    for name in order.sample(names, len(names)):
      if last[name] < short:
        candidates[name]()
      found[name].append(time_of(name))
  return Times(found)
