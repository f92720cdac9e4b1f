"""Convolutions in the place of self-attention (section 3 of the paper).

LightConv, DynamicConv and DilatedConv are the gated block (mtf_conv.mixer) with
the convolutions of sections 3.1.1 to 3.1.3. Their H filters belong to
contiguous groups of heads.

In an encoder a filter is centred, in a decoder it is causal. A tap that falls
on another packed example, or on padding, counts as zero.
"""

import functools

import gin
import mesh_tensorflow as mtf
import tensorflow.compat.v1 as tf
from mesh_tensorflow.transformer import (
  transformer,
  transformer_layers,
)

from mtf_conv import conv, conv_lowerings, mixer
from mtf_conv.base import errors


class GatedConv(mixer.GatedMixer):
  """The gated block with a convolution; its subclasses say what filters it has.

  Shapes: see GatedMixer.

  Receptive field, with w = (filter_size - 1) * dilation_rate: [i - w, i] in a
  decoder, [i - w/2, i + w/2] in an encoder (an even filter reads one tap more
  to the left than to the right, as in equation 1).
  """

  _has_filters_per_channel = True
  _has_static_filters = True

  def __init__(self, num_heads=gin.REQUIRED, d_kv=gin.REQUIRED, filter_size=7,
               num_filters=2, dilation_rate=1, pointwise=False, use_bias=False,
               gated=True, softmax=True, filter_dropout_rate=0.0,
               lowering=None):
    """Creates the layer.

    Args:
      num_heads: T5's macro; with d_kv it makes the inner dimension.
      d_kv: T5's macro, channels per head.
      filter_size: k, the number of taps.
      num_filters: H of equation 2, the number of distinct filters. Must divide
        num_heads. None: a filter for every channel (equation 1).
      dilation_rate: the distance between taps.
      pointwise: whether a product over all channels follows the convolution,
        as in a separable convolution. The paper's formulas have none.
      use_bias: whether the products have biases. T5 has none.
      gated: whether X1 is gated by sigmoid(W_S X).
      softmax: whether a filter is normalised by a softmax over its taps
        (equations 2 and 3) or used as it is (equation 1).
      filter_dropout_rate: dropout on the normalised filter, in training only
        (Wu et al. 2019; not in the paper).
      lowering: 'depthwise', 'slices', 'band' or 'matrix', how the convolution
        is computed (conv_lowerings); None for what is fast where it runs; or a
        function that takes the place of conv.local_conv.

    Raises:
      errors.UserError: num_filters does not divide num_heads, or a rate or
        size is out of range.
    """
    super().__init__(num_heads, d_kv, use_bias, gated)
    mixer.require_positive('filter_size', filter_size)
    mixer.require_positive('dilation_rate', dilation_rate)
    if num_filters is not None or not self._has_filters_per_channel:
      mixer.require_positive('num_filters', num_filters)
      if num_heads % num_filters:
        raise errors.UserError(
            f'num_heads (={num_heads}) must be a multiple of num_filters '
            f'(={num_filters})')
    if not 0 <= filter_dropout_rate < 1:
      raise errors.UserError(
          f'filter_dropout_rate (={filter_dropout_rate}) must be in [0, 1)')
    self._filter_size = filter_size
    self._dilation_rate = dilation_rate
    self._num_filters = num_filters
    self._pointwise = pointwise
    self._softmax = softmax
    self._filter_dropout_rate = filter_dropout_rate
    self._lowering = lowering
    self._check_lowering(filter_size, dilation_rate)

  def _check_lowering(self, filter_size, dilation_rate):
    if callable(self._lowering):
      return
    names = conv_lowerings.NAMES
    if self._lowering is not None and self._lowering not in names:
      raise errors.UserError(
          f'lowering (={self._lowering!r}) must be None or one of {[*names]}'
          f'{errors.nearest(self._lowering, names)}')
    if self._lowering and not conv_lowerings.supports(
        self._lowering, self._has_static_filters,
        conv.causal_offsets(filter_size, dilation_rate)):
      raise errors.UserError(
          f'lowering (={self._lowering!r}) cannot do {type(self).__name__} of '
          f'filter_size (={filter_size}), dilation_rate (={dilation_rate})')

  # For a subclass to write.

  def filter_weights(self, context, x1, taps_dim):
    """Returns the filters before the softmax; taps_dim comes last.

    Args:
      context: a transformer.Context.
      x1: X1 of the block, shape [batch, length, heads, d_kv], or of one
        position.
      taps_dim: a Dimension of the size of the filters.

    Returns:
      A Tensor, shape [*filter_dims, taps], with batch and length before these
      where filters differ from position to position.
    """
    raise NotImplementedError

  # For a subclass to override.

  def taps(self, context):
    """Returns (filter_size, dilation_rate) of this layer in its stack."""
    del context
    return self._filter_size, self._dilation_rate

  def offsets(self, context):
    """Returns what each tap reads, relative to the position that it is for."""
    offsets_fn = (conv.causal_offsets if context.model.autoregressive
                  else conv.centred_offsets)
    return offsets_fn(*self.taps(context))

  def settings(self, context):
    """Returns what this layer of a stack computes: arguments by name."""
    filter_size, dilation_rate = self.taps(context)
    return {
        'num_heads': self.heads_dim.size, 'd_kv': self.d_kv_dim.size,
        'filter_size': filter_size, 'dilation_rate': dilation_rate,
        'num_filters': self._num_filters, 'gated': self._gated,
        'softmax': self._softmax, 'pointwise': self._pointwise,
        'use_bias': self.use_bias,
        'filter_dropout_rate': self._filter_dropout_rate}

  def conv_input(self, context, x1):
    """Returns what the convolution reads, a Tensor of the shape of x1."""
    del context
    return x1

  # For a subclass to use.

  @property
  def filter_dims(self):
    """The dimensions that tell one filter from another."""
    if self._num_filters is None:
      return self.inner_dims
    return [mtf.Dimension('filters', self._num_filters)]

  def filter_variable(self, context, taps_dim):
    """Returns filters that are a variable, shape [*filter_dims, taps]."""
    return self.get_variable(
        context, 'filters', self.filter_dims + [taps_dim],
        tf.random_normal_initializer(stddev=taps_dim.size**-0.5))

  def filters(self, context, x1):
    """Returns the filters as used: normalised and dropped out.

    Args:
      context: a transformer.Context.
      x1: see filter_weights.

    Returns:
      A Tensor, see filter_weights.
    """
    taps_dim = mtf.Dimension('conv_taps', self.taps(context)[0])
    filters = self.filter_weights(context, x1, taps_dim)
    dtype = filters.dtype
    if self._softmax:
      filters = mtf.cast(
          mtf.softmax(mtf.cast(filters, tf.float32), taps_dim), dtype)
    if self._filter_dropout_rate:
      filters = mtf.dropout(
          filters, context.train, rate=self._filter_dropout_rate)
    return filters

  # What GatedMixer asks for.

  def mix(self, context, x):
    """See GatedMixer."""
    filters = self.filters(context, x)
    convolve = (self._lowering if callable(self._lowering) else
                functools.partial(conv.local_conv, lowering=self._lowering))
    return convolve(
        self.conv_input(context, x), filters, self.offsets(context),
        context.length_dim, mixer.segments(context))

  def mix_step(self, context, x, state):
    """See GatedMixer."""
    filters = self.filters(context, x)
    taps_dim = filters.shape.dims[-1]
    _, dilation_rate = self.taps(context)
    window, state = self.slide(self.conv_input(context, x), state)
    # Of each dilation_rate positions the first is read: [taps, rate] -> [taps].
    rate_dim = mtf.Dimension('rate', dilation_rate)
    window = mtf.pad(window, [0, dilation_rate - 1], 'history')
    window = mtf.replace_dimensions(
        window, mtf.Dimension('history', taps_dim.size * dilation_rate),
        [taps_dim, rate_dim])
    window = mtf.reduce_first(window, reduced_dim=rate_dim)
    y = mtf.einsum([window, self._spread_over_heads(filters)],
                   reduced_dims=[taps_dim])
    return y, state

  def history_size(self, context):
    """See GatedMixer."""
    filter_size, dilation_rate = self.taps(context)
    return (filter_size - 1) * dilation_rate

  def initial_state(self, context, x):
    """See GatedMixer."""
    return super().initial_state(context, self.conv_input(context, x))

  def output(self, context, x):
    """See GatedMixer."""
    if self._pointwise:
      x = self.project(context, 'pointwise', x, [
          mtf.Dimension('heads_out', self.heads_dim.size),
          mtf.Dimension('d_kv_out', self.d_kv_dim.size)])
      x = mtf.replace_dimensions(x, x.shape.dims[-2:], self.inner_dims)
    return super().output(context, x)

  def _spread_over_heads(self, filters):
    """[..., filters, taps] -> [..., heads, taps], filters in head groups."""
    if self._num_filters is None:
      return filters
    filters_dim, = self.filter_dims
    heads = mtf.range(filters.mesh, self.heads_dim, tf.int32)
    group = mtf.floordiv(heads, self.heads_dim.size // self._num_filters)
    return mtf.gather(
        filters, group, filters_dim,
        output_shape=mtf.Shape(
            [d for d in filters.shape.dims[:-1] if d != filters_dim] +
            [self.heads_dim, filters.shape.dims[-1]]))


@gin.configurable
class LightConv(GatedConv):
  """Lightweight convolution (section 3.1.2, equation 2; Wu et al. 2019)."""

  def filter_weights(self, context, x1, taps_dim):
    """Returns a variable, shape [filters, taps]."""
    return self.filter_variable(context, taps_dim)


@gin.configurable
class DynamicConv(GatedConv):
  """Dynamic convolution (section 3.1.3, equation 3; Wu et al. 2019).

  The filter at position i is a linear function of X1 at i, the input of the
  convolution. There is no filter for every channel: num_filters is a number.
  """

  _has_filters_per_channel = False
  _has_static_filters = False

  def filter_weights(self, context, x1, taps_dim):
    """Returns a Tensor, shape [batch, length, filters, taps]."""
    filter_dims = self.filter_dims + [taps_dim]
    inner_dims = self.inner_dims
    filter_taps = mtf.Dimension('filter_taps', mtf.Shape(filter_dims).size)
    kernel = self.get_variable(
        context, 'wq', [mixer.combined(inner_dims), filter_taps],
        tf.random_normal_initializer(
            stddev=mtf.Shape(inner_dims).size**-0.5))
    kernel = mtf.reshape(
        kernel, context.model.ensemble_dims + inner_dims + filter_dims)
    filters = mtf.einsum([x1, kernel], reduced_dims=inner_dims)
    if self.use_bias:
      bias = self.get_variable(
          context, 'wq_bias', [filter_taps], tf.zeros_initializer())
      filters += mtf.reshape(bias, context.model.ensemble_dims + filter_dims)
    return filters


@gin.configurable
class DilatedConv(GatedConv):
  """Dilated convolution (section 3.1.1): a filter size for every layer."""

  def __init__(self, num_heads=gin.REQUIRED, d_kv=gin.REQUIRED,
               filter_sizes=gin.REQUIRED, num_filters=2, dilation_rates=None,
               pointwise=False, use_bias=False, gated=True, softmax=True,
               filter_dropout_rate=0.0, lowering=None):
    """Creates the layer; see GatedConv for the arguments that are not here.

    Args:
      num_heads: T5's macro.
      d_kv: T5's macro.
      filter_sizes: a list of integers, one for every layer of this kind in
        the stack, from the bottom up.
      num_filters: H, the number of distinct filters.
      dilation_rates: a list like filter_sizes; None for 1 everywhere.
      pointwise: see GatedConv.
      use_bias: see GatedConv.
      gated: see GatedConv.
      softmax: see GatedConv.
      filter_dropout_rate: see GatedConv.
      lowering: see GatedConv.

    Raises:
      errors.UserError: lists of different lengths, or what GatedConv raises.
    """
    super().__init__(
        num_heads, d_kv, num_filters=num_filters, pointwise=pointwise,
        use_bias=use_bias, gated=gated, softmax=softmax,
        filter_dropout_rate=filter_dropout_rate, lowering=lowering)
    if dilation_rates is None:
      dilation_rates = [1] * len(filter_sizes)
    if len(dilation_rates) != len(filter_sizes):
      raise errors.UserError(
          f'dilation_rates (={dilation_rates}) must be as many as filter_sizes '
          f'(={filter_sizes})')
    self._taps_per_layer = [
        (mixer.require_positive('filter_sizes', size),
         mixer.require_positive('dilation_rates', rate))
        for size, rate in zip(filter_sizes, dilation_rates)]
    for size_and_rate in self._taps_per_layer:
      self._check_lowering(*size_and_rate)

  def taps(self, context):
    """Returns (filter_size, dilation_rate) of this layer in its stack."""
    layers = [layer for layer in context.model.layer_stack.layers
              if isinstance(layer, DilatedConv)]
    if len(layers) != len(self._taps_per_layer):
      sizes = [size for size, _ in self._taps_per_layer]
      raise errors.UserError(
          f'filter_sizes (={sizes}) must have one number for each of the '
          f'{len(layers)} DilatedConv layers of the {context.model.name}')
    return self._taps_per_layer[layers.index(self)]

  def filter_weights(self, context, x1, taps_dim):
    """Returns a variable, shape [filters, taps]."""
    return self.filter_variable(context, taps_dim)


@gin.configurable
class AttentionLayerStack(transformer.LayerStack):
  """A stack with one layer of self-attention more (section 6.1).

  Convolutions alone cannot relate two sentences that are far apart; the paper
  brings a convolutional encoder from about 75 to 83 on MultiNLI by one layer
  of attention. It does not say where: here it follows the mixer of one block,
  with a norm and a residual of its own.

  The mixer of a block, of whatever class it is, is the block's first layer. T5
  names layers block_000/layer_000, block_000/layer_001, and so on.
  """

  def __init__(self, layers, attention_cls=transformer_layers.SelfAttention,
               block=-1, **kwargs):
    """Creates the stack.

    Args:
      layers: the layers without attention, named by make_layer_stack.
      attention_cls: the class of the attention layer.
      block: which block's mixer it follows; -1 is the last.
      **kwargs: arguments of transformer.LayerStack.

    Raises:
      errors.UserError: there is no such block, or names tell no blocks apart.
    """
    blocks = [layer.name.rpartition('/')[0] for layer in layers]
    if not all(blocks):
      raise errors.UserError(
          'AttentionLayerStack needs make_layer_stack.block_scope = True, '
          'which names the blocks')
    mixers = [i for i, name in enumerate(blocks) if name not in blocks[:i]]
    if not -len(mixers) <= block < len(mixers):
      raise errors.UserError(
          f'block (={block}) must be one of the {len(mixers)} blocks')
    position = mixers[block]
    attention = attention_cls()
    attention.set_name(f'{layers[position].name}_attention')
    super().__init__(
        layers[:position + 1] + [attention] + layers[position + 1:], **kwargs)
