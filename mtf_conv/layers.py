"""Convolutions in the place of self-attention (section 3 of the paper).

The block of section 3.2.1, in encoder and decoder alike:

    X1 = (W_I X) * sigmoid(W_S X)
    X2 = Conv(X1)
    X3 = W_O X2

LightConv, DynamicConv and DilatedConv are this block with the convolutions of
sections 3.1.1 to 3.1.3. As in attention, the inner dimension is (heads, d_kv):
the stock layout `heads:model` splits a convolution as it splits attention, and
the H filters belong to contiguous groups of heads.

In an encoder a filter is centred, in a decoder it is causal. A tap that falls
on another packed example, or on padding, counts as zero.
"""

from mtf_conv import compat

compat.install()

import gin  # noqa: E402
import mesh_tensorflow as mtf  # noqa: E402
import tensorflow.compat.v1 as tf  # noqa: E402
from mesh_tensorflow.transformer import (  # noqa: E402
  transformer,
  transformer_layers,
)

from mtf_conv import conv, conv_lowerings, errors  # noqa: E402


class GatedConv(transformer.TransformerLayer):
  """The gated block; its subclasses say what its filters are.

  Shapes: [batch, length, d_model] -> the same; [batch, d_model] in one step of
  incremental decoding (with beam after batch in a beam search).

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
      lowering: 'depthwise', 'slices' or 'band', how the convolution is computed
        (conv_lowerings); None for what is fast where it runs.

    Raises:
      errors.UserError: num_filters does not divide num_heads, or a rate or
        size is out of range.
    """
    for name, value in (
        ('num_heads', num_heads), ('d_kv', d_kv), ('filter_size', filter_size),
        ('dilation_rate', dilation_rate)):
      _require_positive(name, value)
    if num_filters is not None or not self._has_filters_per_channel:
      _require_positive('num_filters', num_filters)
      if num_heads % num_filters:
        raise errors.UserError(
            f'num_heads (={num_heads}) must be a multiple of num_filters '
            f'(={num_filters})')
    if not 0 <= filter_dropout_rate < 1:
      raise errors.UserError(
          f'filter_dropout_rate (={filter_dropout_rate}) must be in [0, 1)')
    self._heads_dim = mtf.Dimension('heads', num_heads)
    self._d_kv_dim = mtf.Dimension('d_kv', d_kv)
    self._filter_size = filter_size
    self._dilation_rate = dilation_rate
    self._num_filters = num_filters
    self._pointwise = pointwise
    self._use_bias = use_bias
    self._gated = gated
    self._softmax = softmax
    self._filter_dropout_rate = filter_dropout_rate
    self._lowering = lowering
    self._check_lowering(filter_size, dilation_rate)

  def _check_lowering(self, filter_size, dilation_rate):
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

  def taps(self, context):
    """Returns (filter_size, dilation_rate) of this layer in its stack."""
    del context
    return self._filter_size, self._dilation_rate

  def filter_weights(self, context, x1, taps_dim):
    """Returns the filters before the softmax; taps_dim comes last."""
    raise NotImplementedError

  def call(self, context, x, losses=None):
    """Applies the block; see the class for shapes.

    Args:
      context: a transformer.Context.
      x: a Tensor.
      losses: unused.

    Returns:
      A Tensor of the shape of x.

    Raises:
      errors.UserError: the model is a prefix language model, in which a
        convolution would have to be causal at some positions and centred at
        others.
    """
    del losses
    if context.model.input_full_attention:
      raise errors.UserError(
          f'{type(self).__name__} cannot be used with input_full_attention='
          'True: a convolution is causal at all positions or at none')
    filter_size, dilation_rate = self.taps(context)
    x1 = self._gated_input(context, x)
    filters = self._filters(
        context, x1, mtf.Dimension('conv_taps', filter_size))
    x2 = self._convolve(context, x1, filters, dilation_rate)
    if self._pointwise:
      x2 = self._product(context, 'pointwise', x2, [
          mtf.Dimension('heads_out', self._heads_dim.size),
          mtf.Dimension('d_kv_out', self._d_kv_dim.size)])
      x2 = mtf.replace_dimensions(
          x2, x2.shape.dims[-2:], self._inner_dims)
    return self._product(context, 'wo', x2, [context.model.model_dim])

  @property
  def _inner_dims(self):
    return [self._heads_dim, self._d_kv_dim]

  def _gated_input(self, context, x):
    """X1 of the block: [..., d_model] -> [..., heads, d_kv]."""
    x1 = self._product(context, 'wi', x, self._inner_dims)
    if self._gated:
      x1 *= mtf.sigmoid(self._product(context, 'ws', x, self._inner_dims))
    return x1

  def _product(self, context, name, x, new_dims):
    """X times a matrix, from d_model or the inner dimensions to new_dims.

    The variable has the inner dimensions combined into one named 'heads', as
    T5's attention has them, so that Adafactor sees a matrix.
    """
    old_dims = ([context.model.model_dim]
                if x.shape.dims[-1] == context.model.model_dim
                else self._inner_dims)
    kernel = self._get_variable(
        context, name, [_combined(old_dims), _combined(new_dims)],
        tf.random_normal_initializer(stddev=mtf.Shape(old_dims).size**-0.5))
    kernel = mtf.reshape(
        kernel, context.model.ensemble_dims + old_dims + new_dims)
    y = mtf.einsum([x, kernel], reduced_dims=old_dims)
    if self._use_bias:
      y += self._bias(context, f'{name}_bias', new_dims)
    return y

  def _bias(self, context, name, dims):
    bias = self._get_variable(
        context, name, [_combined(dims)], tf.zeros_initializer())
    return mtf.reshape(bias, context.model.ensemble_dims + dims)

  def _get_variable(self, context, name, dims, initializer):
    return mtf.get_variable(
        context.mesh, name, mtf.Shape(context.model.ensemble_dims + dims),
        initializer=initializer, dtype=context.variable_dtype)

  def _filters(self, context, x1, taps_dim):
    """The filters as used: normalised and dropped out."""
    filters = self.filter_weights(context, x1, taps_dim)
    dtype = filters.dtype
    if self._softmax:
      filters = mtf.cast(
          mtf.softmax(mtf.cast(filters, tf.float32), taps_dim), dtype)
    if self._filter_dropout_rate:
      filters = mtf.dropout(
          filters, context.train, rate=self._filter_dropout_rate)
    return filters

  @property
  def _filter_dims(self):
    """The dimensions that tell one filter from another."""
    if self._num_filters is None:
      return self._inner_dims
    return [mtf.Dimension('filters', self._num_filters)]

  def _spread_over_heads(self, filters):
    """[..., filters, taps] -> [..., heads, taps], filters in head groups."""
    if self._num_filters is None:
      return filters
    filters_dim, = self._filter_dims
    heads = mtf.range(filters.mesh, self._heads_dim, tf.int32)
    group = mtf.floordiv(heads, self._heads_dim.size // self._num_filters)
    return mtf.gather(
        filters, group, filters_dim,
        output_shape=mtf.Shape(
            [d for d in filters.shape.dims[:-1] if d != filters_dim] +
            [self._heads_dim, filters.shape.dims[-1]]))

  def _offsets(self, context):
    """What each tap reads, relative to the position that it is for."""
    offsets_fn = (conv.causal_offsets if context.model.autoregressive
                  else conv.centred_offsets)
    return offsets_fn(*self.taps(context))

  def _convolve(self, context, x1, filters, dilation_rate):
    """X2 of the block, of the shape of x1; keeps what decoding needs."""
    if context.mode == 'incremental':
      return self._convolve_step(context, x1, filters, dilation_rate)
    if context.mode == 'first_part':
      self._record_history(
          context, x1, filters.shape.dims[-1].size, dilation_rate)
    return conv.local_conv(
        x1, filters, self._offsets(context), context.length_dim,
        _segments(context), self._lowering)

  def _history_dim(self, filter_size, dilation_rate):
    return mtf.Dimension('conv_history', (filter_size - 1) * dilation_rate)

  def _record_history(self, context, x1, filter_size, dilation_rate):
    """Keeps what the step at initial_position will read of earlier ones."""
    history_dim = self._history_dim(filter_size, dilation_rate)
    if not history_dim.size:
      return
    positions = context.initial_position - history_dim.size + mtf.range(
        context.mesh, history_dim, tf.int32)
    # A negative position selects nothing: zeros stand before the sequence.
    selected = mtf.one_hot(positions, context.length_dim, dtype=x1.dtype)
    others = [d for d in x1.shape.dims if d not in
              (context.length_dim, *self._inner_dims)]
    context.record_new_states([mtf.einsum(
        [x1, selected],
        output_shape=others + [history_dim] + self._inner_dims)])

  def _convolve_step(self, context, x1, filters, dilation_rate):
    """One position: [..., heads, d_kv] -> the same."""
    taps_dim = filters.shape.dims[-1]
    history_dim = self._history_dim(taps_dim.size, dilation_rate)
    current = mtf.reshape(
        x1, x1.shape.dims[:-2] + [mtf.Dimension(history_dim.name, 1)] +
        self._inner_dims)
    if not history_dim.size:
      window = current
    else:
      history, = context.get_states(1)
      window = mtf.concat([history, current], history_dim.name)
      context.record_new_states([mtf.slice(
          window, 1, history_dim.size, history_dim.name)])
    # Of each dilation_rate positions the first is read: [taps, rate] -> [taps].
    rate_dim = mtf.Dimension('rate', dilation_rate)
    window = mtf.pad(window, [0, dilation_rate - 1], history_dim.name)
    window = mtf.replace_dimensions(
        window, mtf.Dimension(history_dim.name, taps_dim.size * dilation_rate),
        [taps_dim, rate_dim])
    window = mtf.reduce_first(window, reduced_dim=rate_dim)
    return mtf.einsum([window, self._spread_over_heads(filters)],
                      reduced_dims=[taps_dim])


@gin.configurable
class LightConv(GatedConv):
  """Lightweight convolution (section 3.1.2, equation 2; Wu et al. 2019)."""

  def filter_weights(self, context, x1, taps_dim):
    """Returns a variable, shape [filters, taps]."""
    return self._get_variable(
        context, 'filters', self._filter_dims + [taps_dim],
        tf.random_normal_initializer(stddev=taps_dim.size**-0.5))


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
    filter_dims = self._filter_dims + [taps_dim]
    inner_dims = self._inner_dims
    filter_taps = mtf.Dimension('filter_taps', mtf.Shape(filter_dims).size)
    kernel = self._get_variable(
        context, 'wq', [_combined(inner_dims), filter_taps],
        tf.random_normal_initializer(
            stddev=mtf.Shape(inner_dims).size**-0.5))
    kernel = mtf.reshape(
        kernel, context.model.ensemble_dims + inner_dims + filter_dims)
    filters = mtf.einsum([x1, kernel], reduced_dims=inner_dims)
    if self._use_bias:
      bias = self._get_variable(
          context, 'wq_bias', [filter_taps], tf.zeros_initializer())
      filters += mtf.reshape(bias, context.model.ensemble_dims + filter_dims)
    return filters


@gin.configurable
class DilatedConv(LightConv):
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
    # Past LightConv, whose gin bindings are not meant for this class.
    GatedConv.__init__(
        self, num_heads, d_kv, num_filters=num_filters, pointwise=pointwise,
        use_bias=use_bias, gated=gated, softmax=softmax,
        filter_dropout_rate=filter_dropout_rate, lowering=lowering)
    if dilation_rates is None:
      dilation_rates = [1] * len(filter_sizes)
    if len(dilation_rates) != len(filter_sizes):
      raise errors.UserError(
          f'dilation_rates (={dilation_rates}) must be as many as filter_sizes '
          f'(={filter_sizes})')
    self._taps_per_layer = [
        (_require_positive('filter_sizes', size),
         _require_positive('dilation_rates', rate))
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


@gin.configurable
class AttentionLayerStack(transformer.LayerStack):
  """A stack with one layer of self-attention more (section 6.1).

  Convolutions alone cannot relate two sentences that are far apart; the paper
  brings a convolutional encoder from about 75 to 83 on MultiNLI by one layer
  of attention. It does not say where: here it follows the convolution of one
  block, with a norm and a residual of its own.
  """

  def __init__(self, layers, attention_cls=transformer_layers.SelfAttention,
               block=-1, **kwargs):
    """Creates the stack.

    Args:
      layers: the layers without attention, named by make_layer_stack.
      attention_cls: the class of the attention layer.
      block: which convolution it follows; -1 is the last.
      **kwargs: arguments of transformer.LayerStack.

    Raises:
      errors.UserError: there is no such block.
    """
    convolutions = [i for i, layer in enumerate(layers)
                    if isinstance(layer, GatedConv)]
    if not -len(convolutions) <= block < len(convolutions):
      raise errors.UserError(f'block (={block}) must be one of the '
                       f'{len(convolutions)} convolutional blocks')
    position = convolutions[block]
    attention = attention_cls()
    attention.set_name(f'{layers[position].name}_attention')
    super().__init__(
        layers[:position + 1] + [attention] + layers[position + 1:], **kwargs)


def _require_positive(name, value):
  if not isinstance(value, int) or value < 1:
    raise errors.UserError(f'{name} (={value}) must be an integer >= 1')
  return value


def _combined(dims):
  """One dimension of the size of dims, named as the first of them."""
  return mtf.Dimension(dims[0].name, mtf.Shape(dims).size)


def _segments(context):
  """Which positions belong together, as T5's attention tells them apart."""
  for ids in (context.subsequence_id, context.sequence_id):
    if isinstance(ids, mtf.Tensor) and context.length_dim in ids.shape.dims:
      return ids
  return None
