"""Dot-product attention as one operation with its own gradient.

For queries Q, keys K, values V of one head, a bias B and a mask D of dropout
(0 or 1 / keep_prob),

    w  = softmax(Q K^T + B)
    Y  = (w * D) V
    dV = (w * D)^T dY
    dS = w * (D * (dY V^T) - sum(dY * Y)),   dB = dS summed over what B lacks
    dQ = dS K,                               dK = dS^T Q

T5 makes its softmax of a logarithm, an exponential and the gradients of both,
and multiplies element by element where it decodes. Its self-attention and its
encoder-decoder attention are the same to rounding, with the same variables.
"""

import math

import gin
import mesh_tensorflow as mtf
import tensorflow.compat.v1 as tf
from mesh_tensorflow.transformer import attention as stock_attention
from mesh_tensorflow.transformer import transformer_layers

from mtf_conv import conv_lowerings
from mtf_conv.base import mesh


@gin.configurable(module='mtf_conv.attention')
def attention(q, k, v, memory_length_dim, key_dim, value_dim, bias=None,
              dropout_rate=0.0, dropout_broadcast_dims=None, extra_logit=None,
              context=None, float32_logits=True, z_loss_coeff=None,
              stock=None):
  """T5's attention.attention.

  Args:
    q: a Tensor, dimensions batch..., queries..., key_dim in any order.
    k: a Tensor, dimensions batch..., memory_length_dim, key_dim.
    v: a Tensor, dimensions batch..., memory_length_dim, value_dim.
    memory_length_dim: a Dimension.
    key_dim: a Dimension.
    value_dim: a Dimension.
    bias: a Tensor that is added to the logits, of some of their dimensions, or
      None.
    dropout_rate: of the weights, in training.
    dropout_broadcast_dims: Dimensions along which all drop alike.
    extra_logit: of T5's function.
    context: a transformer.Context.
    float32_logits: of T5's function; logits are in float32 here.
    z_loss_coeff: of T5's function.
    stock: whether to compute it as T5 does; None for where XLA compiles, as on
      every TPU. What it does beyond the above is left to it: an extra logit, a
      z-loss, a layout that splits keys.

  Returns:
    A Tensor of the dimensions of q without key_dim, value_dim the last.
  """
  batch = [d for d in k.shape.dims if d not in (memory_length_dim, key_dim)]
  if (conv_lowerings.in_xla() if stock is None else stock) or (
      extra_logit is not None or z_loss_coeff is not None
      or not float32_logits or not set(batch) <= set(q.shape.dims)
      or set(v.shape.dims) != {*batch, memory_length_dim, value_dim}
      or _is_split(context, (memory_length_dim, key_dim, value_dim))):
    return stock_attention.attention(
        q, k, v, memory_length_dim, key_dim, value_dim, bias, dropout_rate,
        dropout_broadcast_dims, extra_logit, context, float32_logits,
        z_loss_coeff)
  mask = None
  if context.train and dropout_rate:
    shape = mtf.Shape([*q.shape.dims, memory_length_dim]) - key_dim
    for dim in dropout_broadcast_dims or ():
      shape -= dim
    mask = mtf.dropout(mtf.ones(q.mesh, shape, v.dtype), context.train,
                       1.0 - dropout_rate)
  return AttentionOperation(q, k, v, bias, mask, memory_length_dim, key_dim,
                            value_dim).outputs[0]


@gin.configurable('FusedSelfAttention', module='mtf_conv.attention')
class SelfAttention(transformer_layers.SelfAttention):
  """T5's SelfAttention by `attention`; its arguments, scope and variables."""

  @property
  def attention_fn(self):
    """What is called with queries, keys and values."""
    stock = super().attention_fn
    return attention if stock is stock_attention.attention else stock


@gin.configurable('FusedEncDecAttention', module='mtf_conv.attention')
class EncDecAttention(transformer_layers.EncDecAttention):
  """T5's EncDecAttention by `attention`; its arguments, scope and variables."""

  @property
  def attention_fn(self):
    """What is called with queries, keys and values."""
    return attention


def _is_split(context, dims):
  model = context.model
  if not (model.layout and model.mesh_shape):
    return False
  return any(mtf.tensor_dim_to_mesh_dim_size(
      model.layout, model.mesh_shape, dim) > 1 for dim in dims)


