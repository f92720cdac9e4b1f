r"""The blocks of the authors' release, so that their checkpoints load.

LocalConvAttnBlock here has the variables of mesh-tensorflow's class of that
name, under the same names and in the same shapes and master dtypes, and gives
the same teacher-forced logits on rows of one example. What differs, on purpose:

- Decoding agrees with the teacher-forced pass, prefixes and beams included.
- Packed examples do not see each other, and padding is told by sequence_id too.
- A decoder that would see the future is an error.
- Splitting 'heads' over a mesh splits the block.

mtf_conv.release.released_checkpoint reads from a checkpoint which model it
holds.
"""

import gin
import mesh_tensorflow as mtf
import tensorflow.compat.v1 as tf
from mesh_tensorflow.transformer import transformer

from mtf_conv import layers
from mtf_conv.base import errors

# The names of mtf_conv.layers and of the release, for the variables of a block.
VARIABLES = {
    'wi': 'local_conv_inp_0/kernel',
    'wi_bias': 'local_conv_inp_0/bias',
    'ws': 'local_conv_inp_1/kernel',
    'ws_bias': 'local_conv_inp_1/bias',
    'conv_bias':
        'separable_conv1d/depthwise_conv_hack/depthwise_dense_0/bias',
    'pointwise': 'separable_conv1d/pointwise_dense/kernel',
    'pointwise_bias': 'separable_conv1d/pointwise_dense/bias',
    'wo': 'local_conv_attn_op_projection/kernel',
    'wo_bias': 'local_conv_attn_op_projection/bias',
}

# Filters are one variable per tap: '<name>_<tap>/kernel', and '/bias'.
FILTERS = {
    'lightweight_conv': 'lightwt_depthwise_dense',
    'dynamic_conv': 'dyn_conv_depthwise_dense',
}


