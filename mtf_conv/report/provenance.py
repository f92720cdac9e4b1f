"""Where each number is from, and what speaks against it.

Read from the records beside the checkpoints (mtf_conv.model_dir.record) and
from the checkpoints themselves.
"""

import glob
import os
import re

import tensorflow.compat.v1 as tf

from mtf_conv.base import errors
from mtf_conv.model_dir import events, record
from mtf_conv.replicate import grid
from mtf_conv.report import scores


def sources(grid_runs, cells, names):
  """Says for each cell what was run, where and how long.

  Args:
    grid_runs: as replicate.grid.make returns them.
    cells: as scores.cells returns them.
    names: a dictionary from initialisations to what they are called.

  Returns:
    A list of dictionaries of text; '' for what no record tells.
  """
  trained = {run.model_dir: run for run in grid_runs if run.stage == 'finetune'}
  rows = []
  for cell in cells.dropna(subset=['ours']).itertuples():
    run = trained[cell.model_dir]
    starts = _read(cell.model_dir)
    last = starts[-1] if starts else {}
    rows.append({
        'name': f'{cell.task} {cell.metric}, {cell.model}, {names[cell.init]}',
        'learning_rate': f'{cell.learning_rate:g}', 'step': int(cell.step),
        'seed': run.seed,
        'minutes': f'{sum(start["seconds"] for start in starts) / 60:.1f}'
                   if starts else '',
        'parameters': f'{last["parameters"]:,}' if last else '',
        'commit': (last.get('commit') or '')[:12],
        'machine': last.get('machine', ''),
        'tensorflow': last['versions']['tensorflow'] if last else '',
        'vocabulary': last['vocabulary'].get('sha256', '')[:12] if last else '',
        'data': ', '.join(map(_describe_data, last.get('data', ()))),
        'command': last.get('command') or run.job.command()})
  return rows


def _describe_data(data):
  manifest = data.get('manifest')
  if not manifest:
    return data['task']
  kind = 'original' if manifest['original'] else 'not the original files'
  return f'{data["task"]} ({manifest["builder"]}, {kind})'


def _read(model_dir):
  try:
    return record.read(model_dir)
  except errors.UserError:
    return []  # `doubts` tells.


def doubts(grid_runs):
  """Lists what a reader of the scores has to know.

  Args:
    grid_runs: as replicate.grid.make returns them.

  Returns:
    A list of lines: runs with other settings in one folder, damaged records,
    checkpoints without a score and scores without a checkpoint.
  """
  lines = []
  for run in grid_runs:
    if run.stage == 'evaluate':
      lines += _check_scores(run)
    else:
      lines += _check_record(run)
  return lines


def _check_record(run):
  try:
    starts = record.read(run.model_dir)
  except errors.UserError as error:
    return [f'{run.job.name}: {error}']
  for before, after in zip(starts, starts[1:]):
    if not after['first_step']:
      continue  # Nothing of the earlier one is left.
    differ = sorted(set(before['gin']) ^ set(after['gin']))
    for what in ('commit', 'versions', 'vocabulary', 'seed'):
      if before[what] != after[what]:
        differ.append(f'{what} {after[what]} after {before[what]}')
    if differ:
      return [f'{run.job.name}: went on at step {after["first_step"]} with '
              f'other settings: {"; ".join(differ[:3])}']
  return []


def _check_scores(run):
  found = {
      int(re.search(r'-(\d+)\.index$', path).group(1))
      for path in tf.io.gfile.glob(os.path.join(
          glob.escape(run.model_dir), 'model.ckpt-*.index'))}
  lines = []
  for metric in scores.metrics(run.task)[:1]:
    scored = set(events.scores(
        run.model_dir, grid.registered(run.task), metric, run.split).index)
    if not scored:
      continue  # The table says that it is missing.
    missing = found - scored - {0}  # Nobody misses what was not trained.
    if missing:
      lines.append(f'{run.job.name}: no {metric} of the checkpoints at step '
                   f'{_list(missing)}')
    if scored - found:
      lines.append(f'{run.job.name}: {metric} of checkpoints that are no '
                   f'longer there: step {_list(scored - found)}')
  return lines


def _list(steps):
  return ', '.join(map(str, sorted(steps)))
