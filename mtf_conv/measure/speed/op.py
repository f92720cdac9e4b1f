"""The convolution alone: against a copy, and against others' ways to do it."""

import mesh_tensorflow as mtf
import numpy as np

from mtf_conv import conv
from mtf_conv.measure import graph, reference
from mtf_conv.measure.speed import peers, results, timing

GROUPS = 2  # H of the paper.
LENGTH = 512


def bench(seconds, tokens=8192, d_model=512, lowering=(), say=print):
  """Times the convolution.

  Args:
    seconds: for how long each case is timed, forward and with backward.
    tokens: how many there are, in rows of 512.
    d_model: the number of channels.
    lowering: those of conv.local_conv to be timed beside the one it chooses.
    say: is told of each case before it is measured.

  Returns:
    A list of results.row.

  Raises:
    errors.UserError: a candidate differs from the reference.
  """
  rows = []
  for filter_size in (7, 31):
    for dynamic in (False, True):
      name = f'{"dynamic" if dynamic else "light"} k={filter_size}'
      say(name)
      case = _Case(filter_size, dynamic, tokens, d_model)
      candidates = case.candidates(lowering, say)
      case.check(name, candidates)
      for mode in ('forward', 'forward+backward'):
        rows += _time(name, mode, candidates, seconds, lowering)
  return rows


def _time(name, mode, candidates, seconds, lowering):
  timed = {n: c.forward if mode == 'forward' else c.backward
           for n, c in candidates.items()}
  # Everything is compared with one forward copy.
  timed['copy'] = candidates['copy'].forward
  times = timing.interleave(timed, seconds)
  ours = [n for n in ('mtf_conv', *lowering) if n in timed]
  return results.rows(
      f'{name}, {mode}', times,
      [(n, 'copy') for n in ours] +
      [(n, 'mtf_conv') for n in timed if n not in ('copy', *ours)])


class _Case:
  """Inputs of a convolution, and what it has to give."""

  def __init__(self, filter_size, dynamic, tokens, d_model):
    rng = np.random.RandomState(0)
    length = min(LENGTH, tokens)
    shape = (tokens // length, length, GROUPS, d_model // GROUPS)
    filter_shape = (*shape[:2] * dynamic, GROUPS, filter_size)
    self.x = rng.randn(*shape).astype('float32')
    self.dy = rng.randn(*shape).astype('float32')
    self.filters = reference.softmax(
        rng.randn(*filter_shape)).astype('float32')
    self.offsets = conv.centred_offsets(filter_size)

  def candidates(self, lowering, say):
    dims = [mtf.Dimension(*d) for d in zip(
        ('batch', 'length', 'heads', 'd_kv'), self.x.shape)]
    batch, length, heads, _ = dims
    taps = mtf.Dimension('taps', len(self.offsets))
    dynamic = self.filters.ndim == 4
    with graph.Builder() as builder:
      x = builder.tensor(self.x, dims)
      dy = builder.tensor(self.dy, dims)
      filters = builder.tensor(
          self.filters, [batch, length] * dynamic + [heads, taps])
      builder.add('copy', x * 2, dy, [x])

      def add(name, **kwargs):
        builder.add(name, conv.local_conv(
            x, filters, self.offsets, length, **kwargs), dy, [x, filters])

      add('mtf_conv')
      for name in lowering:
        try:
          add(name, lowering=name)
        except ValueError:
          say(f'{name} cannot do this')
      if not dynamic:
        builder.add('mesh-tensorflow', _mesh_tensorflow(
            x, filters, self.offsets), dy, [x, filters])
      found = builder.candidates()
    return {**found,
            **peers.make_convolutions(self.x, self.filters, self.dy)}

  def check(self, name, candidates):
    flat = self.x.reshape(*self.x.shape[:2], -1)
    dy = self.dy.reshape(flat.shape)
    dx, dfilters = reference.local_conv_gradients(
        flat, self.filters, self.offsets, dy)
    y = reference.local_conv(flat, self.filters, self.offsets)
    expected = [y, dx, dfilters]
    for candidate, functions in candidates.items():
      is_copy = candidate == 'copy'
      reference.check(
          f'{name}: {candidate}',
          [f.reshape(e.shape)
           for f, e in zip(functions.results(), expected)],
          [2 * flat, 2 * dy] if is_copy else expected)


def _mesh_tensorflow(x, filters, offsets):
  """The convolution of mesh-tensorflow's released blocks, same filters."""
  batch, length, *channels = x.shape.dims
  depth = mtf.Dimension('d_model', mtf.Shape(channels).size)
  kernels = [mtf.reshape(mtf.broadcast(kernel, channels), [depth])
             for kernel in mtf.unstack(filters, filters.shape.dims[-1])]
  y = mtf.layers._depthwise_conv1d_hack(
      mtf.reshape(x, [batch, length, depth]), depth, length,
      offsets[0], offsets[-1], use_bias=False, kernel_depth_weights=kernels)
  return mtf.reshape(y, x.shape)
