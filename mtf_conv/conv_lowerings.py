"""Ways to compute a local convolution, and its gradients, on one device.

Here everything is plain TensorFlow, in one form:

    x, y, dy    [rows, length, groups, channels]; the channels share a filter
    filters     [groups, taps], or dynamic: [rows, length, groups, taps]
    segments    [rows, length], 0 is padding; None: rows are whole
    offsets     a list of integers, one per tap

A way to compute it is a class with three functions:

    convolve(x, filters, offsets)      y[i] = sum_j filters[(i,) j] x[i + o_j]
    correlate(x, dy, offsets, static)  the gradient of the filters
    transposed(dy, filters, offsets)   the gradient of x: unless there is a
                                       better way the convolution of dy, with
                                       `mirrored` filters
"""

import functools

import numpy as np
import tensorflow.compat.v1 as tf
from tensorflow.python.ops import control_flow_util

# Fewer channels do not fill a matrix product.
_MIN_BAND_CHANNELS = 8
# Under XLA, so many shifted copies still fuse into one loop.
_MAX_XLA_SLICES = 14
# On TPUs by docs/results/tpu/lowerings.csv. Up to this length, with at least so
# many channels that share a filter and so many taps, one product is best.
_MAX_MATRIX_LENGTH, _MIN_MATRIX_CHANNELS, _MIN_MATRIX_TAPS = 512, 384, 7
# Of what is left so many taps are slices, and more are bands.
_MAX_TPU_SLICES = 20


class _Mirrored:
  """The gradient of x as a convolution."""

  @classmethod
  def transposed(cls, dy, filters, offsets):
    """Returns the gradient of x."""
    return cls.convolve(dy, *mirrored(filters, offsets))


class Slices(_Mirrored):
  """Adds up shifted copies of x, tap by tap: any filters, any offsets."""

  @staticmethod
  def convolve(x, filters, offsets):
    """Returns y."""
    shifted = _shifted(x, offsets)
    return functools.reduce(tf.add, (
        filters[..., tap, None] * shifted(offset)
        for tap, offset in enumerate(offsets)))

  @staticmethod
  def correlate(x, dy, offsets, static):
    """Returns the gradient of the filters."""
    shifted = _shifted(x, offsets)
    return tf.stack(
        [tf.reduce_sum(shifted(offset) * dy, [0, 1, 3] if static else [3])
         for offset in offsets], -1)


class Depthwise(_Mirrored):
  """TensorFlow's depthwise convolution: static filters, offsets without gaps.

  Each product goes to the CPU kernel that is fast for it: length as the width
  of an image for y, and as its height for the filters, for which automatic
  differentiation takes up to forty times as long.
  """

  @staticmethod
  def convolve(x, filters, offsets):
    """Returns y."""
    left, right = -offsets[0], offsets[-1]
    if left < 0 or right < 0:  # Some padding would be negative.
      x, left, right = _padded(x, offsets), 0, 0
    rows, length, groups, channels = x.shape.as_list()
    filters = tf.repeat(tf.transpose(filters), channels, axis=1)
    y = tf.raw_ops.DepthwiseConv2dNative(
        input=tf.reshape(x, [rows, 1, length, groups * channels]),
        filter=filters[None, :, :, None], strides=[1] * 4, padding='EXPLICIT',
        explicit_paddings=[0, 0, 0, 0, left, right, 0, 0])
    return tf.reshape(y, [rows, -1, groups, channels])

  @staticmethod
  def correlate(x, dy, offsets, static):
    """Returns the gradient of the filters."""
    assert static
    padding = 'SAME'
    if offsets[0] != -offsets[-1]:
      x, padding = _padded(x, offsets), 'VALID'
    rows, length, groups, channels = dy.shape.as_list()
    taps = len(offsets)
    dfilters = tf.nn.depthwise_conv2d_backprop_filter(
        tf.reshape(x, [rows, -1, 1, groups * channels]),
        [taps, 1, groups * channels, 1],
        tf.reshape(dy, [rows, length, 1, groups * channels]), [1] * 4, padding)
    return tf.transpose(tf.reduce_sum(
        tf.reshape(dfilters, [taps, groups, channels]), -1))


