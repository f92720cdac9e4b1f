"""What a pre-training's loss is on held-out text: <model_dir>/held_out.json.

It holds `unigram` and `bigram`, the losses of counting, in nats a token of the
held-out text, and `checkpoints`, a list of {'step', 'content', 'sentinels',
'all'}, the losses of each checkpoint in nats a position of each kind.
"""

import json
import os

import tensorflow.compat.v1 as tf

from mtf_conv.base import files


def _path(model_dir):
  return os.path.join(model_dir, 'held_out.json')


def read(model_dir):
  """Returns what was measured in a folder; None if nothing was."""
  try:
    with tf.io.gfile.GFile(_path(model_dir)) as f:
      return json.loads(f.read())
  except tf.errors.NotFoundError:
    return None


def write(model_dir, measured):
  """Writes what was measured, whole or not at all."""
  files.write_whole(_path(model_dir), json.dumps(measured))


def is_below_unigram(measured):
  """Returns whether the last checkpoint knows more than frequencies."""
  return measured['checkpoints'][-1]['content'] < measured['unigram']


def describe(measured):
  """Says in words how far a pre-training came.

  Args:
    measured: what `read` returns, with at least one checkpoint.

  Returns:
    A sentence, and a second one if the model has learnt frequencies alone.
  """
  last = measured['checkpoints'][-1]
  text = (f'held-out loss after {last["step"]:,} steps: {last["content"]:.2f} '
          'nats a token of content (who knows pieces alone has '
          f'{measured["unigram"]:.2f}, pairs of them {measured["bigram"]:.2f})'
          f', {last["sentinels"]:.2f} a sentinel')
  if not is_below_unigram(measured):
    text += ('. The model knows how frequent pieces are, and no more: '
             'fine-tuning starts from little better than random weights. '
             'Train longer, see docs/small_pretraining.md')
  return text
