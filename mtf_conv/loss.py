"""T5's loss, without a tensor of one-hot targets.

For logits x of one target t, of V ids, with label smoothing s,

    q[v]  = (1 - s) [v = t] + s / V
    log z = log sum_v exp(x[v])
    loss  = sum_v q[v] (log z - x[v]) + z_loss (log z)^2

T5 makes tensors of the size of the logits for q, for its product with the log
probabilities, and for the gradient of every step on the way. Here there is one,
exp(x - max x), from which the gradient is made as well.
"""

import copy

import gin
import mesh_tensorflow as mtf
import tensorflow.compat.v1 as tf
from mesh_tensorflow.transformer import transformer

from mtf_conv import chunked_loss, conv_lowerings


@gin.configurable(module='mtf_conv.loss')
def cross_entropy(model, context, logits, targets, vocab_dim, one_hot=None):
  """The loss of a Unitransformer; for gin: Unitransformer.loss_fn.

  Args:
    model: a transformer.Unitransformer, which says what label smoothing and
      z-loss there are.
    context: a transformer.Context; there is a z-loss in training only.
    logits: a Tensor, shape [rows..., vocab_dim].
    targets: an integer Tensor, shape [rows...]; 0 is padding and counts not.
    vocab_dim: a Dimension.
    one_hot: whether to compute it as T5 does; None for where XLA compiles, as
      on every TPU: what is gained there has not been measured.

  Returns:
    A Tensor of the activations' dtype, shape [].
  """
  if conv_lowerings.in_xla() if one_hot is None else one_hot:
    stock = copy.copy(model)
    stock._loss_fn = None
    return stock._compute_loss(context, logits, targets, vocab_dim)
  weights = mtf.to_float(mtf.greater(targets, 0))
  if model.loss_on_targets_only:
    weights *= mtf.to_float(mtf.logical_not(
        transformer.delimited_lm_inputs_mask(targets)))
  weights /= model.loss_denominator(targets, context.num_microbatches)
  targets = mtf.maximum(targets, 0)
  options = (vocab_dim, model.label_smoothing,
             model.z_loss if context.train else 0.0)
  product = chunked_loss.projection(logits, vocab_dim)
  if product:
    loss = chunked_loss.ChunkedCrossEntropy(
        *product, targets, weights, *options, context.train).outputs[0]
  else:
    loss = mtf.reduce_sum(
        weights * softmax_cross_entropy(logits, targets, *options))
  return mtf.cast(loss, context.activation_dtype)


def softmax_cross_entropy(logits, targets, vocab_dim, label_smoothing=0.0,
                          z_loss=0.0):
  """The loss of each target.

  Args:
    logits: a Tensor, shape [rows..., vocab_dim].
    targets: an integer Tensor, shape [rows...]; one that is not in
      [0, vocabulary) has no logit, and is left with s / V of each id.
    vocab_dim: a Dimension.
    label_smoothing: s.
    z_loss: the weight of the square of log z.

  Returns:
    A float32 Tensor, shape [rows...].

  Raises:
    ValueError: shapes or dtypes that do not fit.
  """
  return CrossEntropyOperation(
      logits, targets, vocab_dim, label_smoothing, z_loss).outputs[0]


