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

import math

import mesh_tensorflow as mtf
import tensorflow.compat.v1 as tf

from mtf_conv import conv_lowerings
from mtf_conv.base import mesh


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


def local_conv(x, filters, offsets, length_dim, segments=None, lowering=None):
  """Convolves x with filters along length_dim.

  Args:
    x: a Tensor, shape [rows..., length_dim, channels...].
    filters: a Tensor of the dtype of x, shape [groups..., taps] for the same
      filters at every position, [rows..., length_dim, groups..., taps] for
      dynamic ones (rows that are left out share theirs). The groups are the
      first dimensions of channels, and those after them share a filter; or one
      dimension that x does not have, of a size N that divides that of the first
      of channels: filter n is for the n-th of N equal parts of it.
    offsets: a list of integers, one per tap: position i reads i + offset.
    length_dim: the Dimension of x along which to convolve.
    segments: None, or an integer Tensor, shape [rows..., length_dim]: which
      segment a position belongs to, 0 for padding.
    lowering: 'depthwise', 'slices', 'band' or 'matrix', see conv_lowerings;
      None for the one that is fast where the graph is lowered. A row of several
      segments needs filters for every position, which 'depthwise' leaves to
      'band'.

  Returns:
    A Tensor of the shape and dtype of x.

  Raises:
    ValueError: shapes that do not fit, or a lowering that cannot do this.
  """
  return LocalConvOperation(
      x, filters, offsets, length_dim, segments, lowering).outputs[0]


class LocalConvOperation(mtf.Operation):
  """See local_conv.

  Attributes:
    offsets: a list of integers.
    length_dim: a Dimension.
    lowering: a name or None.
    segments: a Tensor or None.
    row_dims: the dimensions of x before length_dim.
    channel_dims: those after it.
    group_dims: the dimensions of filters between length_dim and taps.
    filters_dim: the one of these that x does not have, or None.
  """

  def __init__(self, x, filters, offsets, length_dim, segments=None,
               lowering=None):
    super().__init__([x, filters] + ([segments] if segments else []),
                     name='local_conv')
    if length_dim not in x.shape.dims:
      raise ValueError(f'x {x.shape} has no dimension {length_dim}')
    self.offsets = list(offsets)
    self.length_dim = length_dim
    self.lowering = lowering
    self.segments = segments
    axis = x.shape.dims.index(length_dim)
    self.row_dims = x.shape.dims[:axis]
    self.channel_dims = x.shape.dims[axis + 1:]
    self.group_dims = [d for d in filters.shape.dims[:-1]
                       if d not in [*self.row_dims, length_dim]]
    new_dims = [d for d in self.group_dims if d not in self.channel_dims]
    self.filters_dim = new_dims[0] if new_dims else None
    self._check(x, filters)
    self._outputs = [mtf.Tensor(self, x.shape, x.dtype)]

  @property
  def is_static(self):
    """Whether the filters are the same at every position of every row."""
    return len(self.inputs[1].shape) == len(self.group_dims) + 1

  def gradient(self, grad_ys):
    """Returns the gradients of x and filters, and None for segments."""
    dx, dfilters = LocalConvGradOperation(self, grad_ys[0]).outputs
    return [dx, dfilters] + [None] * (len(self.inputs) - 2)

  def lower(self, lowering):
    """Lowers to each processor's slice."""
    slices = _Slices(self, lowering)
    y, = slices.run(slices.convolve, self.inputs, self.outputs)
    lowering.set_tensor_lowering(self.outputs[0], y)
    slices.count_multiply_adds(1)

  def _check(self, x, filters):
    positions = [*self.row_dims, self.length_dim]
    if self.filters_dim:
      groups = [self.filters_dim]
      if (not self.channel_dims or
          self.channel_dims[0].size % self.filters_dim.size):
        raise ValueError(
            f'filters {filters.shape}: {self.filters_dim} does not divide the '
            f'first dimension of {self.channel_dims} of x')
    else:
      groups = self.channel_dims[:len(self.group_dims)]
    taps_dim = filters.shape.dims[-1]
    expected = [d for d in positions if d in filters.shape.dims]
    if filters.shape.dims != [*expected, *groups, taps_dim]:
      raise ValueError(
          f'filters {filters.shape} must have the dimensions of x {x.shape}, '
          'in its order, then taps')
    if self.segments:
      dims = self.segments.shape.dims
      if self.length_dim not in dims or dims != [
          d for d in positions if d in dims]:
        raise ValueError(
            f'segments {self.segments.shape} must have {self.length_dim}, and '
            f'no dimensions but those of {positions}, in this order')
    if taps_dim.size != len(self.offsets):
      raise ValueError(
          f'filters have {taps_dim.size} taps, but there are '
          f'{len(self.offsets)} offsets {self.offsets}')
    if filters.dtype != x.dtype:
      raise ValueError(f'filters are {filters.dtype}, but x is {x.dtype}')
    if self.lowering not in (None, *conv_lowerings.NAMES):
      raise ValueError(
          f'lowering (={self.lowering!r}) must be one of '
          f'{[*conv_lowerings.NAMES]}, or None')
    if self.lowering and not conv_lowerings.supports(
        self.lowering, self.is_static, self.offsets):
      raise ValueError(
          f'lowering (={self.lowering!r}) cannot do '
          f'{"static" if self.is_static else "dynamic"} filters with offsets '
          f'{self.offsets}')


