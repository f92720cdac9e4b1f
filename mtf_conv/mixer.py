"""The gated block around a mixer of positions (section 3.2.1 of the paper).

    X1 = (W_I X) * sigmoid(W_S X)
    X2 = mix(X1)
    X3 = W_O X2

A mixer takes the place of self-attention: it brings together the positions of
a sequence, in an encoder from both sides, in a decoder from the past alone. As
in attention, the inner dimension is (heads, d_kv): the stock layout
`heads:model` splits a mixer as it splits attention.
"""

import gin
import mesh_tensorflow as mtf
import tensorflow.compat.v1 as tf
from mesh_tensorflow.transformer import transformer

from mtf_conv.base import errors


class GatedMixer(transformer.TransformerLayer):
  """The gated block; its subclasses say how positions are mixed.

  A subclass writes two methods: `mix` for a whole sequence, and `mix_step` for
  one position of a sequence that is being decoded. Both must give the same.
  `mtf_conv.testing.check_mixer` says whether they do.

  Between steps a layer keeps a state. Unless a subclass says otherwise, it is
  the history: the gated inputs of the last `history_size` positions. A mixer
  that can do with less, such as a running sum, overrides `initial_state`.

  Shapes: [batch, length, d_model] -> the same; [batch, d_model] in one step of
  incremental decoding (with beam after batch in a beam search).

  Attributes:
    heads_dim: a Dimension named 'heads'.
    d_kv_dim: a Dimension named 'd_kv', the channels of a head.
    use_bias: whether products have biases.
  """

  def __init__(self, num_heads=gin.REQUIRED, d_kv=gin.REQUIRED, use_bias=False,
               gated=True):
    """Creates the layer.

    Args:
      num_heads: T5's macro; with d_kv it makes the inner dimension.
      d_kv: T5's macro, channels per head.
      use_bias: whether the products have biases. T5 has none.
      gated: whether X1 is gated by sigmoid(W_S X).

    Raises:
      errors.UserError: a size is no integer >= 1, or the class lacks one of
        the two methods.
    """
    for method in ('mix', 'mix_step'):
      if getattr(type(self), method) is getattr(GatedMixer, method):
        raise errors.UserError(
            f'{type(self).__name__} has no method {method!r}: a mixer needs '
            "'mix' for training and 'mix_step' for decoding")
    require_positive('num_heads', num_heads)
    require_positive('d_kv', d_kv)
    self.heads_dim = mtf.Dimension('heads', num_heads)
    self.d_kv_dim = mtf.Dimension('d_kv', d_kv)
    self.use_bias = use_bias
    self._gated = gated

  # For a subclass to write.

  def mix(self, context, x):
    """Mixes the positions of whole sequences.

    A decoder (`context.model.autoregressive`) must not read the future, and no
    position may read another segment (`segments`) or padding.

    Args:
      context: a transformer.Context.
      x: X1, a Tensor, shape [batch, length, heads, d_kv].

    Returns:
      X2, a Tensor of the shape of x.
    """
    raise NotImplementedError

  def mix_step(self, context, x, state):
    """Mixes one position with those before it.

    Args:
      context: a transformer.Context.
      x: X1 of this position, shape [batch, heads, d_kv], in a beam search
        [batch, beam, heads, d_kv].
      state: what the step before returned, or initial_state. If it is the
        history, a Tensor, shape [batch, history, heads, d_kv]: X1 of the
        positions before this one, the last one last, with zeros where there
        was none; `slide` moves it on. None if history_size is 0.

    Returns:
      (X2 of this position, a Tensor of the shape of x; the next state).
    """
    raise NotImplementedError

  # For a subclass to override.

  def history_size(self, context):
    """Returns how many positions before its own a step reads; 0: no state."""
    return context.length_dim.size

  def initial_state(self, context, x):
    """Returns the state before the step at context.initial_position.

    It must be all zeros where that position is the first: T5 counts on it.

    Args:
      context: a transformer.Context.
      x: X1 of the sequences, shape [batch, length, heads, d_kv]; what stands
        from initial_position on is not known yet, and must not be read.

    Returns:
      A Tensor.
    """
    history_dim = mtf.Dimension('history', self.history_size(context))
    positions = context.initial_position - history_dim.size + mtf.range(
        context.mesh, history_dim, tf.int32)
    # A negative position selects nothing: zeros stand before the sequence.
    selected = mtf.one_hot(positions, context.length_dim, dtype=x.dtype)
    others = [d for d in x.shape.dims if d not in
              (context.length_dim, *self.inner_dims)]
    return mtf.einsum(
        [x, selected], output_shape=others + [history_dim] + self.inner_dims)

  def gated_input(self, context, x):
    """Returns X1 of the block: [..., d_model] -> [..., heads, d_kv]."""
    x1 = self.project(context, 'wi', x, self.inner_dims)
    if self._gated:
      x1 *= mtf.sigmoid(self.project(context, 'ws', x, self.inner_dims))
    return x1

  def output(self, context, x):
    """Returns X3 of the block: [..., heads, d_kv] -> [..., d_model]."""
    return self.project(context, 'wo', x, [context.model.model_dim])

  def get_variable(self, context, name, dims, initializer):
    """Returns a variable of this layer.

    Args:
      context: a transformer.Context.
      name: of the variable in the layer's scope.
      dims: a list of Dimensions. One named 'heads' splits as attention does.
      initializer: a TensorFlow initializer.

    Returns:
      A Tensor of the activations' dtype, shape dims.
    """
    return mtf.get_variable(
        context.mesh, name, mtf.Shape(context.model.ensemble_dims + dims),
        initializer=initializer, dtype=context.variable_dtype)

  def project(self, context, name, x, new_dims):
    """Multiplies by a matrix that is a variable, and adds a bias if there is.

    The variable has the inner dimensions combined into one named 'heads', as
    T5's attention has them, so that Adafactor sees a matrix.

    Args:
      context: a transformer.Context.
      name: of the variable; the bias is <name>_bias.
      x: a Tensor, its last dimensions d_model or the inner ones.
      new_dims: a list of Dimensions to put in their place.

    Returns:
      A Tensor.
    """
    old_dims = ([context.model.model_dim]
                if x.shape.dims[-1] == context.model.model_dim
                else self.inner_dims)
    kernel = self.get_variable(
        context, name, [combined(old_dims), combined(new_dims)],
        tf.random_normal_initializer(stddev=mtf.Shape(old_dims).size**-0.5))
    kernel = mtf.reshape(
        kernel, context.model.ensemble_dims + old_dims + new_dims)
    y = mtf.einsum([x, kernel], reduced_dims=old_dims)
    if self.use_bias:
      y += self.bias(context, f'{name}_bias', new_dims)
    return y

  def bias(self, context, name, dims):
    """Returns a bias that starts at 0, a Tensor of shape dims."""
    bias = self.get_variable(
        context, name, [combined(dims)], tf.zeros_initializer())
    return mtf.reshape(bias, context.model.ensemble_dims + dims)

  # For a subclass to use.

  @property
  def inner_dims(self):
    """The dimensions of a position inside the block: [heads, d_kv]."""
    return [self.heads_dim, self.d_kv_dim]

  def slide(self, x, history):
    """Moves the history on by a position.

    Args:
      x: X1 of the position, shape [batch, heads, d_kv].
      history: see mix_step.

    Returns:
      (what the step can read: the history, then x, a Tensor, shape
      [batch, history + 1, heads, d_kv]; the next history).
    """
    window = mtf.reshape(
        x, x.shape.dims[:-2] + [mtf.Dimension('history', 1)] + self.inner_dims)
    if history is None:
      return window, None
    window = mtf.concat([history, window], 'history')
    size = history.shape.get_dim_by_name('history').size
    return window, mtf.slice(window, 1, size, 'history')

  def call(self, context, x, losses=None):
    """Applies the block; see the class for shapes.

    Args:
      context: a transformer.Context.
      x: a Tensor.
      losses: unused.

    Returns:
      A Tensor of the shape of x.

    Raises:
      errors.UserError: the model is a prefix language model, in which a mixer
        would have to be causal at some positions and not at others.
    """
    del losses
    if context.model.input_full_attention:
      raise errors.UserError(
          f'{type(self).__name__} cannot be used with input_full_attention='
          'True: a mixer is causal at all positions or at none')
    x1 = self.gated_input(context, x)
    has_state = self.history_size(context) > 0
    if context.mode == 'incremental':
      state, = context.get_states(1) if has_state else [None]
      x2, state = self.mix_step(context, x1, state)
      if has_state:
        context.record_new_states([state])
    else:
      if context.mode == 'first_part' and has_state:
        context.record_new_states([self.initial_state(context, x1)])
      x2 = self.mix(context, x1)
    return self.output(context, x2)


