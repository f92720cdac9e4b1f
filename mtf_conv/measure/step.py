"""A step of training: the Transformer over convolutions, at any length."""

from mtf_conv import compat

compat.install()

import tensorflow.compat.v1 as tf  # noqa: E402

from mtf_conv.measure import (  # noqa: E402
  graph,
  memory,
  models,
  plain,
  reference,
  results,
  timing,
)

LENGTHS = (64, 128, 256, 512, 1024, 2048, 4096)
TARGETS = 64


def bench(seconds, lengths=LENGTHS, tokens=4096, size=models.BENCH_SIZE,
          say=print):
  """Times steps of training of 4+4 layers, d_model 256.

  Args:
    seconds: for how long all are timed.
    lengths: of inputs; targets are 64 long.
    tokens: input tokens in a batch, at any length.
    size: gin bindings.
    say: is told of each case before it is measured.

  Returns:
    A list of results.row.

  Raises:
    errors.UserError: a model differs from the one of plain convolutions.
  """
  steps = {}
  for length in lengths:
    for kind in ('transformer', 'lightconv'):
      say(f'{kind} N={length}')
      steps[f'{kind} N={length}'] = training_step(
          kind, tokens // length, length, TARGETS, size)
  times = timing.interleave(
      steps, seconds, min_rounds=3, warm_up=1, settle=0)
  rows = results.rows('train step', times, [
      *((f'transformer N={n}', f'lightconv N={n}') for n in lengths),
      # The number of input tokens is the same, so these are times per token.
      *((f'lightconv N={n}', f'lightconv N={lengths[0]}')
        for n in lengths[1:])])
  for length in (512, 2048):
    if length in lengths:
      say(f'peak memory N={length}')
      peaks = {kind: memory.peak(kind, tokens // length, length, TARGETS, size)
               for kind in ('lightconv', 'transformer')}
      rows.append(results.row(
          f'peak memory of a train step: lightconv N={length} / '
          f'transformer N={length}', peaks['lightconv'] / peaks['transformer']))
  return rows


def training_step(kind, batch, inputs, targets, size, check=True):
  """Builds and checks a model.

  Args:
    kind: one of models.KINDS.
    batch: rows in a batch.
    inputs: the length of inputs.
    targets: the length of targets.
    size: gin bindings that come after those of the mini model.
    check: whether to compare it with the model of plain convolutions.

  Returns:
    A function without arguments that trains the model for one step.

  Raises:
    errors.UserError: the loss or a gradient differs.
  """
  models.parse([f'models/{kind}.mini.gin'], size)
  with graph.Builder() as builder:
    loss, gradients = models.training(builder, batch, inputs, targets)
    updates = models.optimize(builder, gradients)
    lowering = builder.lower()
    fetched = [lowering.export_to_tf_tensor(t) for t in (loss, *gradients)]
    sess = builder.session(lowering)
    if check and kind != 'transformer':
      weights, found = sess.run(
          [{v.op.name: v for v in tf.global_variables()}, fetched])
      # In float32 the gradient of a filter, which is a small sum of large
      # numbers, is known to three digits after as many layers.
      reference.check(f'{kind} N={inputs}', found, _plain(
          batch, inputs, targets, weights), tolerance=1e-2)
  return graph.timed(
      sess, [lowering.lowered_operation(op) for op in updates])


def _plain(batch, inputs, targets, weights):
  """Loss and gradients of the model that was parsed, without a fast path."""
  with graph.Builder() as builder, plain.convolutions():
    tensors = models.training(builder, batch, inputs, targets)
    lowering = builder.lower()
    fetched = [lowering.export_to_tf_tensor(t)
               for t in (tensors[0], *tensors[1])]
    with builder.session(lowering, weights) as sess:
      return sess.run(fetched)
