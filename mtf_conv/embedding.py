"""The embedding of token ids, as a lookup.

T5 multiplies a one-hot tensor with the embedding: [ids, vocabulary] elements,
nearly all of them 0, and as many again for the gradient. Here rows are read,
and the gradients of rows are summed. The variable and its values are the same.
"""

import math

import gin
import mesh_tensorflow as mtf
import tensorflow.compat.v1 as tf
from mesh_tensorflow.transformer import transformer

from mtf_conv import conv_lowerings
from mtf_conv.base import mesh


@gin.configurable(module='mtf_conv.embedding')
class LookupEmbedding(transformer.VocabEmbedding):
  """T5's VocabEmbedding, whose rows are looked up.

  For gin: transformer.get_vocab_embedding_cls.cls. Its variable and its logits
  are those of T5's class, so that checkpoints do not change.
  """

  def __init__(self, *args, one_hot=None, **kwargs):
    """Makes the variable.

    Args:
      *args: of T5's VocabEmbedding.
      one_hot: whether to multiply with a one-hot tensor, as T5 does; None for
        where XLA compiles, as on every TPU: these are slow at gathering.
      **kwargs: of T5's VocabEmbedding.
    """
    super().__init__(*args, **kwargs)
    self._one_hot = one_hot

  def ids_to_embedding(self, ids, context):
    """Returns the embeddings of ids.

    Args:
      ids: an integer Tensor, shape [rows...]; in an ensemble, one of the rows'
        dimensions is ensemble. An id outside of the vocabulary gives zeros.
      context: a transformer.Context.

    Returns:
      A Tensor of the activations' dtype, shape [rows..., d_model].
    """
    if conv_lowerings.in_xla() if self._one_hot is None else self._one_hot:
      return super().ids_to_embedding(ids, context)
    y = lookup(self._embedding_weights, ids, self._vocab_dim)
    if self._scale_variable_like_classifier_weights:
      y *= self._output_dim.size ** 0.5
    return y


def lookup(weights, ids, vocab_dim):
  """Reads rows: mtf.gather, without a one-hot tensor.

  Args:
    weights: a Tensor, shape [models..., vocab_dim, d_model].
    ids: an integer Tensor, shape [rows...], which has all dimensions of models.
    vocab_dim: a Dimension.

  Returns:
    A Tensor of the dtype of weights, shape [rows..., d_model], 0 where an id is
    not in [0, vocabulary).

  Raises:
    ValueError: shapes or dtypes that do not fit, or, when it is lowered, a
      layout that splits rows and vocabulary, or d_model, over the same axis.
  """
  return LookupOperation(weights, ids, vocab_dim).outputs[0]


