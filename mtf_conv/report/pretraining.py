"""How far each pre-training came, on text that was held out from it."""

import pandas as pd

from mtf_conv.base.drawing import plt
from mtf_conv.model_dir import events, held_out
from mtf_conv.replicate import paper

_COLUMNS = {
    'model': 'model', 'seed': 'seed', 'step': 'steps', 'content': 'content',
    'below_unigram': 'below pieces', 'below_bigram': 'below pairs',
    'sentinels': 'sentinels', 'steps_per_second': 'steps/s'}


def checkpoints(runs):
  """Lists the held-out losses of all checkpoints of pre-training.

  Args:
    runs: as replicate.grid.make returns them.

  Returns:
    A pd.DataFrame with model, seed, step, content, sentinels and all (losses in
    nats a position of each kind), unigram and bigram (what counting reaches on
    the content), and steps_per_second of the run.
  """
  rows = []
  for run in runs:
    if run.stage != 'pretrain':
      continue
    measured = held_out.read(run.model_dir)
    if not measured:
      continue
    speed = events.steps_per_second(run.model_dir)
    rows += [{'model': run.model, 'seed': run.seed, **checkpoint,
              'unigram': measured['unigram'], 'bigram': measured['bigram'],
              'steps_per_second': speed}
             for checkpoint in measured['checkpoints']]
  return pd.DataFrame(rows, columns=[
      'model', 'seed', 'step', 'content', 'sentinels', 'all', 'unigram',
      'bigram', 'steps_per_second'])


def last(frame):
  """Returns the last checkpoint of each run, and how far below counting it is.

  Args:
    frame: as `checkpoints` returns it.

  Returns:
    A pd.DataFrame like it, with below_unigram and below_bigram, in nats.
  """
  ends = frame.loc[frame.groupby(['model', 'seed'], sort=False).step.idxmax()]
  return ends.assign(below_unigram=ends.unigram - ends.content,
                     below_bigram=ends.bigram - ends.content)


def to_rows(frame):
  """Returns the table of `last` as lists of cells, the head first."""
  text = _as_text(frame)
  return [list(text.columns), *text.values.tolist()]


def _as_text(frame):
  forms = {'model': '{}', 'seed': '{}', 'step': '{:,}',
           'below_unigram': '{:+.2f}', 'below_bigram': '{:+.2f}',
           'steps_per_second': '{:.1f}'}
  return pd.DataFrame({
      title: ['-' if pd.isna(value) else forms.get(name, '{:.2f}').format(value)
              for value in frame[name]]
      for name, title in _COLUMNS.items()})


def plot(path, frame):
  """Draws the content's loss of each model against steps and against minutes.

  Args:
    path: where the PNG goes.
    frame: as `checkpoints` returns it.
  """
  figure, (by_step, by_minute) = plt.subplots(
      1, 2, figsize=(11, 4), layout='constrained', sharey=True)
  for number, model in enumerate(paper.in_order(frame.model)):
    for _, run in frame[frame.model == model].groupby('seed'):
      style = {'color': f'C{number}', 'marker': 'o', 'markersize': 3,
               'label': model if run.seed.iloc[0] == frame.seed.min() else None}
      by_step.plot(run.step, run.content, **style)
      by_minute.plot(run.step / run.steps_per_second / 60, run.content, **style)
  for axes in (by_step, by_minute):
    for name, label, line in (('unigram', 'pieces counted', ':'),
                              ('bigram', 'pairs counted', '--')):
      axes.axhline(frame[name].iloc[0], color='gray', linestyle=line,
                   label=label)
    axes.grid(alpha=0.3)
  by_step.set_xlabel('step')
  by_step.set_ylabel('nats a token of content, held out')
  by_minute.set_xlabel('minutes of training, whatever ran beside it')
  by_step.legend(loc='best', fontsize='small')
  figure.savefig(path, dpi=120)
  plt.close(figure)
