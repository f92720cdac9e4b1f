"""Decoding: the time of a token at any length, of a layer and of a model."""

import mesh_tensorflow as mtf
import numpy as np
import tensorflow.compat.v1 as tf

from mtf_conv.measure import graph, models, reference
from mtf_conv.measure.speed import (
  block_candidates,
  hugging_face,
  plain,
  results,
  timing,
)

LENGTHS = (64, 128, 256, 512, 1024, 2048, 4096)
MODEL_LENGTHS = (64, 256, 1024, 4096)
# A token takes as long at the end of a sequence as at its beginning: both what
# attention and what a convolution keeps is of a fixed size.
STEPS = 16
WHOLE_LENGTHS = (64, 512)
_NEVER = -1  # An id that no sequence has: none ends.
SOURCE = 64  # The length of inputs of whole models.
INPUTS = 128  # And where they write whole answers.


def bench(seconds, lengths=LENGTHS, model_lengths=MODEL_LENGTHS,
          whole_lengths=WHOLE_LENGTHS, d_model=512, batch=16,
          size=models.BENCH_SIZE, whole_size=(), say=print):
  """Times the first 16 tokens of sequences for which there is room.

  Args:
    seconds: for how long all layers are timed, and all models of a batch size.
    lengths: how long the sequences of a layer can get.
    model_lengths: and those of a whole model, of 4+4 layers and d_model 256.
    whole_lengths: of answers that mini models write from beginning to end.
    d_model: the number of channels of the layer.
    batch: sequences at once; of a model, 1 as well.
    size: gin bindings of the models.
    whole_size: and of those that write whole answers.
    say: is told of each case before it is measured.

  Returns:
    A list of results.row.

  Raises:
    errors.UserError: a candidate differs from the reference.
  """
  block_candidates.clear_gin()
  layers = {}
  for length in lengths:
    say(f'one layer, N={length}')
    layers.update({f'{kind} N={length}': run for kind, run in _layers(
        batch, length, d_model).items()})
  times = timing.interleave(layers, seconds, warm_up=1)
  rows = results.rows('decoding, one layer', times, [
      *((f'lightconv N={n}', f'lightconv N={lengths[0]}')
        for n in lengths[1:]),
      *((f'lightconv N={n}', f'attention N={n}') for n in lengths)])
  for model_batch in (1, batch):
    decoders = {}
    for length in model_lengths:
      for kind in ('transformer', 'lightconv'):
        say(f'{kind}, batch {model_batch}, N={length}')
        decoders[f'{kind} N={length}'] = model(
            kind, model_batch, length, size)
    times = timing.interleave(
        decoders, seconds, min_rounds=3, warm_up=1)
    rows += results.rows(
        f'greedy decoding, batch {model_batch}', times,
        [(f'transformer N={n}', f'lightconv N={n}') for n in model_lengths])
    for length in whole_lengths:
      kinds = ('transformer', 'lightconv')
      say(f'whole answers of {length} tokens, batch {model_batch}')
      decoders = {
          kind: model(kind, model_batch, length, whole_size, INPUTS, length)
          for kind in kinds}
      peers = hugging_face.greedy(
          model_batch, INPUTS, length, models.VOCABULARY, whole_size, say)
      times = timing.interleave(
          {**decoders, **peers}, seconds, min_rounds=3, warm_up=1)
      rows += results.rows(
          f'{length} tokens greedily, mini, {INPUTS} inputs, batch '
          f'{model_batch}', times,
          [kinds, *((peer, kind) for peer in peers for kind in kinds)])
  return rows


def _layers(batch, length, d_model):
  """Builds and checks the layers; returns functions to be timed."""
  rng = np.random.RandomState(0)
  compared = {
      'lightconv': block_candidates.GatedConv(
          rng, d_model, 7, False, causal=True),
      'attention': block_candidates.Attention(rng, d_model, causal=True)}
  x = rng.standard_normal((batch, STEPS, d_model)).astype('float32')
  dims = [mtf.Dimension(*d) for d in zip(
      ('batch', 'length', 'd_model'), (batch, length, d_model))]
  steps_dim = mtf.Dimension('steps', STEPS)
  with graph.Builder() as builder:
    inputs = builder.tensor(x, [dims[0], steps_dim, dims[2]])
    tensors = {name: _loop(builder.mesh, name, block, inputs, dims, steps_dim)
               for name, block in compared.items()}
    lowering = builder.lower()
    exported = {name: lowering.export_to_tf_tensor(y)
                for name, y in tensors.items()}
    sess = builder.session(lowering, {
        f'{name}/{variable}': array for name, block in compared.items()
        for variable, array in block.variables.items()})
  for name, block in compared.items():
    y, _ = block.expected(x, np.zeros_like(x), None)
    reference.check(f'decoding by {name}, N={length}',
                    [sess.run(exported[name])], [y[:, -1]])
  return {name: graph.timed(sess, [y.op]) for name, y in exported.items()}


