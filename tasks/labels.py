"""Parts of a task's training rows: few labels, and rows to choose by.

`mtf_conv.tasks.labels.limit = 2000` in gin lets classification tasks train on
2,000 rows, for learning curves. They are drawn once from a seed, and each class
keeps its share. Of two limits with the same seed, the larger set of rows holds
the smaller one but for rounding.

`mtf_conv.tasks.labels.dev = 1000` takes 1,000 rows out of the training set
first, drawn likewise: they are the split `dev`, on which a checkpoint can be
chosen whose score on the split `validation` is then no peak.
"""

import gin
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from mtf_conv.base import autograph, errors

DEV = 'dev'


@gin.configurable('labels', module='mtf_conv.tasks')
def _bindings(limit=None, dev=0, seed=0):
  """Returns what gin binds; its errors are raised out of gin's sight."""
  return limit, dev, seed


def divides(split):
  """Says whether a split is a part of the training rows that gin draws."""
  limit, dev, _ = _bindings()
  return split == DEV or (split == 'train' and (limit is not None or dev != 0))


def count(split, whole):
  """Returns how many rows a split that is drawn has.

  Args:
    split: 'train' or 'dev'.
    whole: how many training rows there are.
  """
  limit, dev, _ = _bindings()
  if split == DEV:
    return dev
  return whole - dev if limit is None else limit


def rows(split, training_rows, label_of, name):
  """Draws the rows of a split, as gin says.

  Args:
    split: 'train' or 'dev'.
    training_rows: a function that returns a tf.data.Dataset of dicts of
      scalars, all rows in a fixed order.
    label_of: a function from such a dict of Tensors to an integer, its class.
    name: of the data set, for errors.

  Returns:
    A tf.data.Dataset of the rows that were drawn, in their order. They stay in
    memory.

  Raises:
    errors.UserError: a number is none of rows, or there are fewer.
  """
  limit, dev, drawn_by = _bindings()
  wanted = f'mtf_conv.tasks.labels.limit (={limit!r})'
  if limit is not None and (not isinstance(limit, int) or limit < 1):
    raise errors.UserError(
        f'{wanted} must be a number of rows, or None for all')
  held = f'mtf_conv.tasks.labels.dev (={dev!r})'
  if not isinstance(dev, int) or dev < (split == DEV):
    raise errors.UserError(
        f'{held} must be the number of training rows in the split {DEV!r}')
  with tf.Graph().as_default():
    classes = np.array(list(tfds.as_numpy(
        autograph.avoid(lambda: training_rows().map(label_of)))))
  if dev >= len(classes):
    raise errors.UserError(
        f'{held} must be less than {len(classes)}, the training rows of {name}')
  if limit is not None and limit > len(classes) - dev:
    raise errors.UserError(
        f'{wanted} must be at most {len(classes) - dev}, the training rows of '
        f'{name}' + (f' without the {dev} in the split {DEV!r}' if dev else ''))
  kept = np.zeros(len(classes), bool)
  kept[draw(classes, dev, drawn_by)] = True
  if split != DEV:
    rest, = np.where(~kept)
    if limit is not None:
      rest = rest[draw(classes[rest], limit, drawn_by)]
    kept[:] = False
    kept[rest] = True
  return training_rows().enumerate().filter(
      lambda i, _: tf.gather(kept, i)).map(lambda _, row: row).cache()


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
