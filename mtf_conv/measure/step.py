"""A step of training: the Transformer over convolutions, at any length."""

from mtf_conv import compat

compat.install()

import pandas as pd  # noqa: E402
import tensorflow.compat.v1 as tf  # noqa: E402

from mtf_conv import errors, gin_files, training  # noqa: E402
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
PEAK_LENGTHS = (512, 2048)
T5_LENGTHS = (512,)
TOKENS = 4096
TARGETS = 64
# Embeddings and logits over T5's 32,128 ids take as long in every model, and at
# d_model 256 more than all layers together: most figures are without them.
FEW_IDS = 1000


def bench(seconds, lengths=LENGTHS, peak_lengths=PEAK_LENGTHS,
          t5_lengths=T5_LENGTHS, tokens=TOKENS, size=models.BENCH_SIZE,
          say=print, kinds=None):
  """Times steps of training of 4+4 layers, d_model 256.

  Args:
    seconds: for how long all are timed.
    lengths: of inputs; targets are 64 long.
    peak_lengths: those of lengths of which memory is measured as well.
    t5_lengths: those of lengths that are timed with T5's vocabulary as well.
    tokens: input tokens in a batch, at any length.
    size: gin bindings for mini models.
    say: is told of each case before it is measured.
    kinds: names of models that are compared with the Transformer; lightconv and
      the user's own when None.

  Returns:
    A list of results.row.

  Raises:
    errors.UserError: a model differs from the one of plain convolutions.
  """
  kinds = [kind for kind in kinds or [
      'lightconv', *gin_files.added_model_names('mini')]
           if kind != 'transformer']
  paths = {kind: models.resolve(f'{kind}.mini')[0]
           for kind in ('transformer', *kinds)}
  rows = []
  for name, case_lengths, vocabulary in (
      ('train step', lengths, FEW_IDS),
      ("train step, T5's vocabulary",
       [n for n in t5_lengths if n in lengths], models.VOCABULARY)):
    if not case_lengths:
      continue
    times = timing.interleave({
        f'{kind} N={length}': training_step(
            paths[kind], tokens // length, length, TARGETS,
            vocabulary, size, say)
        for length in case_lengths for kind in ('transformer', *kinds)},
        seconds, min_rounds=3, warm_up=1)
    rows += results.rows(name, times, [
        *((f'transformer N={n}', f'{kind} N={n}')
          for kind in kinds for n in case_lengths),
        # There are as many input tokens: these are ratios of times per token.
        *((f'{kind} N={n}', f'{kind} N={case_lengths[0]}')
          for kind in kinds for n in case_lengths[1:])])
  if not memory.can_measure():
    say('no peak memory: only Linux tells it')
    peak_lengths = ()
  for length in [n for n in peak_lengths if n in lengths]:
    say(f'peak memory, N={length}')
    peaks = {kind: memory.peak(
        paths[kind], tokens // length, length, TARGETS, FEW_IDS, size)
                 for kind in ('transformer', *kinds)}
    rows += [results.row(
        f'peak memory of a train step: {kind} N={length} / transformer '
        f'N={length}', peaks[kind] / peaks['transformer']) for kind in kinds]
  return rows


def figure1(paths, size, lengths, tokens, vocabulary, say=print):
  """Measures how many examples models train on in a second.

  Args:
    paths: the models' gin files.
    size: gin bindings that come after them.
    lengths: of inputs; targets are as T5's span corruption has them.
    tokens: input tokens in a batch, at any length.
    vocabulary: how many ids there are.
    say: is told of each case before it is measured.

  Returns:
    A pd.DataFrame: inputs, targets, batch, model, examples_per_second.

  Raises:
    errors.UserError: a model differs from the one of plain convolutions.
  """
  rows = []
  for length in lengths:
    batch, targets = tokens // length, models.targets_length(length)
    times = timing.interleave({
        models.kind(path): training_step(
            path, batch, length, targets, vocabulary, size, say)
        for path in paths}, 0, min_rounds=3, warm_up=1)
    rows += [(length, targets, batch, model, batch / times.median(model))
             for model in times]
  return pd.DataFrame(rows, columns=[
      'inputs', 'targets', 'batch', 'model', 'examples_per_second'])


def training_step(path, batch, inputs, targets, vocabulary, size, say=print,
                  check=True):
  """Builds and checks a model.

  Args:
    path: its gin file.
    batch: rows in a batch.
    inputs: the length of inputs.
    targets: the length of targets.
    vocabulary: how many ids there are.
    size: gin bindings that come after the file.
    say: is told what is built.
    check: whether to compare it with the model of plain convolutions.

  Returns:
    A function without arguments that trains the model for one step.

  Raises:
    errors.UserError: the loss or a gradient differs, or there is no row.
  """
  if batch < 1:
    raise errors.UserError(
        f'a batch must have tokens for at least one input of length {inputs}')
  name = f'{models.kind(path)} N={inputs}'
  say(name)
  models.parse([path], size)
  shape = (batch, inputs, targets, vocabulary)
  with graph.Builder() as builder:
    training.read_once(tf.get_variable_scope())
    loss, gradients = models.training(builder, *shape)
    updates = models.optimize(builder, gradients)
    lowering = builder.lower()
    fetched = [lowering.export_to_tf_tensor(t) for t in (loss, *gradients)]
    sess = builder.session(lowering)
    # The Transformer has no convolution that could be wrong.
    if check and models.kind(path) != 'transformer':
      weights, found = sess.run(
          [{v.op.name: v for v in tf.global_variables()}, fetched])
      # What rounding takes to the other side of a ReLU's 0 changes single
      # entries of a gradient of wi: of the plain model between float32 and
      # float64 by 5e-3, of the fast one by up to 1e-2. The block has no ReLU
      # and is compared more closely, in block.py.
      reference.check(name, found, _plain(shape, weights), tolerance=5e-2)
  return graph.timed(
      sess, [lowering.lowered_operation(op) for op in updates])


def _plain(shape, weights):
  """Loss and gradients of the model that was parsed, without a fast path."""
  with graph.Builder() as builder, plain.convolutions():
    loss, gradients = models.training(builder, *shape)
    lowering = builder.lower()
    fetched = [lowering.export_to_tf_tensor(t) for t in (loss, *gradients)]
    with builder.session(lowering, weights) as sess:
      return sess.run(fetched)
