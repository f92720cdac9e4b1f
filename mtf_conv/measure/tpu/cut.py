"""A part of a model, which is compiled in the place of the whole.

It has the first block, and one block more of every kind. What the compiler says
of a block counts as often as the whole model has blocks of that kind; of the
optimizer, and of variables, in proportion to the parameters.
"""

import functools
import re
from typing import NamedTuple

from mtf_conv.base import gin_values
from mtf_conv.measure import graph, models
from mtf_conv.measure.tpu import estimates, step

_OF_PARAMETERS = ('optimizer', 'variables', estimates.COMMUNICATION)
_BLOCK = re.compile(r'coder/block_(\d+)/')


class Cut(NamedTuple):
  """A part of a model, from which the whole is reckoned.

  Attributes:
    bindings: of gin, that leave this part of the model.
    counts: how many blocks of the whole model each block stands for.
  """

  bindings: tuple
  counts: tuple


def cut(path) -> Cut:
  """Returns the part of a model that is compiled.

  The first block stands for itself: what comes before it is fused with it.

  Args:
    path: the model's gin file.
  """
  models.parse([path])
  sizes = gin_values.bound(step.FILTER_SIZES)
  kinds = sizes or [None] * gin_values.macro('num_layers')
  counts = [(kinds[0], 1), *((kind, kinds[1:].count(kind))
                             for kind in dict.fromkeys(kinds[1:]))]
  bindings = [f'num_layers = {len(counts)}']
  if sizes:
    bindings.append(f'{step.FILTER_SIZES} = {[kind for kind, _ in counts]}')
  return Cut(tuple(bindings), tuple(count for _, count in counts))


@functools.lru_cache(maxsize=None)
def growth(path) -> float:
  """Returns how many times the parameters of its part a model has.

  Args:
    path: the model's gin file.
  """
  part = cut(path)
  models.parse([path], [*models.AS_ON_TPU, *part.bindings])
  with graph.Builder() as builder:
    models.training(builder, 1, 8, 8)
    variables = builder.graph.trainable_variables
  return (sum(v.size * _times(v.name, part.counts) for v in variables)
          / sum(v.size for v in variables))


def _times(name, counts):
  """Returns how often the whole model has what is named so."""
  block = _BLOCK.search(name)
  return counts[int(block.group(1))] if block else 1


def whole(rows, counts, grown) -> dict:
  """Reckons the cycles of the whole model.

  Args:
    rows: estimates.Rows of the part that was compiled.
    counts: of Cut.
    grown: see growth.

  Returns:
    A dict from kinds, of estimates.KINDS, to cycles, and
    'not_estimated_bytes': what has no estimate reads and writes so many,
    transfers left out.
  """
  found, missing = {}, 0
  for row in rows:
    kind = estimates.kind(row)
    times = row.times * (grown if kind in _OF_PARAMETERS
                         else _times(row.name, counts))
    if row.cycles is not None:
      found[kind] = found.get(kind, 0) + times * row.cycles
    elif kind != estimates.COMMUNICATION:
      missing += times * row.bytes
  return {**{kind: round(found[kind]) for kind in estimates.KINDS
             if kind in found}, 'not_estimated_bytes': round(missing)}