class Band(_Mirrored):
  """Matrix products: any filters, offsets in equal steps.

  Each block of positions reads a window of x. The filters of a block, each
  moved one place further than the one before, are the rows of a band matrix,
  from window to block.
  """

  @staticmethod
  def convolve(x, filters, offsets):
    """Returns y."""
    length, block = x.shape.as_list()[1], _block_size(x, offsets)
    if _is_static(filters):
      filters = filters[None, None]
    # What sticks out of the sequence is not to be read.
    filters *= _inside(length, offsets, x.dtype)
    bands = _skewed(_spread(_blocks(filters, [0], block), offsets))
    return _unblocked(tf.matmul(bands, _blocks(x, offsets, block)), length)

  @staticmethod
  def correlate(x, dy, offsets, static):
    """Returns the gradient of the filters."""
    length, block = x.shape.as_list()[1], _block_size(x, offsets)
    bands = tf.matmul(_blocks(dy, [0], block), _blocks(x, offsets, block),
                      transpose_b=True)
    step = _step(offsets)
    dfilters = _unblocked(
        _unskewed(bands, _span(offsets))[..., ::step], length)
    dfilters *= _inside(length, offsets, x.dtype)
    return tf.reduce_sum(dfilters, [0, 1]) if static else dfilters


class Matrix:
  """One product along the whole length, as attention's: static filters.

  The matrix is zero but near its diagonal, and the same for all rows; where
  these have several segments it is masked, as attention is. It is made by
  comparing distances, so that nothing is moved: XLA fuses that. The work grows
  with the square of the length.
  """

  @classmethod
  def convolve(cls, x, filters, offsets, segments=None):
    """Returns y; segments as of this module."""
    matrix = cls._matrix(filters, offsets, x, segments)
    return tf.einsum(
        f'{"gim" if segments is None else "rgim"},rmgc->rigc', matrix, x)

  @classmethod
  def transposed(cls, dy, filters, offsets, segments=None):
    """Returns the gradient of x."""
    matrix = cls._matrix(filters, offsets, dy, segments)
    return tf.einsum(
        f'{"gim" if segments is None else "rgim"},rigc->rmgc', matrix, dy)

  @classmethod
  def correlate(cls, x, dy, offsets, static, segments=None):
    """Returns the gradient of the filters."""
    assert static
    dmatrix = tf.einsum('rigc,rmgc->rgim', dy, x)
    if segments is not None:
      dmatrix *= _readable(segments, x.dtype)
    dmatrix = tf.reduce_sum(dmatrix, 0)
    return tf.stack([tf.reduce_sum(
        tf.where_v2(tf.equal(_distances(x), offset), dmatrix, 0), [1, 2])
                     for offset in offsets], -1)

  @staticmethod
  def _matrix(filters, offsets, x, segments):
    """What takes positions m to i: [groups, i, m], or [rows, groups, i, m]."""
    matrix = tf.zeros([], filters.dtype)
    for tap, offset in enumerate(offsets):
      matrix = tf.where_v2(tf.equal(_distances(x), offset),
                           filters[:, tap, None, None], matrix)
    return matrix if segments is None else (
        matrix * _readable(segments, x.dtype))


def _distances(x):
  """How far from i position m is: [length, length], integers."""
  positions = tf.range(x.shape.as_list()[1])
  return positions - positions[:, None]


def _readable(segments, dtype):
  """Whether i may read m, which is 1 or 0: [rows, 1, i, m]."""
  readers, read = segments[:, None, :, None], segments[:, None, None]
  return tf.cast(tf.equal(readers, read) & tf.not_equal(readers, 0), dtype)


_LOWERINGS = {'depthwise': Depthwise, 'slices': Slices, 'band': Band,
              'matrix': Matrix}
NAMES = tuple(_LOWERINGS)


def supports(name, static, offsets):
  """Whether a way to compute it can do these filters and offsets."""
  step = _step(offsets)
  return {'slices': True, 'band': step is not None, 'matrix': static,
          'depthwise': static and step == 1}[name]


