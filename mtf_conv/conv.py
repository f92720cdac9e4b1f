r"""The local convolution: one Mesh TensorFlow operation and its gradient.

For every position i and channel c,

    y[i, c] = sum_j w[c, j] * x[i + offsets[j], c]

where w is one filter per channel or shared by many of them, and may differ
from position to position (a dynamic convolution). A tap that falls outside of
the sequence, or into another segment than position i, counts as zero. Segment 0
is padding: it is not read, and y is 0 there.

Equation 1 of the paper is `centred_offsets`; a decoder takes `causal_offsets`.
This module knows nothing of layers, gin or T5.
"""

from mtf_conv import compat

compat.install()

import mesh_tensorflow as mtf  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow.compat.v1 as tf  # noqa: E402
from mesh_tensorflow import placement_mesh_impl  # noqa: E402
from tensorflow.python.ops import control_flow_util  # noqa: E402


def centred_offsets(filter_size, dilation_rate=1):
  """Offsets of equation 1: j - ceil((k + 1) / 2) for j = 1 ... k.

  A filter of odd size k reads [i - (k-1)/2, i + (k-1)/2], one of even size
  [i - k/2, i + k/2 - 1], both times the dilation rate.

  Args:
    filter_size: k, the number of taps, an integer >= 1.
    dilation_rate: the distance between taps, an integer >= 1.

  Returns:
    A list of k integers, in the order of the taps.
  """
  centre = (filter_size + 2) // 2
  return [(j - centre) * dilation_rate for j in range(1, filter_size + 1)]


def causal_offsets(filter_size, dilation_rate=1):
  """Offsets of a decoder: the receptive field is [i - (k-1) * dilation, i].

  Args:
    filter_size: k, the number of taps, an integer >= 1.
    dilation_rate: the distance between taps, an integer >= 1.

  Returns:
    A list of k integers, in the order of the taps.
  """
  return [(j - filter_size) * dilation_rate for j in range(1, filter_size + 1)]


def local_conv(x, filters, offsets, length_dim, segments=None):
  """Convolves x with filters along length_dim.

  Args:
    x: a Tensor, shape [..., length_dim, ...].
    filters: a Tensor of the dtype of x. Its last dimension are the taps, its
      others are dimensions of x: none of length_dim for the same filter at
      every position, with it (and the batch dimensions) for a dynamic one.
    offsets: a list of integers, one per tap: position i reads i + offset.
    length_dim: the Dimension of x along which to convolve.
    segments: None, or an integer Tensor of dimensions of x, among them
      length_dim: which segment a position belongs to, 0 for padding.

  Returns:
    A Tensor of the shape and dtype of x.

  Raises:
    ValueError: shapes that do not fit.
  """
  return LocalConvOperation(x, filters, offsets, length_dim, segments).outputs[
      0]


def _check(x, filters, offsets, length_dim, segments):
  if length_dim not in x.shape.dims:
    raise ValueError(f'x {x.shape} has no dimension {length_dim}')
  taps_dim = filters.shape.dims[-1]
  if taps_dim.size != len(offsets):
    raise ValueError(
        f'filters have {taps_dim.size} taps, but there are {len(offsets)} '
        f'offsets {offsets}')
  for name, tensor, dims in (('filters', filters, filters.shape.dims[:-1]),
                             ('segments', segments,
                              segments.shape.dims if segments else ())):
    unknown = [d for d in dims if d not in x.shape.dims]
    if unknown:
      raise ValueError(
          f'{name} {tensor.shape} has dimensions {unknown} that x {x.shape} '
          'does not have')
  if segments and length_dim not in segments.shape.dims:
    raise ValueError(f'segments {segments.shape} has no dimension {length_dim}')
  if filters.dtype != x.dtype:
    raise ValueError(f'filters are {filters.dtype}, but x is {x.dtype}')


class LocalConvOperation(mtf.Operation):
  """See local_conv."""

  def __init__(self, x, filters, offsets, length_dim, segments=None):
    _check(x, filters, offsets, length_dim, segments)
    super().__init__([x, filters] + ([segments] if segments else []),
                     name='local_conv')
    self.offsets = tuple(offsets)
    self.length_dim = length_dim
    self._outputs = [mtf.Tensor(self, x.shape, x.dtype)]

  def gradient(self, grad_ys):
    """Returns the gradients of x and filters, and None for segments."""
    dx, dfilters = _LocalConvGradOperation(self, grad_ys[0]).outputs
    return [dx, dfilters] + [None] * (len(self.inputs) - 2)

  def lower(self, lowering):
    """Lowers to each processor's slice."""
    slices = _Slices(self, lowering)
    y, = slices.run(slices.convolve, self.inputs, self.outputs)
    lowering.set_tensor_lowering(self.outputs[0], y)
    slices.count_multiply_adds(1)


