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
for _n, _goal, _peer in (
    (64, Goal('>=', 1.1, 1.3), Goal('>=', 1.5, 2)),
    (512, Goal('>=', 1.7, 2), Goal('>=', 1.5, 2)),
    (2048, Goal('>=', 4.5, 6), Goal('>=', 3, 5))):
  GOALS[f'train step: transformer N={_n} / lightconv N={_n}'] = _goal
  for _way in ('eager', 'compiled'):
    GOALS[f'train step: Hugging Face {_way} N={_n} / lightconv N={_n}'] = _peer
for _case, _names, _goal in (
    ('32 x 128, 32,128 ids', ('lightconv.mini', 'transformer.mini'),
     Goal('>=', 2.2, 3)),
    ('32 x 128, 4,096 ids', ('lightconv.mini', 'transformer.mini'),
     Goal('>=', 1.5, 2)),
    ('8 x 512, 32,128 ids', ('lightconv.small', 'lightconv.base'),
     Goal('>=', 1.15, 1.4))):
  for _name in _names:
    GOALS[f"train step, {_case}: {_name} with T5's / {_name}"] = _goal
GOALS.update({
    'multiply-adds a second: train step of lightconv.mini / product of '
    'matrices': Goal('>=', 0.55, 0.7),
    'peak memory of a train step, 32,128 ids: lightconv.mini / lightconv.mini '
    "with T5's": Goal('<=', 0.6, 0.4),
    'greedy decoding, mini, batch 16, 64 tokens: lightconv with T5\'s / '
    'lightconv': Goal('>=', 1.5, 2.5),
    'start-up: first step of lightconv.tiny / import tensorflow':
        Goal('<=', 4, 2.5),
    **{f'start-up: seconds of {name}': Goal('<=', 0.5, 0.3) for name in (
        'mtf_conv --help', 'mtf_conv list', 'a wrong flag of mtf_conv',
        't5_mesh_conv --help', 'a wrong flag of t5_mesh_conv')}})
for _library in ('', 'PyTorch, '):
  for _batch, _length, _bound in ((1, 64, 1), (16, 64, 1.3), (1, 512, 2),
                                  (16, 512, 2)):
    GOALS[f'{_library}{_length} tokens greedily, mini, 128 inputs, batch '
          f'{_batch}: transformer / lightconv'] = Goal('>=', _bound)
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