def convolve(name, x, filters, offsets, segments=None):
  """Returns y; name is one of NAMES, or None for what is fast here.

  Where rows have several segments the filters are no longer static, and what
  does not support that gives way.
  """
  return _call(_convolve, name, offsets, x, filters, segments)[0]


def gradients(name, x, filters, dy, offsets, segments=None):
  """Returns the gradients of x and of the filters; arguments as convolve."""
  return _call(_gradients, name, offsets, x, filters, segments, dy)


def _call(kernel, name, offsets, *tensors):
  """Calls kernel as a function in the graph, which all layers share.

  A copy of its operations in each layer would take longer to build than
  attention. Under XLA they are few, and would be copied in any case.

  Args:
    kernel: _convolve or _gradients.
    name: one of NAMES or None.
    offsets: a list.
    *tensors: the other arguments of kernel; a tf.Tensor or None each.

  Returns:
    What kernel returns.
  """
  if in_xla():
    return kernel(name, offsets, *tensors)
  specs = tuple(t if t is None else tf.TensorSpec(t.shape, t.dtype.base_dtype)
                for t in tensors)
  return _traced(kernel, name, tuple(offsets), specs)(
      *(t for t in tensors if t is not None))


@functools.lru_cache(maxsize=128)
def _traced(kernel, name, offsets, specs):
  """Returns kernel as a tf.function of the tensors that are not None."""
  def call(*tensors):
    tensors = iter(tensors)
    return kernel(name, offsets,
                  *(spec and next(tensors) for spec in specs))

  # In a graph of its own, so that nothing of the caller's (devices) stays.
  with tf.Graph().as_default():
    return tf.function(call, autograph=False).get_concrete_function(
        *(spec for spec in specs if spec))


def _convolve(name, offsets, x, filters, segments):
  def forward(lowering, x, filters):
    return lowering.convolve(x, filters, offsets),
  return _in_segments(forward, name, x, filters, offsets, segments)


def _gradients(name, offsets, x, filters, segments, dy):
  def backward(lowering, x, filters, dy):
    return (lowering.transposed(dy, filters, offsets),
            lowering.correlate(x, dy, offsets, _is_static(filters)))
  return _in_segments(backward, name, x, filters, offsets, segments, dy)


def mirrored(filters, offsets):
  """Returns the filters and offsets that take dy to the gradient of x.

  Position i of x is read by the tap of offset o at position i - o.
  """
  mirrored_offsets = [-offset for offset in reversed(offsets)]
  filters = tf.reverse(filters, [-1])
  if not _is_static(filters):
    filters = tf.stack(
        [_shifted(tap, [offset])(offset) for tap, offset in
         zip(tf.unstack(filters, axis=-1), mirrored_offsets)], -1)
  return filters, mirrored_offsets


def _in_segments(kernel, name, x, filters, offsets, segments, *dy):
  """Applies kernel(lowering, x, filters, *dy) so that segments stay apart.

  Args:
    kernel: a function that returns y, or the gradients of x and filters.
    name: one of NAMES or None.
    x: see above, as are the others.
    filters: a tf.Tensor.
    offsets: a list.
    segments: a tf.Tensor or None.
    *dy: nothing, or a tf.Tensor.

  Returns:
    A tuple of what kernel returns.
  """
  def lowering(static, several=False):
    if name and supports(name, static, offsets):
      return _LOWERINGS[name]
    return _LOWERINGS[fastest(x, static, offsets, several)]

  static = _is_static(filters)
  if segments is None:
    return kernel(lowering(static), x, filters, *dy)
  if lowering(static, several=True) is Matrix:  # It masks other segments.
    return kernel(_OfSegments(segments), x, filters, *dy)

  def several():
    """Each position has filters of its own, 0 at taps in other segments."""
    same = _same_segment(segments, offsets, x.dtype)
    result, *dfilters = kernel(lowering(False), x, same * filters, *dy)
    dfilters = [same * d for d in dfilters]
    if static:
      dfilters = [tf.reduce_sum(d, [0, 1]) for d in dfilters]
    return (result, *dfilters)

  if not static or in_xla():
    return several()

  def single():
    return kernel(lowering(True), x, filters, *dy)

  def single_padded():
    mask = tf.cast(is_real, x.dtype)[:, :, None, None]
    result, *dfilters = kernel(
        lowering(True), mask * x, filters, *(mask * d for d in dy))
    return (mask * result, *dfilters)

  is_real = tf.not_equal(segments, 0)
  longest = tf.reduce_max(segments, axis=1, keepdims=True)
  return tf.cond(
      tf.reduce_all(tf.equal(segments, longest) | ~is_real),
      lambda: tf.cond(
          tf.reduce_all(is_real), single, single_padded, strict=True),
      several, strict=True)