class _LocalConvGradOperation(mtf.Operation):
  """From dy: the gradients of a LocalConvOperation for x and for filters."""

  def __init__(self, forward, dy):
    super().__init__([dy, *forward.inputs], name='local_conv_grad')
    x, filters = forward.inputs[:2]
    self._forward = forward
    self._outputs = [mtf.Tensor(self, x.shape, x.dtype, index=0),
                     mtf.Tensor(self, filters.shape, filters.dtype, index=1)]

  def lower(self, lowering):
    slices = _Slices(self._forward, lowering)

    def gradients(dy, x, filters, segments=None):
      # TensorFlow prunes the forward pass, of which only autodiff has need.
      y, = slices.convolve(x, filters, segments)
      # The filters of a dynamic convolution are made from x: stop there.
      return tuple(tf.gradients(
          y, [x, filters], dy, stop_gradients=[x, filters]))

    dx, dfilters = slices.run(gradients, self.inputs, self.outputs)
    lowering.set_tensor_lowering(self.outputs[0], dx)
    lowering.set_tensor_lowering(
        self.outputs[1], slices.sum_over_split_dims(dfilters))
    slices.count_multiply_adds(2)


class _Slices:
  """The convolution on each processor's slice of x, under any layout.

  Where length_dim is split, every processor of that axis gathers the whole
  length, convolves all of it and keeps its own part.
  """

  def __init__(self, forward, lowering):
    self._lowering = lowering
    self._mesh_impl = lowering.mesh_impl(forward)
    self._x, self._filters = forward.inputs[:2]
    self._segments = forward.inputs[2] if len(forward.inputs) > 2 else None
    self._offsets = forward.offsets
    self._length_dim = forward.length_dim
    self._length_mesh_axis = self._mesh_impl.tensor_dimension_to_mesh_axis(
        forward.length_dim)

  def run(self, fn, inputs, outputs):
    """Applies fn to the slices of inputs; returns the slices of outputs."""
    laid_out = [self._gathered(t) for t in inputs]
    results = self._mesh_impl.slicewise(fn, *laid_out)
    return [self._scattered(t, r) for t, r in zip(outputs, results)]

  def _split_axis(self, tensor):
    """The axis of tensor along which its length is split, or None."""
    if (self._length_mesh_axis is None or
        self._length_dim not in tensor.shape.dims):
      return None
    return tensor.shape.dims.index(self._length_dim)

  def _gathered(self, tensor):
    laid_out = self._lowering.tensors[tensor]
    axis = self._split_axis(tensor)
    if axis is None:
      return laid_out
    return self._mesh_impl.allconcat(
        laid_out.to_laid_out_tensor(), self._length_mesh_axis, axis)

  def _scattered(self, tensor, laid_out):
    axis = self._split_axis(tensor)
    if axis is None:
      return laid_out
    return self._mesh_impl.allsplit(laid_out, self._length_mesh_axis, axis)

  def sum_over_split_dims(self, dfilters):
    """Adds up what processors found from the parts of x that each has."""
    split = self._mesh_impl.tensor_layout(self._x).tensor_axis_to_mesh_axis
    kept = self._mesh_impl.tensor_layout(
        self._filters).tensor_axis_to_mesh_axis
    summed = [axis for axis in split if axis is not None and
              axis not in kept and axis != self._length_mesh_axis]
    if not summed:
      return dfilters
    size = self._mesh_impl.laid_out_size(self._filters.shape)
    return mtf.LazyAllreduceSum(
        self._mesh_impl, dfilters, summed,
        add_counter_fn=lambda: self._lowering.add_counter(
            f'allreduce/{summed}/local_conv', size))

  def count_multiply_adds(self, passes):
    taps = len(self._offsets)
    self._lowering.add_counter(
        'einsum', passes * taps * self._mesh_impl.laid_out_size(self._x.shape))
    self._lowering.add_counter(
        'einsum_unique', passes * taps * self._x.shape.size)

  def convolve(self, x, filters, segments=None):
    """The convolution of one slice.

    Args:
      x: a tf.Tensor with the dimensions of the operation's x.
      filters: a tf.Tensor with those of its filters.
      segments: None, or a tf.Tensor with those of its segments.

    Returns:
      A tuple of one tf.Tensor of the shape of x.
    """
    x_dims = self._x.shape.dims
    axis = x_dims.index(self._length_dim)
    taps = [_align(tap, self._filters.shape.dims[:-1], x_dims)
            for tap in tf.unstack(filters, axis=-1)]
    if segments is not None:
      segments = _align(segments, self._segments.shape.dims, x_dims)
    if not self._has_depthwise_primitive():
      return _shifted_products(x, taps, self._offsets, axis, segments),
    if segments is None:
      return _depthwise(x, taps, self._offsets, axis),

    # Rows with a single segment, of which padding is zero, need no masks
    # between taps.
    real = tf.not_equal(segments, 0)
    longest = tf.reduce_max(segments, axis=axis, keepdims=True)
    mask = tf.cast(real, x.dtype)
    return tf.cond(
        tf.reduce_all(tf.equal(segments, longest) | ~real),
        lambda: mask * _depthwise(mask * x, taps, self._offsets, axis),
        lambda: _shifted_products(x, taps, self._offsets, axis, segments)),

  def _has_depthwise_primitive(self):
    """Whether TensorFlow's depthwise convolution does this one, and well.

    It does static filters without gaps. On the CPU it is several times faster
    than shifted products; under XLA, and so on TPUs, far slower.
    """
    x_dims = self._x.shape.dims
    channels = x_dims[x_dims.index(self._length_dim) + 1:]
    in_xla = control_flow_util.GraphOrParentsInXlaContext(
        tf.get_default_graph())
    return (isinstance(self._mesh_impl, placement_mesh_impl.PlacementMeshImpl)
            and not in_xla
            and self._x.dtype == tf.float32
            and bool(channels)
            and all(d in channels for d in self._filters.shape.dims[:-1])
            and self._offsets == tuple(
                range(self._offsets[0], self._offsets[-1] + 1)))


