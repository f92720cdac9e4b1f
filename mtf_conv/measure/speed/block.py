"""The block: against its three products alone, and against other blocks."""

import mesh_tensorflow as mtf
import numpy as np
import tensorflow.compat.v1 as tf

from mtf_conv.measure import graph, models, reference
from mtf_conv.measure.speed import block_candidates, peers, results, timing

LENGTH = 512
SEGMENTS = 4  # In a packed row.
DENSE = 'three products'


def bench(seconds, tokens=4096, d_model=512, say=print):
  """Times blocks of light and dynamic convolutions of size 7 and 31.

  Args:
    seconds: for how long each case is timed, forward and with backward.
    tokens: how many there are, in rows of 512.
    d_model: the number of channels.
    say: is told of each case before it is measured.

  Returns:
    A list of results.row.

  Raises:
    errors.UserError: a candidate differs from the reference.
  """
  block_candidates.clear_gin()
  rows = []
  for filter_size in (7, 31):
    for dynamic in (False, True):
      for packed in (False, True):
        name = (f'{"dynamic" if dynamic else "light"} block k={filter_size}'
                + ' packed' * packed)
        say(name)
        rng = np.random.RandomState(0)
        compared = {
            DENSE: block_candidates.Dense(rng, d_model),
            'mtf_conv': block_candidates.GatedConv(
                rng, d_model, filter_size, dynamic)}
        if filter_size == 7 and not packed:
          # The release's filters are of about this size.
          compared['mesh-tensorflow'] = block_candidates.Released(
              rng, d_model, filter_size, dynamic)
          if not dynamic:
            compared['attention'] = block_candidates.Attention(rng, d_model)
        inputs = _Inputs(rng, tokens, d_model, SEGMENTS if packed else 1)
        candidates = _candidates(name, compared, inputs)
        if 'attention' in compared:
          candidates.update(_peers(name, compared, inputs))
        rows += _time(name, candidates, seconds)
  return rows


def _time(name, candidates, seconds):
  rows = []
  for mode in ('forward', 'forward+backward'):
    times = timing.interleave(
        {n: c.forward if mode == 'forward' else c.backward
         for n, c in candidates.items()}, seconds)
    # Libraries differ in their products: each is compared with its own.
    rows += results.rows(f'{name}, {mode}', times, [
        (n, _dense_of(n)) for n in candidates if n != _dense_of(n)])
  return rows


def _dense_of(candidate):
  library = candidate.split()[0]
  return f'{library} {DENSE}' if library in peers.LIBRARIES else DENSE


def _peers(name, compared, inputs):
  """Builds the blocks of other libraries and checks them."""
  kinds = {'dense': compared[DENSE], 'conv': compared['mtf_conv'],
           'attention': compared['attention']}
  expected = {kind: block.expected(inputs.x, inputs.dy, inputs.segments)
              for kind, block in kinds.items()}
  found = peers.make_blocks(
      inputs.x, {kind: block.variables for kind, block in kinds.items()},
      inputs.dy)
  for peer, (candidate, kind, names) in found.items():
    y, gradients = expected[kind]
    reference.check(f'{name}: {peer}', candidate.results(),
                    [y, gradients['x'], *(gradients[n] for n in names)])
  return {peer: candidate for peer, (candidate, _, _) in found.items()}


class _Inputs:
  """What all blocks are given."""

  def __init__(self, rng, tokens, d_model, segments):
    length = min(LENGTH, tokens)
    shape = (tokens // length, length, d_model)
    self.x, self.dy = rng.standard_normal((2, *shape)).astype('float32')
    # T5 gives a layer the segments of its rows, of whole rows as well.
    self.segments = np.broadcast_to(
        1 + np.arange(length) * segments // length, shape[:2]).astype('int32')
    self.dims = [mtf.Dimension(*d) for d in zip(
        ('batch', 'length', 'd_model'), shape)]


def _candidates(name, compared, inputs):
  """Builds the blocks and checks them."""
  weights, names = {}, {}
  with graph.Builder() as builder:
    x = builder.tensor(inputs.x, inputs.dims)
    dy = builder.tensor(inputs.dy, inputs.dims)
    segments = builder.tensor(inputs.segments, inputs.dims[:2])
    context = models.context(
        builder.mesh, inputs.dims, autoregressive=False,
        position=mtf.range(builder.mesh, inputs.dims[1], tf.int32),
        position_is_default=True, sequence_id=segments, inputs=segments)
    for candidate, block in compared.items():
      scope = candidate.replace(' ', '_')
      weights.update({f'{scope}/{variable}': array
                      for variable, array in block.variables.items()})
      others = len(builder.graph.trainable_variables)
      with tf.variable_scope(scope):
        y = block.call(context, x)
      variables = builder.graph.trainable_variables[others:]
      builder.add(candidate, y, dy, [x, *(v.outputs[0] for v in variables)])
      names[candidate] = ['x', *(
          v.name.partition('/')[2] for v in variables)]
    candidates = builder.candidates(weights)

  for candidate, functions in candidates.items():
    y, gradients = compared[candidate].expected(
        inputs.x, inputs.dy, inputs.segments)
    reference.check(
        f'{name}: {candidate}', functions.results(),
        [y, *(gradients[n] for n in names[candidate])])
  return candidates