class LookupOperation(mtf.Operation):
  """See lookup.

  Attributes:
    vocab_dim: a Dimension.
    model_dims: the dimensions of weights before it.
  """

  def __init__(self, weights, ids, vocab_dim):
    super().__init__([weights, ids], name='lookup')
    if len(weights.shape) < 2 or weights.shape.dims[-2] != vocab_dim:
      raise ValueError(
          f'weights {weights.shape} must have {vocab_dim} as the last but one '
          'of their dimensions')
    if not ids.dtype.is_integer:
      raise ValueError(f'ids must be integers, but are {ids.dtype}')
    self.vocab_dim = vocab_dim
    self.model_dims = weights.shape.dims[:-2]
    if not set(self.model_dims) <= set(ids.shape.dims):
      raise ValueError(
          f'ids {ids.shape} must have the dimensions {self.model_dims} of '
          f'weights {weights.shape}')
    shape = mtf.Shape([*ids.shape.dims, weights.shape.dims[-1]])
    self._outputs = [mtf.Tensor(self, shape, weights.dtype)]

  def gradient(self, grad_ys):
    """Returns the gradient of weights, and None for ids."""
    return [LookupGradOperation(self, grad_ys[0]).outputs[0], None]

  def lower(self, lowering):
    """Lowers to each processor's slice: it reads what it has of the rows."""
    mesh_impl = lowering.mesh_impl(self)
    self._check_layout(mesh_impl)
    y = mesh_impl.slicewise(
        self._read, *(lowering.tensors[t] for t in self.inputs),
        self.part(mesh_impl))
    axis = mesh_impl.tensor_dimension_to_mesh_axis(self.vocab_dim)
    lowering.set_tensor_lowering(
        self.outputs[0],
        mesh.summed(lowering, y, [axis], self.outputs[0], 'lookup'))

  def part(self, mesh_impl):
    """Which part of the vocabulary a processor has, 0 if it has all of it."""
    axis = mesh_impl.tensor_dimension_to_mesh_axis(self.vocab_dim)
    return 0 if axis is None else mesh_impl.laid_out_pcoord(axis)

  def rows(self, ids, part, shape):
    """Finds the ids of one slice in the rows of one slice of weights.

    Args:
      ids: a tf.Tensor.
      part: of the vocabulary, which weights are a slice of.
      shape: of that slice, a list.

    Returns:
      A tf.Tensor of the shape of ids: rows of the slice with all dimensions but
      the last made one, -1 where it has none.
    """
    *models, size, _ = shape
    ids -= tf.cast(part * size, ids.dtype)
    rows = ids
    stride = size
    for dim, number in zip(self.model_dims[::-1], models[::-1]):
      others = [1] * len(ids.shape)
      others[self.inputs[1].shape.dims.index(dim)] = number
      rows += tf.reshape(stride * tf.range(number, dtype=ids.dtype), others)
      stride *= number
    return tf.where_v2((ids >= 0) & (ids < size), rows, -1)

  def _check_layout(self, mesh_impl):
    """Refuses what the product with a one-hot tensor could not do either."""
    weights, ids = self.inputs
    mesh_impl.tensor_layout(mtf.Shape(
        [*ids.shape.dims, self.vocab_dim, weights.shape.dims[-1]]))

  def _read(self, weights, ids, part):
    rows = self.rows(ids, part, weights.shape.as_list())
    y = tf.gather(tf.reshape(weights, [-1, weights.shape.as_list()[-1]]),
                  tf.maximum(rows, 0))
    return tf.where_v2(rows[..., None] >= 0, y, tf.zeros([], y.dtype))


class LookupGradOperation(mtf.Operation):
  """From dy: the gradient of a LookupOperation for weights."""

  def __init__(self, forward, dy):
    weights, ids = forward.inputs
    super().__init__([dy, ids], name='lookup_grad')
    self._forward = forward
    self._outputs = [mtf.Tensor(self, weights.shape, weights.dtype)]

  def lower(self, lowering):
    """Lowers to each processor's slice: it sums what its rows get."""
    mesh_impl = lowering.mesh_impl(self)
    dweights, = self.outputs
    shape = mesh_impl.slice_shape(dweights.shape)

    def sum_rows(dy, ids, part):
      rows = self._forward.rows(ids, part, shape)
      # A row is summed up from as many terms as the batch has of its id.
      dtype = tf.float32 if dy.dtype.size < 4 else dy.dtype
      sums = tf.math.unsorted_segment_sum(
          tf.cast(tf.reshape(dy, [-1, shape[-1]]), dtype),
          tf.reshape(rows, [-1]), math.prod(shape[:-1]))
      return tf.cast(tf.reshape(sums, shape), dy.dtype)

    sums = mesh_impl.slicewise(
        sum_rows, *(lowering.tensors[t] for t in self.inputs),
        self._forward.part(mesh_impl))
    kept = mesh.axes_of(lowering, dweights)
    lowering.set_tensor_lowering(dweights, mesh.summed(
        lowering, sums, [axis for axis in mesh.axes_of(lowering, self.inputs[1])
                         if axis not in kept], dweights, 'lookup'))