def _shifted_products(x, taps, offsets, axis, segments=None):
  """Pads x once, then adds up its shifted copies, tap by tap.

  Args:
    x: a tf.Tensor.
    taps: a list of tf.Tensors that broadcast to x, one per offset.
    offsets: a list of integers.
    axis: the axis of x along which to convolve.
    segments: None, or a tf.Tensor that broadcasts to x; 0 is padding.

  Returns:
    A tf.Tensor of the shape of x.
  """
  length = x.shape[axis]
  padding = [max(0, -min(offsets)), max(0, max(offsets))]

  def pad(tensor):
    paddings = [[0, 0]] * len(tensor.shape)
    paddings[axis] = padding
    return tf.pad(tensor, paddings)

  def shift(padded, offset):
    begin = [0] * len(padded.shape)
    size = [-1] * len(padded.shape)
    begin[axis] = padding[0] + offset
    size[axis] = length
    return tf.slice(padded, begin, size)

  padded_x = pad(x)
  if segments is not None:
    padded_segments = pad(segments)
    real = tf.not_equal(segments, 0)
  y = None
  for tap, offset in zip(taps, offsets):
    shifted = shift(padded_x, offset)
    if segments is not None:
      same = tf.equal(shift(padded_segments, offset), segments) & real
      shifted *= tf.cast(same, x.dtype)
    y = tap * shifted if y is None else y + tap * shifted
  return y


def _depthwise(x, taps, offsets, axis):
  """As _shifted_products, by TensorFlow's depthwise convolution.

  Args:
    x: a tf.Tensor, channels after axis.
    taps: as in _shifted_products, with nothing before the channels.
    offsets: consecutive integers.
    axis: the axis of x along which to convolve.

  Returns:
    A tf.Tensor of the shape of x.
  """
  shape = x.shape.as_list()
  channels = shape[axis + 1:]
  num_channels = int(np.prod(channels))
  # [taps, channels]: a tap that channels share is repeated for each of them.
  filters = tf.stack([
      tf.reshape(tf.broadcast_to(tf.reshape(tap, tap.shape[axis + 1:]),
                                 channels), [num_channels]) for tap in taps])
  rows = tf.reshape(x, [-1, shape[axis], num_channels])
  return tf.reshape(
      _depthwise_rows(offsets[0], offsets[-1])(rows, filters), shape)


def _depthwise_rows(first, last):
  """Returns a function of [rows, length, channels] and [taps, channels].

  Each of its three products goes to the kernel that is fast for it: the
  automatic gradient for the filters is up to forty times slower.

  Args:
    first: the offset of the first tap.
    last: the offset of the last.
  """
  def convolve(x, filters, first, last):
    # Taps to the right of 0 are reached by padding at the right, and so on;
    # where all are on one side of 0, what sticks out is cut.
    padded = tf.pad(x, [[0, 0], [max(0, -first), max(0, last)], [0, 0]])
    padded = padded[:, max(0, first):
                    padded.shape[1] - max(0, -last)]
    y = tf.nn.depthwise_conv2d(
        padded[:, None], filters[None, :, :, None], [1, 1, 1, 1], 'VALID')
    return y[:, 0], padded

  @tf.custom_gradient
  def product(x, filters):
    y, padded = convolve(x, filters, first, last)

    def gradient(dy):
      dx, _ = convolve(dy, tf.reverse(filters, [0]), -last, -first)
      taps, channels = filters.shape.as_list()
      dfilters = tf.nn.depthwise_conv2d_backprop_filter(
          padded[:, :, None], [taps, 1, channels, 1], dy[:, :, None],
          [1, 1, 1, 1], 'VALID')
      return dx, dfilters[:, 0, :, 0]
    return y, gradient
  return product


def _align(tensor, dims, x_dims):
  """Transposes and expands a tensor of some of x_dims to broadcast to x."""
  order = sorted(range(len(dims)), key=lambda i: x_dims.index(dims[i]))
  tensor = tf.transpose(tensor, order)
  for axis, dim in enumerate(x_dims):
    if dim not in dims:
      tensor = tf.expand_dims(tensor, axis)
  return tensor