class LocalConvGradOperation(mtf.Operation):
  """From dy: the gradients of a LocalConvOperation for x and for filters."""

  def __init__(self, forward, dy):
    super().__init__([dy, *forward.inputs], name='local_conv_grad')
    x, filters = forward.inputs[:2]
    self._forward = forward
    self._outputs = [mtf.Tensor(self, x.shape, x.dtype, index=0),
                     mtf.Tensor(self, filters.shape, filters.dtype, index=1)]

  def lower(self, lowering):
    """Lowers to each processor's slice."""
    slices = _Slices(self._forward, lowering)
    dx, dfilters = slices.run(slices.gradients, self.inputs, self.outputs)
    lowering.set_tensor_lowering(self.outputs[0], dx)
    lowering.set_tensor_lowering(
        self.outputs[1], slices.sum_over_split_dims(dfilters))
    slices.count_multiply_adds(2)


class _Slices:
  """The convolution on each processor's slice of x, under any layout.

  Where length_dim is split, every processor of that axis gathers the whole
  length, convolves all of it and keeps its own part. Where the first of the
  channels is split, it takes the filters that its part needs.
  """

  def __init__(self, forward, lowering):
    self._forward = forward
    self._lowering = lowering
    self._mesh_impl = lowering.mesh_impl(forward)
    self._x, self._filters = forward.inputs[:2]

  def _mesh_axis(self, dim):
    return self._mesh_impl.tensor_dimension_to_mesh_axis(dim)

  def run(self, fn, inputs, outputs):
    """Applies fn to the slices of inputs; returns the slices of outputs.

    Args:
      fn: self.convolve or self.gradients.
      inputs: a list of mtf Tensors.
      outputs: a list of mtf Tensors.

    Returns:
      A list of LaidOutTensors.
    """
    mesh_axis = None
    if self._forward.channel_dims:
      mesh_axis = self._mesh_axis(self._forward.channel_dims[0])
    coordinate = (0 if mesh_axis is None else
                  self._mesh_impl.laid_out_pcoord(mesh_axis))
    results = self._mesh_impl.slicewise(
        fn, coordinate, *(self._whole(t) for t in inputs))
    return [self._split_again(t, r) for t, r in zip(outputs, results)]

  def _split_axes(self, tensor):
    """Axis and mesh axis of what fn needs whole."""
    for dim in (self._forward.length_dim, self._forward.filters_dim):
      if dim in tensor.shape.dims and self._mesh_axis(dim) is not None:
        yield self._mesh_axis(dim), tensor.shape.dims.index(dim)

  def _whole(self, tensor):
    laid_out = self._lowering.tensors[tensor]
    for axes in self._split_axes(tensor):
      laid_out = self._mesh_impl.allconcat(laid_out.to_laid_out_tensor(), *axes)
    return laid_out

  def _split_again(self, tensor, laid_out):
    for axes in self._split_axes(tensor):
      laid_out = self._mesh_impl.allsplit(laid_out, *axes)
    return laid_out

  def sum_over_split_dims(self, dfilters):
    """Adds up what processors found from the parts of x that each has."""
    split = self._mesh_impl.tensor_layout(self._x).tensor_axis_to_mesh_axis
    kept = self._mesh_impl.tensor_layout(
        self._filters).tensor_axis_to_mesh_axis
    length_axis = self._mesh_axis(self._forward.length_dim)
    summed = [axis for axis in split if axis is not None and
              axis not in kept and axis != length_axis]
    return mesh.summed(
        self._lowering, dfilters, summed, self._filters, 'local_conv')

  def count_multiply_adds(self, passes):
    """Counts one for each tap of each element of x, passes times."""
    taps = passes * len(self._forward.offsets)
    self._lowering.add_counter(
        'einsum', taps * self._mesh_impl.laid_out_size(self._x.shape))
    self._lowering.add_counter('einsum_unique', taps * self._x.shape.size)

  def convolve(self, coordinate, x, filters, segments=None):
    """The convolution of one slice, in a tuple."""
    form = _RowForm(self._forward, x, coordinate)
    y = conv_lowerings.convolve(
        self._forward.lowering, form.x(x), form.filters(filters),
        self._forward.offsets, form.segments(segments))
    return tf.reshape(y, x.shape),

  def gradients(self, coordinate, dy, x, filters, segments=None):
    """The gradients of x and filters of one slice."""
    form = _RowForm(self._forward, x, coordinate)
    dx, dfilters = conv_lowerings.gradients(
        self._forward.lowering, form.x(x), form.filters(filters), form.x(dy),
        self._forward.offsets, form.segments(segments))
    return (tf.reshape(dx, x.shape),
            form.filters_gradient(dfilters, filters))