class _OfSegments:
  """Matrix, of rows of several segments."""

  def __init__(self, segments):
    self.convolve = functools.partial(Matrix.convolve, segments=segments)
    self.transposed = functools.partial(Matrix.transposed, segments=segments)
    self.correlate = functools.partial(Matrix.correlate, segments=segments)


def fastest(x, static, offsets, several=False):
  """The name of what is fast for filters and offsets where this is built.

  Args:
    x: see above.
    static: whether filters are the same at all positions.
    offsets: a list.
    several: whether rows have several segments, which static filters do not
      tell apart by themselves.
  """
  channels = x.shape.as_list()[3]
  can_band = (supports('band', static, offsets) and
              channels >= _MIN_BAND_CHANNELS and len(offsets) > 1)
  if on_tpu():
    if (static and x.dtype.base_dtype == tf.bfloat16
        and x.shape.as_list()[1] <= _MAX_MATRIX_LENGTH
        and channels >= _MIN_MATRIX_CHANNELS
        and len(offsets) >= _MIN_MATRIX_TAPS):
      return 'matrix'
    return 'band' if can_band and len(offsets) > _MAX_TPU_SLICES else 'slices'
  if in_xla():
    # On CPUs the depthwise kernels are far slower there.
    return 'band' if can_band and len(offsets) > _MAX_XLA_SLICES else 'slices'
  is_float32 = x.dtype.base_dtype == tf.float32
  if supports('depthwise', static, offsets) and is_float32:
    return 'depthwise'
  return 'band' if can_band else 'slices'


def in_xla():
  """Whether XLA compiles the graph that is being built, as on every TPU."""
  return control_flow_util.GraphOrParentsInXlaContext(tf.get_default_graph())


def on_tpu():
  """Whether the graph that is being built is for a TPU, by tpu.replicate."""
  graph = tf.get_default_graph()
  while graph is not None:
    context = control_flow_util.GetContainingXLAContext(
        graph._get_control_flow_context())
    if context is not None:
      return 'TPUReplicateContext' in (c.__name__ for c in type(context).mro())
    graph = getattr(graph, 'outer_graph', None)
  return False


def _is_static(filters):
  return len(filters.shape) == 2


def _same_segment(segments, offsets, dtype):
  """Whether a tap reads its own segment: [rows, length, 1, taps]."""
  shifted = _shifted(segments, offsets)
  same = [tf.equal(shifted(offset), segments) & tf.not_equal(segments, 0)
          for offset in offsets]
  return tf.cast(tf.stack(same, -1), dtype)[:, :, None]


def _padded(x, offsets):
  """Positions min(offsets) to length + max(offsets) of x, 0 outside of it."""
  first, last = min(offsets), max(offsets)
  paddings = [[0, 0]] * len(x.shape)
  paddings[1] = [max(0, -first), max(0, last)]
  padded = tf.pad(x, paddings)
  return padded[:, max(0, first):padded.shape.as_list()[1] - max(0, -last)]


def _shifted(x, offsets):
  """Returns a function: offset -> x at i + offset, for each position i."""
  padded, length = _padded(x, offsets), x.shape.as_list()[1]

  def shifted(offset):
    begin = offset - min(offsets)
    return padded[:, begin:begin + length]
  return shifted


