"""The paper's Table 1, from the data that is prepared here."""

import pandas as pd
import tensorflow_datasets as tfds

from mtf_conv.base import gin_files, markdown
from mtf_conv.prepare import builders, lengths, raw_files
from mtf_conv.tasks import classification

# Train, test and classes as printed; COGS has no classes.
PAPER = {
    'civil_comments': (3820210, 205781, 2),
    'wiki_toxicity': (561808, 234564, 2),
    'imdb': (25000, 25000, 2),
    'sst2': (67000, 1800, 2),
    'sentiment140': (1600000, 359, 2),
    'trec': (4500, 500, 46),
    'ag_news': (120000, 7600, 4),
    'cogs': (24000, 3000, None),
}
_COLUMNS = ('task', 'train', 'of', 'paper', 'scored', 'of', 'paper',
            'classes', 'paper', 'inputs', 'targets')


def _row(task, data_dir):
  """Returns the cells of a task's row."""
  dataset = classification.DATASETS.get(task)
  splits = dataset.splits if dataset else {
      'train': 'train', 'validation': 'test'}
  folder = builders.prepared_dir(task, data_dir)
  prepared = tfds.builder_from_directory(folder).info.splits if folder else {}
  cells = [task]
  for split, printed in zip(('train', 'validation'), PAPER[task]):
    split = splits[split]
    cells += [prepared[split].num_examples if prepared else None,
              raw_files.DATASETS[task].rows[split], printed]
  bound = gin_files.sequence_lengths(task)
  return [*cells, len(dataset.labels) if dataset else None, PAPER[task][2],
          *(bound.get(feature) for feature in lengths.FEATURES)]


def table(data_dir=None):
  """Returns the table in Markdown.

  'of' stands for what the original data has, 'scored' for the split that the
  paper's scores fit, 'inputs' and 'targets' for the lengths that
  gin/sequence_lengths binds, in tokens.

  Args:
    data_dir: TFDS's data folder; TFDS's default when None.
  """
  rows = [['-' if cell is None else f'{cell:,}' if isinstance(cell, int)
           else cell for cell in _row(task, data_dir)] for task in PAPER]
  return markdown.table(pd.DataFrame(rows, columns=_COLUMNS),
                        numbers=range(1, len(_COLUMNS)))
