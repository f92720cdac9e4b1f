"""A local convolution of Mesh TensorFlow's own operations.

Slow and simple, with the gradient that Mesh TensorFlow derives: the reference
for whole models, whose layers take it in place of conv.local_conv.
"""

import gin
import mesh_tensorflow as mtf
import tensorflow.compat.v1 as tf

import mtf_conv.layers  # noqa: F401, of which there are bindings


def bind():
  """Binds it, from now on, for all convolutions of models that gin makes."""
  gin.parse_config([
      f'mtf_conv.layers.{layer}.lowering = @mtf_conv.measure.local_conv'
      for layer in ('LightConv', 'DynamicConv', 'DilatedConv')])


@gin.configurable(module='mtf_conv.measure')
def local_conv(x, filters, offsets, length_dim, segments=None):
  """See conv.local_conv."""
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
