"""The blocks that are compared, each with its weights and its reference.

A block has `variables`, the arrays of its weights by the names that its
variables have; `call(context, x)`, which builds it; and `expected(x, dy,
segments)`, which returns (y, gradients by the names of variables, and for x).
"""

import gin
import mesh_tensorflow as mtf
from mesh_tensorflow.transformer import transformer_layers

from mtf_conv import conv, layers, released
from mtf_conv.measure import reference

D_KV = 64
NUM_FILTERS = 2  # H of the paper.


def clear_gin():
  """Makes blocks what is written here, whatever model was parsed before."""
  gin.clear_config()


def _weights(rng, shapes):
  """Returns weights that keep the scale of what they are multiplied with."""
  return {name: (rng.standard_normal(shape) * shape[0]**-0.5).astype('float32')
          for name, shape in shapes.items()}


class Dense:
  """The three products of a block, and nothing between them."""

  def __init__(self, rng, d_model):
    self.variables = _weights(
        rng, dict.fromkeys(('wi', 'ws', 'wo'), (d_model, d_model)))

  def call(self, context, x):
    """Returns X W_I W_O + X W_S."""
    model_dim = context.model.model_dim
    inner_dim = mtf.Dimension('heads', model_dim.size)

    def product(name, x, old, new):
      return mtf.einsum([x, mtf.get_variable(
          context.mesh, name, mtf.Shape([old, new]),
          dtype=context.variable_dtype)], reduced_dims=[old])

    inner = product('wi', x, model_dim, inner_dim)
    gate = product('ws', x, model_dim, inner_dim)
    # The sum keeps W_S from being pruned.
    return product('wo', inner, inner_dim, model_dim) + mtf.rename_dimension(
        gate, inner_dim.name, model_dim.name)

  def expected(self, x, dy, segments):
    """See the module."""
    del segments
    w = self.variables
    dinner = dy @ w['wo'].T
    return x @ w['wi'] @ w['wo'] + x @ w['ws'], {
        'x': dinner @ w['wi'].T + dy @ w['ws'].T,
        'wi': reference.product_gradient(x, dinner),
        'ws': reference.product_gradient(x, dy),
        'wo': reference.product_gradient(x @ w['wi'], dy)}


class GatedConv:
  """LightConv or DynamicConv of this package, H = 2."""

  def __init__(self, rng, d_model, filter_size, dynamic, causal=False):
    shapes = dict.fromkeys(('wi', 'ws', 'wo'), (d_model, d_model))
    if dynamic:
      shapes['wq'] = (d_model, NUM_FILTERS * filter_size)
    else:
      shapes['filters'] = (NUM_FILTERS, filter_size)
    self.variables = _weights(rng, shapes)
    self._layer = (layers.DynamicConv if dynamic else layers.LightConv)(
        num_heads=d_model // D_KV, d_kv=D_KV, filter_size=filter_size,
        num_filters=NUM_FILTERS)
    self._offsets = (conv.causal_offsets if causal else conv.centred_offsets)(
        filter_size)

  def call(self, context, x):
    """See the module."""
    return self._layer.call(context, x)

  def expected(self, x, dy, segments):
    """See the module."""
    return reference.gated_conv(
        x, self.variables, self._offsets, dy, segments)


class Released:
  """mesh-tensorflow's LocalConvAttnBlock, of the authors' release."""

  def __init__(self, rng, d_model, filter_size, dynamic):
    self._weights = _weights(rng, {
        **dict.fromkeys(
            ('wi', 'ws', 'pointwise', 'wo'), (d_model, d_model)),
        # Its filters are one for every channel.
        **({'wq': (d_model, d_model * filter_size)} if dynamic
           else {'filters': (d_model, filter_size)})})
    self._offsets = conv.centred_offsets(filter_size)
    self._kind = 'dynamic_conv' if dynamic else 'lightweight_conv'
    self._layer = transformer_layers.LocalConvAttnBlock(
        self._offsets[0], self._offsets[-1], d_model,
        attention_type=self._kind)
    # Biases are 0.
    self.variables = self._by_variable(
        {**self._weights,
         **{f'{name}_bias': 0 * self._weights[name][0]
            for name in ('wi', 'ws', 'pointwise', 'wo') + ('wq',) * dynamic},
         'conv_bias': 0 * self._weights['wi'][0]})

  def _by_variable(self, arrays):
    """Arrays by the names of our layers, by the release's names."""
    found = {released.VARIABLES[name]: array for name, array in arrays.items()
             if name in released.VARIABLES}
    taps = len(self._offsets)
    for ours, theirs in (('filters', 'kernel'), ('wq', 'kernel'),
                         ('wq_bias', 'bias')):
      if ours in arrays:
        array = arrays[ours].reshape(
            *arrays[ours].shape[:-1], -1, taps) if ours != 'filters' else (
                arrays[ours])
        for tap in range(taps):
          found[f'{released.FILTERS[self._kind]}_{tap}/{theirs}'] = array[
              ..., tap]
    return found

  def call(self, context, x):
    """See the module."""
    return self._layer.call(context, x)

  def expected(self, x, dy, segments):
    """See the module; a row has one segment."""
    y, gradients = reference.gated_conv(
        x, self._weights, self._offsets, dy, segments)
    return y, {**self._by_variable(gradients), 'x': gradients['x']}


class Attention:
  """T5's self-attention, without its relative bias."""

  def __init__(self, rng, d_model, causal=False):
    self._num_heads = d_model // D_KV
    self._causal = causal
    # T5 draws queries smaller, in place of a division by sqrt(d_kv).
    self.variables = _weights(
        rng, dict.fromkeys('qkvo', (d_model, d_model)))
    self.variables['q'] *= D_KV**-0.5
    self._layer = transformer_layers.SelfAttention(
        num_heads=self._num_heads, key_value_size=D_KV)

  def call(self, context, x):
    """See the module."""
    return self._layer.call(context, x)

  def expected(self, x, dy, segments):
    """See the module."""
    return reference.attention(
        x, self.variables, self._num_heads, dy, segments, self._causal)
