"""Decoders that say more than T5's: all beams, scores, samples that repeat.

Each is a function of a transformer.Bitransformer and of mtf Tensors that
returns mtf Tensors, for engine.Engine. The steps are those of Mesh TensorFlow's
sample_autoregressive and beam_search, without a given prefix.
"""

import mesh_tensorflow as mtf
import tensorflow.compat.v1 as tf
from mesh_tensorflow.transformer import transformer

from mtf_conv import loss

EOS = 1
UNFINISHED = -1e6  # No score of a beam is as low as that of a missing one.
FLOAT32 = mtf.VariableDType(tf.float32)


def encode(model, inputs):
  """Runs the encoder.

  Args:
    model: a transformer.Bitransformer.
    inputs: an int32 Tensor, shape [batch, length]; 0 is padding.

  Returns:
    (its output, shape [batch, length, d_model]; what the decoder needs of it, a
    dictionary of arguments of transformer.Context).
  """
  shared = model._shared_params(inputs.mesh, FLOAT32)
  layer_outputs = []
  sequence_id = mtf.minimum(inputs, 1)
  output, _ = model.encoder.call_simple(
      inputs, None, compute_loss=False, mode=tf.estimator.ModeKeys.PREDICT,
      sequence_id=sequence_id, shared_params=shared,
      layer_outputs=layer_outputs)
  to_memory = mtf.layers.rename_length_to_memory_length
  return output, dict(
      encoder_output=to_memory(output), encoder_inputs=to_memory(inputs),
      encoder_sequence_id=to_memory(sequence_id), shared_params=shared,
      encoder_layer_outputs=layer_outputs)


class _Steps:
  """The decoder of a model, one position at a time.

  Attributes:
    states: what the first step starts from, a list of Tensors.
  """

  def __init__(self, model, inputs, ids):
    """Runs the encoder.

    Args:
      model: a transformer.Bitransformer.
      inputs: an int32 Tensor, shape [batch, length].
      ids: of what will be decoded, zeros of the shape [batch..., length].
    """
    self._decoder = model.decoder
    *self._batch_dims, self._length_dim = ids.shape.dims
    self._order = mtf.range(ids.mesh, self._length_dim, tf.int32)
    _, self._encoded = encode(model, inputs)
    first = self._context(
        'first_part', self._order, constant_states=[], inputs=ids,
        position_is_default=True, initial_position=mtf.zeros(
            ids.mesh, mtf.Shape(self._batch_dims), tf.int32))
    with tf.variable_scope(self._decoder.name):
      self._decoder._call_internal(first, ids)
    self._constant_states = first.constant_states
    # Nothing is given: no state is left of anything.
    self.states = [mtf.zeros_like(state) for state in first.new_states]

  def _context(self, mode, position, **options):
    return transformer.Context(
        model=self._decoder, mesh=self._order.mesh,
        batch_dims=self._batch_dims, length_dim=self._length_dim,
        variable_dtype=FLOAT32, mode=mode, position=position, new_states=[],
        sequence_id=1, write_priority=self._order, read_priority=position,
        **self._encoded, **options)

  def __call__(self, position, ids, states):
    """Takes a step.

    Args:
      position: an int32 Tensor, shape [].
      ids: what is decoded so far, shape [batch..., length].
      states: as the step before has left them.

    Returns:
      (float32 logits, shape [batch..., vocab]; the states).
    """
    last = mtf.gather(ids, position - 1, self._length_dim)  # 0 at the start.
    context = self._context(
        'incremental', position, states=states, inputs=last,
        constant_states=self._constant_states)
    with tf.variable_scope(self._decoder.name, reuse=True):
      logits = self._decoder._call_internal(context, last)
    return mtf.to_float(logits), context.new_states


def sample(model, inputs, noise=None, *, length, scores=False, temperature=1.0,
           top_k=0, top_p=1.0):
  """Decodes the likeliest id at each position, or draws one.

  Args:
    model: a transformer.Bitransformer.
    inputs: an int32 Tensor, shape [batch, length].
    noise: from [0, 1), float32, shape [batch, length]: a number for each id
      that is drawn; None to take the likeliest.
    length: how many ids to decode at most.
    scores: whether to compute them.
    temperature: of what is drawn.
    top_k: from how many of the likeliest ids it is drawn; 0 for all.
    top_p: from the fewest of the likeliest ids that have this probability.

  Returns:
    [ids, shape [batch, length], 0 after the end; and the log-likelihoods of
    these under the model, shape [batch], if there shall be scores].
  """
  batch_dim = inputs.shape.dims[0]
  length_dim = mtf.Dimension('length', length)
  rows = mtf.Shape([batch_dim])
  ids = mtf.zeros(inputs.mesh, mtf.Shape([batch_dim, length_dim]), tf.int32)
  steps = _Steps(model, inputs, ids)
  vocab_dim = model.output_vocab_dim

  def goes_on(position, unused_ids, alive, *unused):
    return mtf.logical_and(mtf.less(position, length),
                           mtf.greater(mtf.reduce_sum(alive), 0))

  def step(position, ids, alive, total, *states):
    logits, states = steps(position, ids, states)
    if noise is None:
      chosen = mtf.argmax(logits, vocab_dim)
    else:
      chosen = mtf.slicewise(
          lambda x, u: draw(x, u, temperature, top_k, top_p),
          [logits, mtf.gather(noise, position, noise.shape.dims[-1])],
          output_shape=rows, output_dtype=tf.int32,
          splittable_dims=rows.dims)
    if scores:
      total += mtf.to_float(alive) * mtf.gather(
          mtf.log_softmax(logits, vocab_dim), chosen, vocab_dim,
          output_shape=rows)
    ids += alive * chosen * mtf.one_hot(position, length_dim, dtype=tf.int32)
    alive *= mtf.to_int32(mtf.not_equal(chosen, EOS))
    return [position + 1, ids, alive, total, *states]

  _, ids, _, total, *_ = mtf.while_loop(goes_on, step, [
      mtf.zeros(inputs.mesh, mtf.Shape([]), tf.int32), ids,
      mtf.ones(inputs.mesh, rows, tf.int32),
      mtf.zeros(inputs.mesh, rows, tf.float32), *steps.states])
  return [ids, total] if scores else [ids]


