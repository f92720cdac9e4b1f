"""Whole models with T5's own embedding, loss, norms and optimizer."""

import numpy as np
import tensorflow.compat.v1 as tf

from mtf_conv.measure import counting, graph, models
from mtf_conv.measure.speed import (
  decode,
  peak_memory,
  results,
  timing,
  whole_models,
)

FEW_IDS = 4096 - 28  # Ids are rounded up to a multiple of 128.
# What is timed: name of a model, rows, inputs, targets, ids.
CASES = (
    ('lightconv.mini', 32, 128, 29, models.VOCABULARY),
    ('transformer.mini', 32, 128, 29, models.VOCABULARY),
    ('lightconv.mini', 32, 128, 29, FEW_IDS),
    ('transformer.mini', 32, 128, 29, FEW_IDS),
    ('lightconv.small', 8, 512, 114, models.VOCABULARY),
    ('lightconv.base', 8, 512, 114, models.VOCABULARY),
)
DECODED = 64
_SIZE = 2048  # Of a square matrix whose product is the machine's limit.


def bench(seconds, cases=CASES, limit=True, memory=True, decoding=True,
          say=print):
  """Times models as T5 computes them, and as they are here.

  Args:
    seconds: for how long each case is timed.
    cases: like CASES.
    limit: whether the first case is compared with a large product.
    memory: whether the peak memory of the first case is measured.
    decoding: whether the first model decodes.
    say: is told of each case before it is measured.

  Returns:
    A list of results.row.
  """
  rows = []
  for number, (name, *shape) in enumerate(cases):
    path, = models.resolve(name)
    case = f'train step, {shape[0]} x {shape[1]}, {_rounded(shape[3])} ids'
    candidates = {
        f"{name} with T5's": whole_models.training_step(
            path, *shape, (), say, check=False, stock=True),
        name: whole_models.training_step(path, *shape, (), say, check=False)}
    if limit and not number:
      candidates['product'] = _product()
    times = timing.interleave(candidates, seconds, min_rounds=3, warm_up=1)
    rows += results.rows(case, times, [(f"{name} with T5's", name)])
    if limit and not number:
      rows.append(_of_limit(name, path, shape, times))
  name, *shape = cases[0]
  path, = models.resolve(name)
  if memory and peak_memory.can_measure():
    say('peak memory')
    ours, stock = (peak_memory.peak(path, *shape, stock=stock)
                   for stock in (False, True))
    rows.append(results.row(
        f'peak memory of a train step, {_rounded(shape[3])} ids: {name} / '
        f"{name} with T5's", ours / stock))
  if decoding:
    kind = name.split('.')[0]
    decoders = {}
    for label, bindings in ((f"{kind} with T5's", models.AS_ON_TPU),
                            (kind, ())):
      say(f'decoding by {label}')
      decoders[label] = decode.model(
          kind, 16, DECODED, bindings, steps=DECODED, check=False)
    times = timing.interleave(decoders, seconds, min_rounds=3, warm_up=1)
    rows += results.rows(f'greedy decoding, mini, batch 16, {DECODED} tokens',
                         times, [tuple(decoders)])
  return rows


def _rounded(ids):
  """How many ids a model has that was told of so many."""
  return f'{-(-ids // 128) * 128:,}'


def _product():
  """Multiplies two large matrices."""
  array = np.random.RandomState(0).randn(_SIZE, _SIZE).astype('float32')
  with graph.Builder() as builder:
    x, y = (tf.get_variable(name, array.shape) for name in 'xy')
    product = tf.matmul(x, y)
    sess = builder.session(builder.lower(), {'x': array, 'y': array})
  return graph.timed(sess, [product.op])


def _of_limit(name, path, shape, times):
  """The multiply-adds a second of a step over those of a large product."""
  models.parse([path])
  with graph.Builder() as builder:
    models.training(builder, *shape)
    share = counting.einsum(builder) / _SIZE**3
  ratio = times.ratio('product', name)
  return results.row(
      f'multiply-adds a second: train step of {name} / product of matrices',
      *(share * value for value in ratio), 1e3 * times.median(name),
      1e3 * times.median('product'))
