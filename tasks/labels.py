"""Few labels: a part of a task's training rows, for learning curves.

`mtf_conv.tasks.labels.limit = 2000` in gin lets classification tasks train on
2,000 rows. They are drawn once from a seed, and each class keeps its share. Of
two limits with the same seed, the larger set of rows holds the smaller one but
for rounding.
"""

import gin
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from mtf_conv.base import autograph, errors


@gin.configurable('labels', module='mtf_conv.tasks')
def _bindings(limit=None, seed=0):
  """Returns what gin binds; its errors are raised out of gin's sight."""
  return limit, seed


def limit():
  """Returns how many rows of a training set are read; None for all."""
  return _bindings()[0]


def limited(rows, label_of, name):
  """Draws as many rows as gin says.

  Args:
    rows: a function that returns a tf.data.Dataset of dicts of scalars, all
      rows in a fixed order.
    label_of: a function from such a dict of Tensors to an integer, its class.
    name: of the data set, for errors.

  Returns:
    A tf.data.Dataset of the rows that were drawn, in their order.

  Raises:
    errors.UserError: the limit is no number of rows, or there are fewer.
  """
  wanted, seed = _bindings()
  if not isinstance(wanted, int) or wanted < 1:
    raise errors.UserError(
        f'mtf_conv.tasks.labels.limit (={wanted!r}) must be a number of rows, '
        'or None for all')
  with tf.Graph().as_default():
    read = list(tfds.as_numpy(autograph.avoid(lambda: rows().map(
        lambda row: {'row': row, 'class': label_of(row)}))))
  if wanted > len(read):
    raise errors.UserError(
        f'mtf_conv.tasks.labels.limit (={wanted}) must be at most {len(read)}, '
        f'the training rows of {name}')
  drawn = draw([row['class'] for row in read], wanted, seed)
  return tf.data.Dataset.from_tensor_slices({
      key: [read[i]['row'][key] for i in drawn] for key in read[0]['row']})


def draw(classes, wanted, seed):
  """Draws rows of which each class has its share.

  Args:
    classes: the class of each row.
    wanted: how many rows to draw.
    seed: an integer.

  Returns:
    An array of the places of the rows that were drawn, sorted.
  """
  classes = np.asarray(classes)
  order = np.random.RandomState(seed).permutation(len(classes))
  names, counts = np.unique(classes, return_counts=True)
  shares = counts * wanted / len(classes)
  numbers = np.floor(shares).astype(int)
  # What rounding left goes to those that lost most by it.
  for place in np.argsort(numbers - shares, kind='stable')[
      :wanted - numbers.sum()]:
    numbers[place] += 1
  return np.sort(np.concatenate([
      order[classes[order] == name][:number]
      for name, number in zip(names, numbers)]))