@gin.configurable
class LocalConvAttnBlock(layers.GatedConv):
  """The release's block, with four products and a filter for every channel.

      X1 = (W_I X + b) * sigmoid(W_S X + b)
      X2 = Conv(X1 where the input id is not 0) + b
      X3 = W_O activation(W_P X2 + b) + b

  A filter is normalised by a softmax over its taps. It is a variable
  (lightweight) or W_Q X1 + b, of X1 at the same position (dynamic).

  Shapes: [batch, length, d_model] -> the same; [batch, d_model] in one step of
  incremental decoding (with beam after batch in a beam search).

  Receptive field: [i + min_relative_pos, i + max_relative_pos].

  A decoder's first input id is 0, so its first position adds nothing to any
  convolution: so were these models trained. Here decoding does the same.
  """

  def __init__(self, min_relative_pos=gin.REQUIRED,
               max_relative_pos=gin.REQUIRED, output_size=gin.REQUIRED,
               activation='linear', num_unique_depth_filters=1,
               attention_type='lightweight_conv', pointwise=True,
               use_bias=True, num_filters=None):
    """Creates the layer; the first six arguments are mesh-tensorflow's.

    Args:
      min_relative_pos: the first position read, relative to the current one.
      max_relative_pos: the last position read; 0 in a decoder.
      output_size: the number of channels inside the block, d_model.
      activation: a function of mtf by name, applied to the convolution's
        output before W_O; 'linear' for none.
      num_unique_depth_filters: ignored, as in mesh-tensorflow, whose block
        never passes it on: the release's files say 2, and its models have a
        filter for every channel.
      attention_type: 'lightweight_conv' or 'dynamic_conv'.
      pointwise: whether there is W_P.
      use_bias: whether there is any bias b.
      num_filters: the number of distinct filters, of which channel c takes the
        one numbered c modulo num_filters. None: one for every channel.

    Raises:
      errors.UserError: a value that is out of range.
    """
    del num_unique_depth_filters
    if min_relative_pos > max_relative_pos:
      raise errors.UserError(
          f'min_relative_pos (={min_relative_pos}) must not be greater than '
          f'max_relative_pos (={max_relative_pos})')
    if attention_type not in FILTERS:
      raise errors.UserError(
          f'attention_type (={attention_type!r}) must be one of {[*FILTERS]}'
          f'{errors.nearest(attention_type, FILTERS)}')
    if activation != 'linear' and not hasattr(mtf, activation):
      raise errors.UserError(
          f"activation (={activation!r}) must be 'linear' or the name of a "
          'function of mesh_tensorflow')
    if num_filters is not None and output_size % num_filters:
      raise errors.UserError(
          f'output_size (={output_size}) must be a multiple of num_filters '
          f'(={num_filters})')
    # A head for every channel: any split of the heads splits the channels.
    super().__init__(
        num_heads=output_size, d_kv=1,
        filter_size=max_relative_pos - min_relative_pos + 1, num_filters=None,
        pointwise=pointwise, use_bias=use_bias)
    self._window = range(min_relative_pos, max_relative_pos + 1)
    self._filters_dim = mtf.Dimension('filters', num_filters or output_size)
    self._attention_type = attention_type
    self._activation = activation

  def filter_weights(self, context, x1, taps_dim):
    """Returns a Tensor, shape [heads, d_kv, taps].

    Dynamic filters have batch and length before these.
    """
    filters_dim, width_dim = self._filters_dim, self.heads_dim
    dynamic = self._attention_type == 'dynamic_conv'
    kernel = self._get_taps(
        context, 'kernel', [width_dim] * dynamic + [filters_dim], taps_dim,
        (taps_dim.size * (width_dim.size if dynamic else 1))**-0.5)
    filters = kernel
    if dynamic:
      kernel = mtf.replace_dimensions(kernel, width_dim, self.inner_dims)
      filters = mtf.einsum([x1, kernel], reduced_dims=self.inner_dims)
      if self.use_bias:
        filters += self._get_taps(context, 'bias', [filters_dim], taps_dim, 0)
    # Channels take filters in turn: 0, 1, ..., 0, 1, ...
    filters = mtf.concat(
        [filters] * (width_dim.size // filters_dim.size), filters_dim.name)
    filters = mtf.replace_dimensions(
        filters, mtf.Dimension(filters_dim.name, width_dim.size),
        self.inner_dims)
    return mtf.transpose(
        filters,
        [d for d in filters.shape.dims if d != taps_dim] + [taps_dim])

  def _get_taps(self, context, name, dims, taps_dim, stddev):
    """One variable for every tap, stacked: [taps, *dims]."""
    return mtf.stack(
        [self.get_variable(
            context, f'{FILTERS[self._attention_type]}_{tap}/{name}', dims,
            tf.random_normal_initializer(stddev=stddev))
         for tap in range(taps_dim.size)], taps_dim.name)

  def get_variable(self, context, name, dims, initializer):
    """See GatedMixer."""
    name = VARIABLES.get(name, name)
    dtype = context.variable_dtype
    if name.startswith('separable_conv1d'):
      # mesh-tensorflow does not hand variable_dtype down to these, and a
      # checkpoint loads into variables of its own dtype only.
      dtype = mtf.VariableDType(tf.float32, tf.float32, dtype.activation_dtype)
    return mtf.get_variable(context.mesh, name, mtf.Shape(dims),
                            initializer=initializer, dtype=dtype)

  def project(self, context, name, x, new_dims):
    """See GatedMixer."""
    if name == 'wo' and self._activation != 'linear':
      x = getattr(mtf, self._activation)(x)
    return super().project(context, name, x, new_dims)

  def offsets(self, context):
    """See GatedConv."""
    if context.model.autoregressive and self._window[-1] != 0:
      raise errors.UserError(
          f'max_relative_pos (={self._window[-1]}) must be 0 in a decoder')
    return list(self._window)

  def conv_input(self, context, x1):
    """See GatedConv."""
    return x1 * _is_not_id_0(context)

  def output(self, context, x):
    """See GatedMixer."""
    if self.use_bias:
      x += self.bias(context, 'conv_bias', self.inner_dims)
    return super().output(context, x)


def _is_not_id_0(context):
  """1 where the layer stack was given a token, 0 where it was given id 0."""
  inputs = context.inputs
  if context.mode == 'first_part':
    # In this mode alone they are not yet shifted.
    inputs = transformer.autoregressive_inputs(inputs)
  return mtf.cast(mtf.not_equal(inputs, 0), context.activation_dtype)
