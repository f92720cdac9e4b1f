"""What the project asks of each ratio, by the name of its row."""

from typing import NamedTuple


class Goal(NamedTuple):
  """A bound that is required and one that is hoped for.

  Attributes:
    sense: '<=' or '>='.
    required: a ratio.
    hoped: a ratio, or None.
  """

  sense: str
  required: float
  hoped: float = None

  def met(self, ratio) -> str:
    """Returns 'hoped', 'required' or 'no'."""
    if self.hoped is not None and self._holds(ratio, self.hoped):
      return 'hoped'
    return 'required' if self._holds(ratio, self.required) else 'no'

  def _holds(self, ratio, bound):
    return ratio <= bound if self.sense == '<=' else ratio >= bound


_BOTH = 'forward+backward'

GOALS = {
    'light k=7, forward: mtf_conv / copy': Goal('<=', 2.5, 1.6),
    f'light k=7, {_BOTH}: mtf_conv / copy': Goal('<=', 9, 6),
    'light k=31, forward: mtf_conv / copy': Goal('<=', 4, 2.5),
    f'light k=31, {_BOTH}: mtf_conv / copy': Goal('<=', 15, 9),
    f'light k=7, {_BOTH}: mesh-tensorflow / mtf_conv': Goal('>=', 7, 12),
    f'light k=31, {_BOTH}: mesh-tensorflow / mtf_conv': Goal('>=', 10, 20),
    'dynamic k=7, forward: mtf_conv / copy': Goal('<=', 9, 5),
    f'dynamic k=7, {_BOTH}: mtf_conv / copy': Goal('<=', 23, 12),
    'dynamic k=31, forward: mtf_conv / copy': Goal('<=', 15),
    f'dynamic k=31, {_BOTH}: mtf_conv / copy': Goal('<=', 34),
}
for _k in (7, 31):
  for _case, _forward, _train in (
      (f'light block k={_k}', Goal('<=', 1.15, 1.05), Goal('<=', 1.2, 1.08)),
      (f'dynamic block k={_k}', Goal('<=', 1.3, 1.1), Goal('<=', 1.4, 1.15)),
      # Several segments a row may cost more, whatever the filters are.
      (f'light block k={_k} packed', Goal('<=', 1.4), Goal('<=', 1.4)),
      (f'dynamic block k={_k} packed', Goal('<=', 1.4), Goal('<=', 1.4))):
    GOALS[f'{_case}, forward: mtf_conv / three products'] = _forward
    GOALS[f'{_case}, {_BOTH}: mtf_conv / three products'] = _train
for _n, _goal in ((64, Goal('>=', 1.1, 1.3)), (512, Goal('>=', 1.7, 2.5)),
                  (2048, Goal('>=', 5, 8))):
  GOALS[f'train step: transformer N={_n} / lightconv N={_n}'] = _goal
for _n in (128, 256, 512, 1024, 2048, 4096):
  GOALS[f'train step: lightconv N={_n} / lightconv N=64'] = Goal('<=', 1)
for _n, _bound in ((512, 1), (2048, 0.5)):
  GOALS[f'peak memory of a train step: lightconv N={_n} / '
        f'transformer N={_n}'] = Goal('<=', _bound)
for _n in (128, 256, 512, 1024, 2048, 4096):
  GOALS[f'decoding, one layer: lightconv N={_n} / lightconv N=64'] = Goal(
      '<=', 1.2)
GOALS['decoding, one layer: lightconv N=64 / attention N=64'] = Goal(
    '<=', 0.5, 0.3)
for _batch in (1, 16):
  for _n in (64, 256, 1024, 4096):
    GOALS[f'greedy decoding, batch {_batch}: transformer N={_n} / '
          f'lightconv N={_n}'] = Goal('>=', 1)
for _kind in ('lightconv', 'dilatedconv', 'dynamicconv'):
  for _what in ('building', 'operations of', 'trainable variables of'):
    GOALS[f'{_what} a base train graph: {_kind} / transformer'] = Goal('<=', 1)