def draw(logits, noise, temperature=1.0, top_k=0, top_p=1.0):
  """Draws ids: the first whose probability, and those before it, pass noise.

  Args:
    logits: a float32 tf.Tensor, shape [batch, vocab].
    noise: a float32 tf.Tensor from [0, 1), shape [batch].
    temperature: logits are divided by it.
    top_k: how many of the likeliest ids are left; 0 for all.
    top_p: of these, the fewest of the likeliest that have this probability are
      left; 1 for all.

  Returns:
    An int32 tf.Tensor, shape [batch].
  """
  logits /= temperature
  size = logits.shape.as_list()[-1]
  is_sorted = 0 < top_k < size or top_p < 1
  if is_sorted:
    logits, ids = tf.math.top_k(logits, min(top_k or size, size))
  probabilities = tf.nn.softmax(logits)
  if top_p < 1:
    before = tf.cumsum(probabilities, axis=-1, exclusive=True)
    probabilities *= tf.cast(before < top_p, tf.float32)
  passed = tf.cumsum(probabilities, axis=-1)
  # Below 1, a float32 is so small that rounding does not lead past the last id
  # that has a probability.
  index = tf.reduce_sum(
      tf.cast(passed <= noise[:, None] * passed[:, -1:], tf.int32), -1)
  return tf.gather(ids, index, batch_dims=1) if is_sorted else index


def beam(model, inputs, *, length, beam_size, alpha, all_beams=False):
  """Searches for the likeliest answers.

  Args:
    model: a transformer.Bitransformer.
    inputs: an int32 Tensor, shape [batch, length].
    length: how many ids to decode at most.
    beam_size: how many beams there are.
    alpha: of the length penalty, ((5 + length) / 6)^alpha, by which the
      log-likelihood of an answer is divided.
    all_beams: whether each beam counts; else it ends when the best is known.

  Returns:
    [ids, shape [batch, beam, length]; scores, shape [batch, beam], of a beam
    that does not end its log-likelihood, of one that is missing less than
    UNFINISHED], the best first.
  """
  ids = mtf.zeros(inputs.mesh, mtf.Shape([
      inputs.shape.dims[0], mtf.Dimension('beam', beam_size),
      mtf.Dimension('length', length)]), tf.int32)
  steps = _Steps(model, inputs, ids)
  return list(mtf.beam_search.beam_search(
      steps, ids, alpha, states=steps.states, stop_early=not all_beams,
      decode_length=mtf.constant(inputs.mesh, length, dtype=tf.int32)))


def log_likelihoods(model, inputs, targets):
  """Scores targets.

  Args:
    model: a transformer.Bitransformer.
    inputs: an int32 Tensor, shape [batch, length].
    targets: an int32 Tensor, shape [batch, length], with their ends.

  Returns:
    [the log-likelihood of each id given those before it, float32, shape
    [batch, length], 0 for padding].
  """
  logits, _ = model.call_simple(
      inputs, targets, compute_loss=False, mode=tf.estimator.ModeKeys.EVAL)
  losses = loss.softmax_cross_entropy(logits, targets, model.output_vocab_dim)
  return [-losses * mtf.to_float(mtf.greater(targets, 0))]


def mean_state(model, inputs):
  """Embeds inputs.

  Args:
    model: a transformer.Bitransformer.
    inputs: an int32 Tensor, shape [batch, length].

  Returns:
    [the mean of the encoder's output over the positions that are no padding,
    float32, shape [batch, d_model]].
  """
  output, _ = encode(model, inputs)
  length_dim = inputs.shape.dims[-1]
  known = mtf.to_float(mtf.not_equal(inputs, 0))
  return [mtf.einsum([output, known], reduced_dims=[length_dim])
          / mtf.reduce_sum(known, reduced_dim=length_dim)]