def segments(context):
  """Says which positions belong together, as T5's attention tells them apart.

  Args:
    context: a transformer.Context.

  Returns:
    An integer Tensor, shape [batch, length]: the segment (the packed example,
    or its sub-target) of each position, 0 for padding. None if a row is one
    segment.
  """
  for ids in (context.subsequence_id, context.sequence_id):
    if isinstance(ids, mtf.Tensor) and context.length_dim in ids.shape.dims:
      return ids
  return None


def readable(context, memory_length_dim):
  """Says which positions each position may read.

  Args:
    context: a transformer.Context.
    memory_length_dim: a Dimension of the size of context.length_dim, with
      another name.

  Returns:
    A Tensor of the activations' dtype, shape [length, memory_length], with
    batch before these where rows are packed or padded: 1 for a position of the
    same segment, which in a decoder is not in the future; 0 for all others.
  """
  mask = mtf.ones(
      context.mesh, mtf.Shape([context.length_dim, memory_length_dim]),
      context.activation_dtype)

  def keep(compare, values):
    values_of_memory = mtf.rename_dimension(
        values, context.length_dim.name, memory_length_dim.name)
    return mask * mtf.cast(compare(values, values_of_memory), mask.dtype)

  if context.model.autoregressive:
    mask = keep(mtf.greater_equal, mtf.range(
        context.mesh, context.length_dim, tf.int32))
  ids = segments(context)
  if ids is not None:
    mask = keep(mtf.equal, ids) * mtf.cast(mtf.not_equal(ids, 0), mask.dtype)
  return mask


def combined(dims):
  """Returns one Dimension of the size of dims, named as the first of them."""
  return mtf.Dimension(dims[0].name, mtf.Shape(dims).size)


def require_positive(name, value):
  """Returns value; raises errors.UserError if it is no integer >= 1."""
  if not isinstance(value, int) or value < 1:
    raise errors.UserError(f'{name} (={value}) must be an integer >= 1')
  return value