class _Order:
  """How tensors are laid out for products of matrices.

  Attributes:
    batch: the Dimensions that q, k and v have.
    queries: those that only q has.
    weights: an mtf.Shape, batch..., queries..., memory_length_dim.
  """

  def __init__(self, q, k, memory_dim, key_dim, value_dim):
    self.batch = [d for d in k.shape.dims if d not in (memory_dim, key_dim)]
    self.queries = [d for d in q.shape.dims
                    if d not in self.batch and d != key_dim]
    self.memory_dim, self.key_dim = memory_dim, key_dim
    self.value_dim = value_dim
    self.weights = mtf.Shape([*self.batch, *self.queries, memory_dim])

  def matrices(self, x, shape, last, rows=None):
    """Brings a slice into the shape [batch, rows, last].

    Args:
      x: a tf.Tensor.
      shape: its mtf.Shape.
      last: a Dimension.
      rows: a list of Dimensions; those of queries when None.
    """
    rows = self.queries if rows is None else rows
    dims = [*self.batch, *rows, last]
    x = tf.transpose(x, [shape.dims.index(d) for d in dims])
    sizes, at = x.shape.as_list(), len(self.batch)
    return tf.reshape(x, [math.prod(sizes[:at]), math.prod(sizes[at:-1]),
                          sizes[-1]])

  def back(self, x, shape, like, last, rows=None):
    """Undoes `matrices`.

    Args:
      x: a tf.Tensor, [batch, rows, last].
      shape: an mtf.Shape.
      like: the shape of a slice of it, a list.
      last: a Dimension.
      rows: a list of Dimensions; those of queries when None.
    """
    dims = [*self.batch, *(self.queries if rows is None else rows), last]
    x = tf.reshape(x, [like[shape.dims.index(d)] for d in dims])
    return tf.transpose(x, [dims.index(d) for d in shape.dims])

  def spread(self, x, shape, sizes):
    """Brings a bias or a mask into a shape that broadcasts to the weights.

    Args:
      x: a tf.Tensor.
      shape: its mtf.Shape.
      sizes: of a slice of the weights, a list.

    Returns:
      A tf.Tensor with as many dimensions as sizes.
    """
    dims = [d for d in self.weights.dims if d in shape.dims]
    x = tf.transpose(x, [shape.dims.index(d) for d in dims])
    return tf.reshape(x, [size if d in dims else 1
                          for d, size in zip(self.weights.dims, sizes)])


class AttentionOperation(mtf.Operation):
  """See attention; its second output is w, in the dtype of v."""

  def __init__(self, q, k, v, bias, mask, memory_dim, key_dim, value_dim):
    """Makes the operation.

    Args:
      q: see attention.
      k: see attention.
      v: see attention.
      bias: see attention.
      mask: a Tensor that the weights are multiplied with, of some of their
        dimensions, or None. It has no gradient.
      memory_dim: a Dimension.
      key_dim: a Dimension.
      value_dim: a Dimension.
    """
    super().__init__([t for t in (q, k, v, bias, mask) if t is not None],
                     name='attention')
    self.order = _Order(q, k, memory_dim, key_dim, value_dim)
    self.bias, self.mask = bias, mask
    self._outputs = [mtf.Tensor(self, q.shape - key_dim + value_dim, v.dtype,
                                index=0),
                     mtf.Tensor(self, self.order.weights, v.dtype, index=1)]

  def gradient(self, grad_ys):
    """Returns the gradients of q, k, v and of the bias, none for the mask."""
    found = [*AttentionGradOperation(self, grad_ys[0]).outputs]
    return found + ([] if self.mask is None else [None])

  def lower(self, lowering):
    """Lowers to each processor's slice."""
    mesh_impl = lowering.mesh_impl(self)
    order = self.order
    for dim in (order.memory_dim, order.key_dim, order.value_dim):
      if mesh_impl.tensor_dimension_to_mesh_axis(dim) is not None:
        raise ValueError(
            f'the layout splits {dim}: give mtf_conv.attention.attention.stock '
            '= True')
    q, k, v, *others = self.inputs
    sizes = mesh_impl.slice_shape(order.weights)
    y, weights = self.outputs
    y_sizes = mesh_impl.slice_shape(y.shape)

    def slices(q_, k_, v_, *others_):
      found = dict(zip(map(id, others), others_))
      logits = tf.matmul(
          tf.cast(order.matrices(q_, q.shape, order.key_dim), tf.float32),
          tf.cast(order.matrices(k_, k.shape, order.key_dim,
                                 [order.memory_dim]), tf.float32),
          transpose_b=True)
      logits = tf.reshape(logits, sizes)
      if self.bias is not None:
        logits += tf.cast(order.spread(
            found[id(self.bias)], self.bias.shape, sizes), logits.dtype)
      w = tf.cast(tf.nn.softmax(logits), v_.dtype)
      masked = w if self.mask is None else w * order.spread(
          found[id(self.mask)], self.mask.shape, sizes)
      flat = [-1, math.prod(sizes[len(order.batch):-1]), sizes[-1]]
      values = order.matrices(v_, v.shape, order.value_dim, [order.memory_dim])
      return order.back(tf.matmul(tf.reshape(masked, flat), values), y.shape,
                        y_sizes, order.value_dim), w

    for output, laid_out in zip(self.outputs, mesh_impl.slicewise(
        slices, *(lowering.tensors[t] for t in self.inputs))):
      lowering.set_tensor_lowering(output, laid_out)
    # As T5's two products are counted.
    for dim in (order.key_dim, order.value_dim):
      lowering.add_counter('einsum', mesh_impl.laid_out_size(
          mtf.Shape([*order.weights.dims, dim])))


