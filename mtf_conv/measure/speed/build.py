"""Start-up: building the graph of a step of training, before it can run."""

import time

import tensorflow.compat.v1 as tf

from mtf_conv.base import gin_files
from mtf_conv.measure import graph, models
from mtf_conv.measure.speed import results, timing

BATCH, INPUTS = 8, 512


def bench(seconds, size='base', min_rounds=3, bindings=(), say=print,
          kinds=None):
  """Times how long a graph of training takes to build: CPU time, one device.

  Args:
    seconds: for how long all are timed.
    size: of the models.
    min_rounds: how often each is built at least.
    bindings: gin bindings that come after the models' files.
    say: is told of each model before it is built first.
    kinds: names of models beside the Transformer; all of the size when None.

  Returns:
    A list of results.row: times, TensorFlow operations and trainable variables
    of the convolutions over the Transformer's.
  """
  kinds = ['transformer', *(
      kind for kind in kinds or gin_files.model_names(size)
      if kind != 'transformer')]
  paths = {kind: models.resolve(f'{kind}.{size}')[0] for kind in kinds}
  counts = {}

  def build(kind):
    if kind not in counts:
      say(f'{kind}.{size}')
    counts[kind] = _build(paths[kind], bindings)

  # The Python bytecode is one thread: what else runs does not count.
  times = timing.interleave(
      {kind: (lambda kind=kind: build(kind)) for kind in kinds},
      seconds, min_rounds=min_rounds, warm_up=1, clock=time.process_time)
  convolutions = [kind for kind in kinds if kind != 'transformer']
  rows = results.rows(f'building a {size} train graph', times,
                      [(kind, 'transformer') for kind in convolutions])
  for index, what in enumerate(('operations', 'trainable variables')):
    rows += [results.row(
        f'{what} of a {size} train graph: {kind} / transformer',
        counts[kind][index] / counts['transformer'][index])
             for kind in convolutions]
  return rows


def _build(path, bindings):
  """Builds a graph; returns its numbers of operations and of variables."""
  models.parse([path], bindings)
  with graph.Builder() as builder:
    _, gradients = models.training(
        builder, BATCH, INPUTS, models.targets_length(INPUTS))
    models.optimize(builder, gradients)
    builder.lower()
    return (len(tf.get_default_graph().get_operations()),
            len(builder.graph.trainable_variables))