# Blocks and bands.


def _step(offsets):
  """The distance between taps, None if it is not the same everywhere."""
  steps = set(np.diff(offsets)) or {1}
  step, = steps if len(steps) == 1 else (0,)
  return int(step) if step > 0 else None


def _span(offsets):
  return offsets[-1] - offsets[0] + 1


def _block_size(x, offsets):
  """Small blocks waste few products, large ones read few positions twice."""
  block = 128 if in_xla() else 32
  while block < _span(offsets) // 2:
    block *= 2
  return min(block, x.shape.as_list()[1])


def _inside(length, offsets, dtype):
  """Whether a tap reads within the sequence: [length, 1, taps]."""
  positions = np.arange(length)[:, None] + np.array(offsets)
  inside = (positions >= 0) & (positions < length)
  return tf.constant(inside[:, None], dtype)


def _blocks(x, offsets, block):
  """The windows that blocks of positions read.

  Args:
    x: a tf.Tensor, [rows, length, groups, channels].
    offsets: what a position reads; [0] for the blocks themselves.
    block: positions in a block.

  Returns:
    A tf.Tensor, [rows, blocks, groups, block + span of the offsets - 1,
    channels]. What lies outside of the sequence is some element of x.
  """
  rows, length, groups, channels = x.shape.as_list()
  num_blocks = -(-length // block)
  window = block + _span(offsets) - 1
  if not in_xla():
    # A single copy, which brings the groups to the front as well.
    starts = block * np.arange(num_blocks)[:, None, None]
    positions = np.clip(
        starts + offsets[0] + np.arange(window), 0, length - 1)
    indices = positions * groups + np.arange(groups)[:, None]
    return tf.gather(tf.reshape(x, [rows, length * groups, channels]),
                     tf.constant(indices, tf.int32), axis=1)
  # XLA fuses copies, and TPUs are slow at gathering.
  parts = -(-window // block)
  x = _padded(x, [offsets[0], offsets[-1]])
  missing = (num_blocks + parts - 1) * block - x.shape.as_list()[1]
  x = tf.pad(x, [[0, 0], [0, missing], [0, 0], [0, 0]])
  x = tf.reshape(x, [rows, -1, block, groups, channels])
  windows = tf.concat(
      [x[:, part:part + num_blocks] for part in range(parts)], 2)
  return tf.transpose(windows[:, :, :window], [0, 1, 3, 2, 4])


def _unblocked(blocks, length):
  """Blocks back to a sequence: [rows, length, groups, channels]."""
  rows, num_blocks, groups, block, channels = blocks.shape.as_list()
  x = tf.transpose(blocks, [0, 1, 3, 2, 4])
  x = tf.reshape(x, [rows, num_blocks * block, groups, channels])
  return x if num_blocks * block == length else x[:, :length]


def _spread(filters, offsets):
  """Filters with zeros where offsets have gaps: [..., taps] -> [..., span]."""
  step = _step(offsets)
  if step == 1:
    return filters
  *batch, taps = filters.shape.as_list()
  spread = tf.pad(filters[..., None], [[0, 0]] * (len(batch) + 1) +
                  [[0, step - 1]])
  return tf.reshape(spread, [*batch, taps * step])[..., :_span(offsets)]


def _skewed(filters):
  """Moves row i by i places: [..., block, span] -> [..., block, window]."""
  *batch, block, span = filters.shape.as_list()
  rows = tf.pad(filters, [[0, 0]] * (len(batch) + 1) + [[0, block]])
  flat = tf.reshape(rows, [*batch, block * (span + block)])
  window = span + block - 1
  return tf.reshape(flat[..., :block * window], [*batch, block, window])


def _unskewed(bands, span):
  """The inverse of _skewed: [..., block, window] -> [..., block, span]."""
  *batch, block, window = bands.shape.as_list()
  flat = tf.reshape(bands, [*batch, block * window])
  flat = tf.pad(flat, [[0, 0]] * len(batch) + [[0, block]])
  return tf.reshape(flat, [*batch, block, window + 1])[..., :span]