class CrossEntropyOperation(mtf.Operation):
  """See softmax_cross_entropy.

  Its outputs are the losses and, for the gradient, exp(x - max x) in the dtype
  of the logits and, for each row, what to multiply it with.

  Attributes:
    vocab_dim: a Dimension.
    label_smoothing: a float.
    z_loss: a float.
  """

  def __init__(self, logits, targets, vocab_dim, label_smoothing, z_loss):
    super().__init__([logits, targets], name='cross_entropy')
    if logits.shape.dims != [*targets.shape.dims, vocab_dim]:
      raise ValueError(
          f'logits {logits.shape} must have the dimensions of targets '
          f'{targets.shape}, in its order, then {vocab_dim}')
    if not targets.dtype.is_integer:
      raise ValueError(f'targets must be integers, but are {targets.dtype}')
    self.vocab_dim = vocab_dim
    self.label_smoothing = label_smoothing
    self.z_loss = z_loss
    self._outputs = [
        mtf.Tensor(self, targets.shape, tf.float32, index=0),
        mtf.Tensor(self, logits.shape, logits.dtype, index=1),
        mtf.Tensor(self, targets.shape, tf.float32, index=2)]

  def gradient(self, grad_ys):
    """Returns the gradient of logits, and None for targets."""
    return [CrossEntropyGradOperation(self, grad_ys[0]).outputs[0], None]

  def lower(self, lowering):
    """Lowers to each processor's slice, and sums over the vocabulary's axis."""
    mesh_impl = lowering.mesh_impl(self)
    logits, targets = (lowering.tensors[t] for t in self.inputs)
    axis = mesh_impl.tensor_dimension_to_mesh_axis(self.vocab_dim)

    def reduce(laid_out, how, numbers):
      """Numbers of each target, from those of the parts of the vocabulary."""
      if axis is None:
        return laid_out
      lowering.add_counter(
          f'allreduce/{[axis]}/cross_entropy',
          numbers * mesh_impl.laid_out_size(self.inputs[1].shape))
      return mesh_impl.allreduce(laid_out, [axis], how)

    maxima = reduce(mesh_impl.slicewise(
        lambda x: tf.cast(tf.reduce_max(x, -1), tf.float32), logits), 'MAX', 1)
    exps, sums = mesh_impl.slicewise(
        self._exps_and_sums, logits, targets, maxima, self.part(mesh_impl))
    losses, factors = mesh_impl.slicewise(
        self._losses_and_factors, maxima, reduce(sums, 'SUM', 3))
    for output, laid_out in zip(self.outputs, (losses, exps, factors)):
      lowering.set_tensor_lowering(output, laid_out)

  def part(self, mesh_impl):
    """Which part of the vocabulary a processor has, 0 if it has all of it."""
    axis = mesh_impl.tensor_dimension_to_mesh_axis(self.vocab_dim)
    return 0 if axis is None else mesh_impl.laid_out_pcoord(axis)

  @property
  def off_value(self):
    """The part of q that every id has."""
    return self.label_smoothing / self.vocab_dim.size

  def on_values(self, targets, part, size):
    """Finds the part of q that only the target has, in one slice.

    Args:
      targets: a tf.Tensor, shape [rows...].
      part: of the vocabulary, which the slice is.
      size: of that part.

    Returns:
      (columns of the slice, what q has there: 0 if the target is elsewhere),
      of all rows in one dimension.
    """
    columns = tf.reshape(targets, [-1]) - tf.cast(part * size, targets.dtype)
    there = (columns >= 0) & (columns < size)
    return (tf.where_v2(there, columns, 0),
            (1 - self.label_smoothing) * tf.cast(there, tf.float32))

  def _exps_and_sums(self, logits, targets, maxima, part):
    """Returns exp(x - max x), and of one part of the vocabulary three sums.

    These are of exp(x - max x), of q (x - max x) and of q: [3, rows...].
    """
    size = logits.shape.as_list()[-1]
    x = tf.reshape(tf.cast(logits, tf.float32), [-1, size])
    flat_maxima = tf.reshape(maxima, [-1])
    exps = tf.exp(x - flat_maxima[:, None])
    columns, on_values = self.on_values(targets, part, size)
    # Read from x: TensorFlow exponentiates in place what nothing else reads.
    of_target = tf.gather(x, columns[:, None], batch_dims=1)[:, 0]
    weighted = on_values * (of_target - flat_maxima)
    if self.label_smoothing:
      weighted += self.off_value * (
          tf.reduce_sum(x, -1) - size * flat_maxima)
    sums = tf.stack([tf.reduce_sum(exps, -1), weighted,
                     on_values + size * self.off_value])
    return (tf.reshape(tf.cast(exps, logits.dtype), logits.shape),
            tf.reshape(sums, [3, *maxima.shape.as_list()]))

  def _losses_and_factors(self, maxima, sums):
    """Returns the losses, and what p and the z-loss make of exp(x - max x)."""
    sum_of_exps, weighted, sum_of_q = tf.unstack(sums)
    shifted_log_z = tf.log(sum_of_exps)
    log_z = maxima + shifted_log_z
    return (sum_of_q * shifted_log_z - weighted
            + self.z_loss * tf.square(log_z),
            (sum_of_q + 2 * self.z_loss * log_z) / sum_of_exps)


class CrossEntropyGradOperation(mtf.Operation):
  """From that of the losses: the gradient of the logits.

  dx[v] = dloss ((sum_v q[v] + 2 z_loss log z) softmax(x)[v] - q[v])
  """

  def __init__(self, forward, dlosses):
    logits, targets = forward.inputs
    _, exps, factors = forward.outputs
    super().__init__([dlosses, exps, factors, targets],
                     name='cross_entropy_grad')
    self._forward = forward
    self._outputs = [mtf.Tensor(self, logits.shape, logits.dtype)]

  def lower(self, lowering):
    """Lowers to each processor's slice."""
    mesh_impl = lowering.mesh_impl(self)
    lowering.set_tensor_lowering(self.outputs[0], mesh_impl.slicewise(
        self._dlogits, *(lowering.tensors[t] for t in self.inputs),
        self._forward.part(mesh_impl)))

  def _dlogits(self, dlosses, exps, factors, targets, part):
    size = exps.shape.as_list()[-1]
    dlosses = tf.reshape(dlosses, [-1])
    factors = dlosses * tf.reshape(factors, [-1])
    dlogits = tf.reshape(tf.cast(exps, tf.float32), [-1, size]) * (
        factors[:, None])
    if self._forward.label_smoothing:
      dlogits -= self._forward.off_value * dlosses[:, None]
    columns, on_values = self._forward.on_values(targets, part, size)
    rows = tf.range(dlosses.shape.as_list()[0], dtype=columns.dtype)
    dlogits = tf.tensor_scatter_nd_sub(
        dlogits, tf.stack([rows, columns], 1), on_values * dlosses)
    return tf.reshape(tf.cast(dlogits, exps.dtype), exps.shape)