def _loop(mesh, name, block, inputs, dims, steps_dim):
  """Decodes as T5 does, with a layer for a model; returns the last output."""
  batch, length, model = dims
  length_range = mtf.range(mesh, length, tf.int32)
  first = models.context(
      mesh, dims, autoregressive=True, mode='first_part',
      position=length_range, position_is_default=True, new_states=[],
      constant_states=[], initial_position=mtf.zeros(
          mesh, mtf.Shape([batch]), tf.int32),
      write_priority=length_range, read_priority=length_range)
  with tf.variable_scope(name):
    block.call(first, mtf.zeros(mesh, mtf.Shape(dims)))

  def step(position, unused_y, *states):
    context = models.context(
        mesh, dims, autoregressive=True, mode='incremental', position=position,
        states=states, new_states=[], constant_states=first.constant_states,
        write_priority=length_range, read_priority=position)
    with tf.variable_scope(name, reuse=True):
      y = block.call(context, mtf.gather(inputs, position, steps_dim))
    return [position + 1, y, *context.new_states]

  return mtf.while_loop(
      lambda position, *_: mtf.reduce_all(mtf.less(position, steps_dim.size)),
      step, [first.initial_position, mtf.zeros(mesh, mtf.Shape([batch, model])),
             *(mtf.zeros_like(state) for state in first.new_states)])[1]


def model(kind, batch, length, size=(), source=SOURCE, steps=STEPS,
          check=True):
  """Builds and checks a mini model.

  Args:
    kind: its name without the size.
    batch: sequences at once.
    length: for how many tokens there is room.
    size: gin bindings that come after the file.
    source: the length of inputs.
    steps: how many tokens are decoded, from the first on.
    check: whether to compare what it decodes with the plain model's logits.

  Returns:
    A function without arguments that decodes greedily.

  Raises:
    errors.UserError: it decodes something else.
  """
  models.parse([f'models/{kind}.mini.gin'], size)
  source = np.random.RandomState(0).randint(
      2, models.VOCABULARY, (batch, source)).astype('int32')
  with graph.Builder() as builder:
    ids = _greedy(models.make(), _ids(builder, source), length, steps)
    lowering = builder.lower()
    ids = lowering.export_to_tf_tensor(ids)
    sess = builder.session(lowering)
    weights, found = sess.run(
        [{v.op.name: v for v in tf.global_variables()}, ids])
  decoder = graph.timed(sess, [ids.op])
  if not check:
    return decoder
  # All rows are decoded alike: one is compared.
  found = found[:1, :STEPS]
  plain.bind()
  with graph.Builder() as builder:
    logits, _ = models.make().call_simple(
        _ids(builder, source[:1]), _ids(builder, found), compute_loss=False,
        mode='eval', decoder_sequence_id=_ids(builder, np.ones_like(found)))
    lowering = builder.lower()
    logits = lowering.export_to_tf_tensor(logits)
    with builder.session(lowering, weights) as plain_sess:
      logits = plain_sess.run(logits)
  chosen = np.take_along_axis(logits, found[..., None], -1)
  reference.check(f'decoding by {kind}, N={length}', [chosen],
                  [logits.max(-1, keepdims=True)], tolerance=1e-4)
  return decoder


def _ids(builder, array):
  return builder.tensor(array, [mtf.Dimension(*d) for d in zip(
      ('batch', 'length'), array.shape)])


def _greedy(model, source, length, steps):
  """As Bitransformer.decode, for a fixed number of tokens."""
  sequence_id = mtf.minimum(source, 1)
  shared = model._shared_params(source.mesh, mtf.VariableDType(tf.float32))
  encoded, _ = model.encoder.call_simple(
      source, None, compute_loss=False, mode='infer', sequence_id=sequence_id,
      shared_params=shared)
  to_memory = mtf.layers.rename_length_to_memory_length
  ids_shape = mtf.Shape(
      [source.shape.dims[0], mtf.Dimension('length', length)])
  return model.decoder.sample_autoregressive(
      mtf.zeros(source.mesh, ids_shape, tf.int32), max_steps=steps,
      stop_at_token=_NEVER, has_partial_sequences=False,
      encoder_output=to_memory(encoded), encoder_inputs=to_memory(source),
      encoder_sequence_id=to_memory(sequence_id), shared_params=shared)
