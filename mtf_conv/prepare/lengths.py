"""How many tokens the examples of a task have, in the vocabulary in use."""

import os

import numpy as np
import seqio
import tensorflow_datasets as tfds

from mtf_conv import vocabulary
from mtf_conv.base import gin_files
from mtf_conv.prepare import builders

FEATURES = ('inputs', 'targets')
_PERCENTILES = (50, 90, 95, 99, 100)


def measure(task, split='train'):
  """Counts the tokens of every example, the end of the sequence included.

  Args:
    task: the name of a task whose data is prepared.
    split: SeqIO's name of the split.

  Returns:
    A dictionary from 'inputs' and 'targets' to arrays of lengths.
  """
  dataset = seqio.TaskRegistry.get(task).get_dataset(None, split, shuffle=False)
  lengths = [[len(example[feature]) for feature in FEATURES]
             for example in tfds.as_numpy(dataset)]
  return dict(zip(FEATURES, np.array(lengths).T))


def percentile(lengths, percent):
  """Returns the smallest length that `percent` of the examples do not exceed.

  Args:
    lengths: an array.
    percent: from 0 to 100.
  """
  return int(np.percentile(lengths, percent, method='inverted_cdf'))


def show(task):
  """Prints percentiles, and how many examples are longer than gin's length.

  Args:
    task: the name of a task whose data is prepared.
  """
  measured, limits = measure(task), gin_files.sequence_lengths(task)
  print(f'{task}, train: {len(measured["inputs"])} examples, tokens of '
        f'{vocabulary.model_path()}, eos included')
  print(f'{"":10}{"median":>8}{"90%":>8}{"95%":>8}{"99%":>8}{"longest":>8}'
        f'{"in gin":>8}  longer: cut when trained')
  for feature, lengths in measured.items():
    cells = [percentile(lengths, percent) for percent in _PERCENTILES]
    limit = limits.get(feature)
    longer = ''
    if limit:
      count = int(np.sum(lengths > limit))
      longer = f'  {count} ({100 * count / len(lengths):.1f}%)'
    print(f'{feature:10}' + ''.join(f'{cell:8}' for cell in cells)
          + f'{limit or "none":>8}{longer}')


def show_all(tasks, data_dir=None):
  """Shows the training examples of those tasks whose data is prepared.

  Args:
    tasks: names of tasks.
    data_dir: TFDS's data folder; TFDS's default when None.
  """
  if data_dir:
    seqio.set_tfds_data_dir_override(os.path.abspath(data_dir))
  for task in tasks:
    if builders.prepared_dir(task):
      show(task)
