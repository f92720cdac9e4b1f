"""Evaluation decodes as far as the longest answer reaches.

How many tokens Mesh TensorFlow decodes is fixed when it builds the graph, and
an answer that is longer is cut: it counts as wrong, whatever the model would
have written. So the answers are measured before.
"""

import functools

import gin
import numpy as np
import seqio
import tensorflow.compat.v1 as tf
import tensorflow_datasets as tfds
from t5.models import mesh_transformer

from mtf_conv.base import autograph, errors, terminal

_decode_length = None  # For what eval_dataset_fn returned last.


@gin.configurable(module='mtf_conv.evaluation')
def max_decode_length():
  """Returns how many tokens to decode, for Bitransformer.decode."""
  return _decode_length


@gin.configurable(module='mtf_conv.evaluation')
def eval_dataset_fn(sequence_length, vocabulary, dataset_split,
                    mixture_or_task_name=gin.REQUIRED, decode_length=None):
  """T5's mesh_eval_dataset_fn; measures the answers for max_decode_length.

  Args:
    sequence_length: of T5's function.
    vocabulary: of T5's function.
    dataset_split: of T5's function.
    mixture_or_task_name: of T5's function.
    decode_length: tokens to decode; those of the longest answer when None. It
      is said how many answers are longer.

  Returns:
    What T5's function returns. It is said how many inputs are cut.

  Raises:
    errors.UserError: there is no such split, or it has no example.
  """
  global _decode_length

  def datasets(length):
    return [dataset._replace(
        dataset_fn=functools.partial(autograph.avoid, dataset.dataset_fn))
        for dataset in mesh_transformer.mesh_eval_dataset_fn(
            mixture_or_task_name, length, dataset_split, vocabulary)]

  found = datasets(sequence_length)
  if not found:
    splits = seqio.get_mixture_or_task(mixture_or_task_name).splits
    raise errors.UserError(
        f'{mixture_or_task_name} has no split {dataset_split!r}: it has '
        f'{", ".join(splits)}{errors.nearest(dataset_split, splits)}')
  longest = 0
  for dataset in datasets(None):  # As they are: not padded, not cut.
    inputs, lengths = np.array(
        list(_lengths(dataset)), int).reshape(-1, 2).T
    if not len(lengths):
      raise errors.UserError(
          f'{dataset.name} has no example in its split {dataset_split!r}')
    longest = max(longest, lengths.max())
    limit = (sequence_length or {}).get('inputs')
    if limit and np.any(inputs > limit):
      terminal.say(
          f'{dataset.name}: {np.sum(inputs > limit)} of {len(inputs)} inputs '
          f'have more than {limit} tokens (up to {inputs.max()}) and are cut: '
          'utils.run.sequence_length = None cuts none')
    if decode_length and decode_length < longest:
      terminal.say(
          f'{dataset.name}: {np.sum(lengths > decode_length)} of '
          f'{len(lengths)} answers have more than {decode_length} tokens (up '
          f'to {lengths.max()}) and count as wrong, since DECODE_LENGTH (='
          f'{decode_length}) cuts them')
  _decode_length = decode_length or int(longest)
  return found


def _lengths(dataset):
  """Yields the tokens of each input and its longest answer, eos included."""
  feature = seqio.get_mixture_or_task(dataset.name).output_features['targets']
  with tf.Graph().as_default():
    for example in tfds.as_numpy(dataset.dataset_fn()):
      # Of SQuAD's answers the first is the target, but any one is right.
      others = [len(feature.vocabulary.encode(answer.decode())) + 1
                for answer in example.get('answers', ())]
      # A language model's examples have targets alone.
      answer = max(len(example['targets']), *others, 0)
      yield len(example.get('inputs', ())), answer
