"""The loss and its gradients without the logits of a whole batch.

For hidden states h of one target t with weight w, the rows W[v] of a softmax,
and label smoothing s, of V ids,

    x[v]  = h W[v]
    q[v]  = (1 - s) [v = t] + s / V
    log z = log sum_v exp(x[v])
    loss  = w (sum_v q[v] (log z - x[v]) + z_loss (log z)^2)

    dx[v] = a p[v] - w q[v],  a = w (sum_v q[v] + 2 z_loss log z)
    dh    = a sum_v p[v] W[v] - w (1 - s) W[t] - w s / V sum_v W[v]
    dW[v] = sum_targets p[v] (a h) - ...,      p = softmax(x)

Targets are taken a chunk at a time: of the size of the vocabulary are one
product, its softmax and the gradient of W, and no more. What is 1 at the target
is a row of W or of dW, never a column of a one-hot tensor.
"""

import math

import mesh_tensorflow as mtf
import tensorflow.compat.v1 as tf

from mtf_conv.base import mesh

# Logits in a chunk: what the caches of a server's processor hold.
_LOGITS = 16 << 20


def projection(logits, vocab_dim):
  """Finds the product that logits are.

  Args:
    logits: a Tensor, shape [rows..., vocab_dim].
    vocab_dim: a Dimension.

  Returns:
    (hidden, weights), Tensors of the shapes [rows..., d_model] and
    [vocab_dim, d_model] or [d_model, vocab_dim]; None if they are computed in
    another way, as those of an ensemble are.
  """
  operation = logits.operation
  if not isinstance(operation, mtf.ops.EinsumOperation) or len(
      operation.inputs) != 2:
    return None
  hidden, weights = operation.inputs
  model_dim = hidden.shape.dims[-1]
  if (set(weights.shape.dims) != {vocab_dim, model_dim}
      or logits.shape.dims != [*hidden.shape.dims[:-1], vocab_dim]):
    return None
  return hidden, weights


