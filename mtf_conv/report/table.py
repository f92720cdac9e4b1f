"""The table that sets pre-trained models beside models from scratch."""

import pandas as pd

from mtf_conv.base import markdown
from mtf_conv.model_dir import events

MISSING = '-'

# How a column is called, and how its numbers are written.
_COLUMNS = {
    'model': ('model', '{}'),
    'raw': ('raw', '{:.1f}'),
    'raw_step': ('at step', '{:,.0f}'),
    'pretrained': ('pre-trained', '{:.1f}'),
    'pretrained_step': ('at step', '{:,.0f}'),
    'gain': ('gain', '{:+.1f}'),
    'parameters': ('parameters', '{:,.0f}'),
    'steps_per_second': ('steps/s', '{:.1f}'),
}


def compare(models, model_dirs, task):
  """Compares models with and without pre-training.

  Args:
    models: the names of the models, in the order of the rows.
    model_dirs: a function of a model and 'pretrain', 'raw' or 'pretrained' that
      returns the model_dir of that run.
    task: the name of the fine-tuning task.

  Returns:
    A pd.DataFrame with the columns of _COLUMNS. Scores are the best over the
    checkpoints, steps_per_second those of pre-training; what is missing is NaN.
  """
  rows = []
  for model in models:
    row = {'model': model}
    for init in ('raw', 'pretrained'):
      row[init + '_step'], row[init] = events.best(
          events.scores(model_dirs(model, init), task))
    row['gain'] = row['pretrained'] - row['raw']
    row['parameters'] = events.parameters(model_dirs(model, 'raw'))
    row['steps_per_second'] = events.steps_per_second(
        model_dirs(model, 'pretrain'))
    rows.append(row)
  return pd.DataFrame(rows, columns=list(_COLUMNS))


def to_markdown(frame):
  """Writes a table of `compare` in Markdown that also reads well as it is."""
  cells = [[MISSING if pd.isna(value) else _COLUMNS[column][1].format(value)
            for column, value in row.items()] for _, row in frame.iterrows()]
  return markdown.table(
      pd.DataFrame(cells, columns=[_COLUMNS[column][0] for column in frame]),
      numbers=range(1, len(frame.columns)))
