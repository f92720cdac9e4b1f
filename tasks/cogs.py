"""COGS: from sentences to logical forms, scored by exact match.

`cogs` is trained and scored in distribution. `cogs_gen` is scored on the
generalisation set, over all and for each of its 21 types; its training split is
that of `cogs`, so that what is trained on either can be scored on both.
"""

from typing import NamedTuple

import tensorflow as tf
from mtf_conv.tasks import metrics, tfds_source

import mtf_conv.datasets.cogs  # noqa: F401, registers the builder


class Target(NamedTuple):
  """What a prediction is compared with."""

  logical_form: str
  distribution: str

  def __str__(self):
    """What T5 writes to the file of targets."""
    return self.logical_form


def to_text(examples):
  """Turns TFDS's examples into text-to-text ones.

  Args:
    examples: a tf.data.Dataset of TFDS's features.

  Returns:
    A tf.data.Dataset of {'inputs', 'targets', 'distribution'}, all strings.
  """
  return examples.map(lambda example: {
      'inputs': tf.strings.join(['cogs sentence: ', example['sentence']]),
      'targets': example['logical_form'],
      'distribution': example['distribution'],
  }, num_parallel_calls=tf.data.AUTOTUNE)


def _postprocess(text, example=None, is_target=False):
  """Returns a prediction as it is, and of a target its type, too."""
  if is_target:
    return Target(text, tf.compat.as_text(example['distribution']))
  return text


for _name, _splits in (
    ('cogs', {'train': 'train', 'validation': 'dev', 'test': 'test'}),
    ('cogs_gen', {'train': 'train', 'validation': 'gen', 'test': 'gen'})):
  tfds_source.add_task(
      _name, 'cogs:1.0.0', _splits, to_text, [metrics.exact_match_by_type],
      postprocess_fn=_postprocess)