class ChunkedCrossEntropy(mtf.Operation):
  """The weighted sum of the losses of all targets.

  Its outputs are the sum, a float32 Tensor of shape [], and its gradients for
  hidden and for weights, which take their shapes and dtypes. They are computed
  with it, chunk by chunk, if there is one who reads them.
  """

  def __init__(self, hidden, weights, targets, target_weights, vocab_dim,
               label_smoothing=0.0, z_loss=0.0, train=True, logits=_LOGITS):
    """Makes the operation.

    Args:
      hidden: a Tensor, shape [rows..., d_model].
      weights: a Tensor, shape [vocab_dim, d_model] or [d_model, vocab_dim].
      targets: an integer Tensor, shape [rows...]; one that is not in
        [0, vocabulary) has no logit, and is left with s / V of each id.
      target_weights: w of each target, a float32 Tensor, shape [rows...]. It
        has no gradient.
      vocab_dim: a Dimension.
      label_smoothing: s.
      z_loss: the weight of the square of log z.
      train: whether the gradients will be read: a chunk begins when those of
        the one before are there.
      logits: how many there are in a chunk at most.

    Raises:
      ValueError: shapes or dtypes that do not fit.
    """
    super().__init__([hidden, weights, targets, target_weights],
                     name='chunked_cross_entropy')
    *rows, model_dim = hidden.shape.dims
    if set(weights.shape.dims) != {vocab_dim, model_dim}:
      raise ValueError(
          f'weights {weights.shape} must have the dimensions {vocab_dim} and '
          f'{model_dim}')
    for name, tensor in (('targets', targets),
                         ('target_weights', target_weights)):
      if tensor.shape.dims != rows:
        raise ValueError(f'{name} {tensor.shape} must have the dimensions '
                         f'{mtf.Shape(rows)} of hidden')
    if not targets.dtype.is_integer:
      raise ValueError(f'targets must be integers, but are {targets.dtype}')
    self._vocab_dim, self._model_dim = vocab_dim, model_dim
    self._label_smoothing, self._z_loss = label_smoothing, z_loss
    self._train, self._logits = train, logits
    self._vocab_first = weights.shape.dims[0] == vocab_dim
    self._outputs = [
        mtf.Tensor(self, mtf.Shape([]), tf.float32, index=0),
        mtf.Tensor(self, hidden.shape, hidden.dtype, index=1),
        mtf.Tensor(self, weights.shape, weights.dtype, index=2)]

  def gradient(self, grad_ys):
    """Returns the gradients of hidden and weights, None for the others."""
    _, dhidden, dweights = self.outputs
    return [mtf.cast(grad_ys[0], dy.dtype) * dy
            for dy in (dhidden, dweights)] + [None, None]

  def lower(self, lowering):
    """Lowers to each processor's slice, chunk by chunk of its targets."""
    mesh_impl = lowering.mesh_impl(self)
    axis_of = mesh_impl.tensor_dimension_to_mesh_axis
    vocab_axis, model_axis = axis_of(self._vocab_dim), axis_of(self._model_dim)
    hidden, weights, targets, target_weights = (
        lowering.tensors[t] for t in self.inputs)
    part = 0 if vocab_axis is None else mesh_impl.laid_out_pcoord(vocab_axis)
    rows = math.prod(mesh_impl.slice_shape(self.inputs[2].shape))
    size = mesh_impl.slice_shape(mtf.Shape([self._vocab_dim]))[0]

    def reduced(laid_out, axis, how, numbers):
      """Numbers of each target, from the parts that an axis splits."""
      if axis is None:
        return laid_out
      lowering.add_counter(
          f'allreduce/{[axis]}/chunked_cross_entropy',
          numbers * mesh_impl.laid_out_size(self.inputs[2].shape))
      return mesh_impl.allreduce(laid_out, [axis], how)

    column_sums = mesh_impl.slicewise(self._column_sums, weights)
    loss, dhidden, dweights, after = 0.0, [], [], []
    for begin, end in _chunks(rows, max(1, self._logits // size)):
      chunk, ids, numbers, there = mesh_impl.slicewise(
          lambda h, t, w, part, *after, begin=begin, end=end: self._chunk(
              h, t, w, part, size, begin, end, after),
          hidden, targets, target_weights, part, *after)
      x = reduced(mesh_impl.slicewise(self._product, chunk, weights),
                  model_axis, 'SUM', size)
      shares, log_parts = mesh_impl.slicewise(_softmax, x)
      maxima = reduced(log_parts, vocab_axis, 'MAX', 1)
      of_q = reduced(mesh_impl.slicewise(
          self._of_q, chunk, weights, ids, there, column_sums),
          model_axis, 'SUM', 1)
      sums = reduced(mesh_impl.slicewise(
          lambda log_part, maxima, of_q, there: tf.stack([
              tf.exp(log_part - maxima), of_q, there + size * self._off_value]),
          log_parts, maxima, of_q, there), vocab_axis, 'SUM', 3)
      losses, factors = mesh_impl.slicewise(
          self._losses_and_factors, log_parts, maxima, sums, numbers)
      loss = mesh_impl.slicewise(lambda a, b: a + b, losses, loss)
      dhidden.append(mesh_impl.slicewise(
          self._dhidden, shares, weights, factors, ids, there, numbers,
          column_sums))
      dweights = mesh_impl.slicewise(
          self._dweights, shares, chunk, factors, ids, there, numbers,
          *dweights and [dweights])
      after = [dhidden[-1], dweights] if self._train else [loss]
    if self._train:  # That of the logits is counted where they are made.
      lowering.add_counter('einsum', 2 * mesh_impl.laid_out_size(mtf.Shape(
          [*self.inputs[0].shape.dims, self._vocab_dim])))
    split = mesh.axes_of(lowering, self.inputs[2])
    dhidden = mesh_impl.slicewise(
        lambda h, *chunks: tf.reshape(
            tf.cast(tf.concat(chunks, 0), h.dtype), h.shape), hidden, *dhidden)
    dweights = mesh_impl.slicewise(
        lambda w, dw: tf.cast(
            dw if self._vocab_first else tf.transpose(dw), w.dtype),
        weights, dweights)
    for output, laid_out, axes in zip(
        self.outputs, (loss, dhidden, dweights),
        (split, [vocab_axis], split)):
      lowering.set_tensor_lowering(output, mesh.summed(
          lowering, laid_out, axes, output, 'chunked_cross_entropy'))

  @property
  def _off_value(self):
    """The part of q that every id has."""
    return self._label_smoothing / self._vocab_dim.size

  def _column_sums(self, weights):
    """Sums the rows of weights, for label smoothing: [d_model]."""
    if not self._label_smoothing:
      return tf.zeros([])
    return tf.reduce_sum(
        tf.cast(weights, tf.float32), 0 if self._vocab_first else 1)

  def _chunk(self, hidden, targets, target_weights, part, size, begin, end,
             after):
    """Cuts out a chunk once `after` are there.

    Returns:
      hidden; the targets' rows in this part of weights; their weights; and
      1 - s, or 0 if the target is in another part. All are of one dimension,
      and hidden of two.
    """
    with tf.control_dependencies(after):
      chunk = tf.reshape(hidden, [-1, hidden.shape.as_list()[-1]])[begin:end]
    ids = tf.reshape(targets, [-1])[begin:end]
    ids -= tf.cast(part * size, ids.dtype)
    there = (ids >= 0) & (ids < size)
    return (chunk, tf.where_v2(there, ids, 0),
            tf.reshape(target_weights, [-1])[begin:end],
            (1 - self._label_smoothing) * tf.cast(there, tf.float32))

  def _product(self, chunk, weights):
    return tf.cast(tf.matmul(
        chunk, weights, transpose_b=self._vocab_first), tf.float32)

  def _rows(self, weights, ids):
    """Reads the rows of targets: [targets, d_model], float32."""
    return tf.cast(
        tf.gather(weights, ids) if self._vocab_first else
        tf.transpose(tf.gather(weights, ids, axis=1)), tf.float32)

  def _of_q(self, chunk, weights, ids, there, column_sums):
    """sum_v q[v] x[v] of each target."""
    chunk = tf.cast(chunk, tf.float32)
    found = there * tf.reduce_sum(chunk * self._rows(weights, ids), -1)
    if self._label_smoothing:
      found += self._off_value * tf.linalg.matvec(chunk, column_sums)
    return found

  def _losses_and_factors(self, log_part, maxima, sums, numbers):
    """Returns the sum of the losses, and the factor of shares in dx."""
    sum_of_parts, of_q, sum_of_q = tf.unstack(sums)
    log_z = maxima + tf.log(sum_of_parts)
    losses = sum_of_q * log_z - of_q + self._z_loss * tf.square(log_z)
    return (tf.reduce_sum(numbers * losses), numbers * (
        sum_of_q + 2 * self._z_loss * log_z) * tf.exp(log_part - log_z))

  def _dhidden(self, shares, weights, factors, ids, there, numbers,
               column_sums):
    dhidden = factors[:, None] * tf.cast(tf.matmul(
        tf.cast(shares, weights.dtype), weights,
        transpose_b=not self._vocab_first), tf.float32)
    dhidden -= (numbers * there)[:, None] * self._rows(weights, ids)
    if self._label_smoothing:
      dhidden -= self._off_value * numbers[:, None] * column_sums
    return dhidden

  def _dweights(self, shares, chunk, factors, ids, there, numbers, before=None):
    """Adds a chunk's to the gradient of weights: [vocabulary, d_model]."""
    states = tf.cast(chunk, tf.float32)
    weighted = numbers[:, None] * states
    found = tf.cast(tf.matmul(
        tf.cast(shares, chunk.dtype),
        tf.cast(factors[:, None] * states, chunk.dtype), transpose_a=True),
        tf.float32)
    if before is not None:
      found += before
    if self._label_smoothing:
      found -= self._off_value * tf.reduce_sum(weighted, 0)
    return tf.tensor_scatter_nd_sub(
        found, ids[:, None], there[:, None] * weighted)


def _softmax(x):
  """Returns exp(x) / z and log z, for the z of one part of the vocabulary.

  The greatest share is 1 / V at least: no logarithm is of 0.
  """
  shares = tf.nn.softmax(x)
  return shares, tf.reduce_max(x, -1) - tf.log(tf.reduce_max(shares, -1))


def _chunks(rows, longest):
  """Yields the bounds of chunks that differ by one row at most."""
  number = -(-rows // longest)
  for i in range(number):
    yield rows * i // number, rows * (i + 1) // number
