"""A local convolution of Mesh TensorFlow's own operations.

Slow and simple, with the gradient that Mesh TensorFlow derives: the reference
for whole models, whose layers take it in place of conv.local_conv.
"""

from mtf_conv import compat

compat.install()

import contextlib  # noqa: E402
from unittest import mock  # noqa: E402

import mesh_tensorflow as mtf  # noqa: E402
import tensorflow.compat.v1 as tf  # noqa: E402

from mtf_conv import conv  # noqa: E402


@contextlib.contextmanager
def convolutions():
  """What is built within has plain convolutions."""
  with mock.patch.object(conv, 'local_conv', local_conv):
    yield


def local_conv(x, filters, offsets, length_dim, segments=None, lowering=None):
  """See conv.local_conv; any lowering is this one."""
  del lowering
  taps_dim = filters.shape.dims[-1]
  filters = _spread(filters, x)
  products = []
  for tap, offset in enumerate(offsets):
    shifted = _shift(x, offset, length_dim)
    if segments:
      same = mtf.logical_and(
          mtf.equal(_shift(segments, offset, length_dim), segments),
          mtf.not_equal(segments, 0))
      shifted *= mtf.cast(same, x.dtype)
    products.append(shifted * mtf.gather(
        filters, mtf.constant(x.mesh, tap, mtf.Shape([]), tf.int32), taps_dim))
  return mtf.add_n(products)


def _shift(x, offset, length_dim):
  if abs(offset) >= length_dim.size:
    return mtf.zeros_like(x)
  return mtf.shift(x, -offset, length_dim, wrap=False)


def _spread(filters, x):
  """Gives every channel group of x its filter, if filters have their own."""
  new = [d for d in filters.shape.dims[:-1] if d not in x.shape.dims]
  if not new:
    return filters
  filters_dim, = new
  heads_dim = next(d for d in x.shape.dims if d.name == 'heads')
  heads = mtf.range(x.mesh, heads_dim, tf.int32)
  return mtf.gather(
      filters, mtf.floordiv(heads, heads_dim.size // filters_dim.size),
      filters_dim, output_shape=mtf.Shape(
          [heads_dim if d == filters_dim else d for d in filters.shape.dims]))