class _RowForm:
  """Brings one processor's tensors into the form of conv_lowerings."""

  def __init__(self, forward, x, coordinate):
    self._forward = forward
    shape = x.shape.as_list()
    axis = len(forward.row_dims)
    self._row_shape = shape[:axis]
    self._length = shape[axis]
    self._selection = None
    if forward.filters_dim:
      self._num_groups = self._select_filters(shape[axis + 1], coordinate)
    else:
      self._num_groups = math.prod(
          shape[axis + 1:axis + 1 + len(forward.group_dims)])

  def _select_filters(self, size, coordinate):
    """Which filters a part of the first of the channels takes.

    Args:
      size: of the part.
      coordinate: which part it is.

    Returns:
      The number of groups; self._selection is [groups, filters], of 0 and 1,
      None if it would be the identity.
    """
    whole = self._forward.channel_dims[0].size
    num_filters = self._forward.filters_dim.size
    group = math.gcd(size, whole // num_filters)
    if size < whole or group * num_filters < whole:
      starts = coordinate * size + tf.range(0, size, group)
      self._selection = tf.one_hot(
          starts // (whole // num_filters), num_filters,
          dtype=self._forward.inputs[0].dtype)
    return size // group

  def x(self, x):
    """To [rows, length, groups, channels]."""
    return tf.reshape(
        x, [math.prod(self._row_shape), self._length, self._num_groups, -1])

  def segments(self, segments):
    """To [rows, length]; None stays None."""
    if segments is None:
      return None
    shape, full = self._aligned(self._forward.segments)
    segments = tf.broadcast_to(tf.reshape(segments, shape), full)
    return tf.reshape(segments, [-1, self._length])

  def filters(self, filters):
    """To [groups, taps], or if dynamic [rows, length, groups, taps]."""
    taps = filters.shape.as_list()[-1]
    if self._selection is not None:
      filters = tf.einsum('...ft,gf->...gt', filters, self._selection)
    if self._forward.is_static:
      return tf.reshape(filters, [self._num_groups, taps])
    shape, full = self._aligned(self._forward.inputs[1])
    last = [self._num_groups, taps]
    filters = tf.broadcast_to(tf.reshape(filters, shape + last), full + last)
    return tf.reshape(filters, [-1, self._length, *last])

  def filters_gradient(self, dfilters, filters):
    """From the gradient of self.filters(filters) to that of filters."""
    if not self._forward.is_static:
      shape, full = self._aligned(self._forward.inputs[1])
      dfilters = tf.reshape(dfilters, full + dfilters.shape.as_list()[2:])
      dfilters = tf.reduce_sum(dfilters, [
          axis for axis, sizes in enumerate(zip(shape, full))
          if sizes[0] != sizes[1]])
    if self._selection is not None:
      dfilters = tf.einsum('...gt,gf->...ft', dfilters, self._selection)
    return tf.reshape(dfilters, filters.shape)

  def _aligned(self, tensor):
    """Sizes before the groups: with 1 for those it lacks, and all of them."""
    dims = [*self._forward.row_dims, self._forward.length_dim]
    full = [*self._row_shape, self._length]
    return [size if dim in tensor.shape.dims else 1
            for dim, size in zip(dims, full)], full
