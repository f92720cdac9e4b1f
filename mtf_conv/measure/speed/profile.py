"""Where the time of a training step goes, by kind of computation."""

import collections
import re

import pandas as pd
import tensorflow.compat.v1 as tf

from mtf_conv.measure import graph, models
from mtf_conv.measure.speed import whole_models

BATCH, INPUTS, TARGETS = 32, 128, 29
_ROUNDS = 3
_PRODUCT = re.compile('Einsum|MatMul')

# The first that the name of a TensorFlow operation has says what it is of.
_PARTS = (
    ('adafactor|assign', 'optimizer'),
    ('cross_entropy', 'logits and loss'),
    ('lookup|gather|embedding', 'embedding'),
    ('EncDecAttention', 'encoder-decoder attention'),
    ('DenseReluDense', 'feed-forward'),
    ('rms_norm', 'norms'),
    (r'block_\d+/layer_000/\w+/', 'mixer'),
)


def bench(names, vocabulary, rows=BATCH, inputs=INPUTS, targets=TARGETS,
          say=print):
  """Profiles steps of training, as T5 computes them and as they are here.

  Args:
    names: of models, as models.resolve takes them.
    vocabulary: how many ids there are.
    rows: in a batch.
    inputs: the length of inputs.
    targets: the length of targets.
    say: is told of each case before it is measured.

  Returns:
    A pd.DataFrame: step, kind, milliseconds. These are of all processors: what
    TensorFlow computes on two at once counts once for each operation.
  """
  found = []
  for name in names:
    path, = models.resolve(name, ['mini'])
    for stock in (True, False):
      title = models.title(path) + (" with T5's" if stock else '')
      say(title)
      found += [(title, kind, milliseconds) for kind, milliseconds in _profile(
          path, (rows, inputs, targets, vocabulary), stock)]
  return pd.DataFrame(found, columns=['step', 'kind', 'milliseconds'])


def _profile(path, shape, stock):
  with graph.Builder() as builder:
    sess, updates, _ = whole_models.build(builder, path, shape, stock=stock)
  for _ in range(2):
    sess.run(updates)
  spent = collections.Counter()
  for _ in range(_ROUNDS):
    metadata = tf.RunMetadata()
    sess.run(updates, options=tf.RunOptions(
        trace_level=tf.RunOptions.FULL_TRACE), run_metadata=metadata)
    for device in metadata.step_stats.dev_stats:
      for node in device.node_stats:
        spent[_kind(node)] += (
            node.op_end_rel_micros - node.op_start_rel_micros) / 1e3 / _ROUNDS
  names = [what for _, what in _PARTS] + ['other']
  return [(kind, spent[kind]) for name in names
          for kind in (f'{name}: products', name)]


def _kind(node):
  """Says what a node of TensorFlow's trace is of, and whether a product."""
  name = next((what for pattern, what in _PARTS
               if re.search(pattern, node.node_name)), 'other')
  if name == 'other' and re.match(r'decoder/einsum', node.node_name):
    name = 'logits and loss'
  operation = re.search(r'= (\w+)\(', node.timeline_label)
  is_product = operation and _PRODUCT.search(operation.group(1))
  return f'{name}: products' if is_product else name