class AttentionGradOperation(mtf.Operation):
  """From dy: the gradients of an AttentionOperation for q, k, v and bias."""

  def __init__(self, forward, dy):
    super().__init__([dy, *forward.outputs, *forward.inputs],
                     name='attention_grad')
    self._forward = forward
    self._outputs = [
        mtf.Tensor(self, t.shape, t.dtype, index=index) for index, t in
        enumerate(t for t in forward.inputs if t is not forward.mask)]

  def lower(self, lowering):
    """Lowers to each processor's slice; sums over axes that the bias lacks."""
    mesh_impl = lowering.mesh_impl(self)
    forward, order = self._forward, self._forward.order
    dy, y, w, q, k, v, *others = self.inputs
    sizes = mesh_impl.slice_shape(order.weights)
    flat = [-1, math.prod(sizes[len(order.batch):-1]), sizes[-1]]
    memory = [order.memory_dim]

    def like(tensor):
      return mesh_impl.slice_shape(tensor.shape)

    def slices(dy_, y_, w_, q_, k_, v_, *others_):
      found = dict(zip(map(id, others), others_))
      dy_ = order.matrices(dy_, dy.shape, order.value_dim)
      y_ = order.matrices(y_, y.shape, order.value_dim)
      values = order.matrices(v_, v.shape, order.value_dim, memory)
      dw = tf.reshape(tf.matmul(dy_, values, transpose_b=True), sizes)
      masked = w_
      if forward.mask is not None:
        mask = order.spread(
            found[id(forward.mask)], forward.mask.shape, sizes)
        masked, dw = w_ * mask, dw * mask
      dv = tf.matmul(tf.reshape(masked, flat), dy_, transpose_a=True)
      dots = tf.reduce_sum(
          tf.cast(dy_, tf.float32) * tf.cast(y_, tf.float32), -1)
      dlogits = tf.cast(w_, tf.float32) * (
          tf.cast(dw, tf.float32) - tf.reshape(dots, [*sizes[:-1], 1]))
      matrix = tf.reshape(dlogits, flat)
      dq = tf.matmul(matrix, tf.cast(order.matrices(
          k_, k.shape, order.key_dim, memory), tf.float32))
      dk = tf.matmul(matrix, tf.cast(order.matrices(
          q_, q.shape, order.key_dim), tf.float32), transpose_a=True)
      gradients = [
          tf.cast(order.back(dq, q.shape, like(q), order.key_dim), q_.dtype),
          tf.cast(order.back(dk, k.shape, like(k), order.key_dim, memory),
                  k_.dtype),
          order.back(dv, v.shape, like(v), order.value_dim, memory)]
      if forward.bias is not None:
        gradients.append(_reduced(dlogits, order.weights, forward.bias))
      return tuple(gradients)

    found = mesh_impl.slicewise(
        slices, *(lowering.tensors[t] for t in self.inputs))
    split = mesh.axes_of(lowering, w)
    for output, laid_out in zip(self.outputs, found):
      kept = mesh.axes_of(lowering, output)
      lowering.set_tensor_lowering(output, mesh.summed(
          lowering, laid_out, [axis for axis in split if axis not in kept],
          output, 'attention'))
    for dim in (order.key_dim, order.value_dim):
      lowering.add_counter('einsum', 2 * mesh_impl.laid_out_size(
          mtf.Shape([*order.weights.dims, dim])))


def _reduced(dlogits, weights_shape, bias):
  """Sums over the dimensions that a bias lacks, in its order."""
  there = [d for d in weights_shape.dims if d in bias.shape.dims]
  axes = [axis for axis, d in enumerate(weights_shape.dims) if d not in there]
  found = tf.reduce_sum(dlogits, axes) if axes else dlogits
  return tf.cast(tf.transpose(
      found, [there.index(d) for d in bias.shape.dims]), bias.dtype)
