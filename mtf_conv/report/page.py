"""mtf_conv report: Table 2 and what belongs to it, in four formats."""

import base64
import os

import jinja2
import numpy as np

from mtf_conv.model_dir import events
from mtf_conv.prepare import overlap
from mtf_conv.replicate import grid
from mtf_conv.report import (
  answers,
  curves,
  pretraining,
  provenance,
  scores,
  table2,
)

_FIGURES = {
    'figure1': 'Figure 1: examples of pre-training per second',
    'figure2': 'Figure 2: FLOPs'}
_EXAMPLES = 8  # Of each kind, right and wrong.


def write(grid_runs, out_dir, about='', figures_dir=None):
  """Writes table2.md, .csv, .tex, differences.csv, curves and index.html.

  Where pre-training was measured on held-out text, pretraining.csv and
  pretraining.png as well.

  Args:
    grid_runs: as replicate.grid.make returns them.
    out_dir: a folder, made if need be.
    about: a sentence about the runs.
    figures_dir: a folder with figure1.png of mtf_conv bench and figure2.png of
      mtf_conv params.

  Returns:
    (the table in Markdown, what is missing or doubtful in sentences).
  """
  os.makedirs(out_dir, exist_ok=True)
  collected, notes = scores.collect(grid_runs)
  cells = scores.cells(collected)
  table = table2.to_frame(cells)
  markdown = table2.to_markdown(table)
  _write(out_dir, 'table2.md', markdown)
  _write(out_dir, 'table2.tex', table2.to_latex(table))
  cells.drop(columns='influences').to_csv(
      os.path.join(out_dir, 'table2.csv'), index=False)
  differences = answers.differences(cells)
  differences.to_csv(os.path.join(out_dir, 'differences.csv'), index=False)
  pictures = _plot(grid_runs, cells, out_dir)
  held_out, of_pretraining = _pretraining(grid_runs, out_dir)
  notes = provenance.doubts(grid_runs) + notes
  environment = jinja2.Environment(
      loader=jinja2.PackageLoader('mtf_conv.report', '.'),
      autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
  page = environment.get_template('page.html.j2').render(
      title='Pre-trained convolutions and a pre-trained Transformer',
      about=about, has_paper=bool(cells.paper.notna().any()),
      chosen_on_dev=_chosen_on_dev(cells),
      columns=table2.columns(cells), parts=table2.arrange(cells),
      answers=answers.answer(cells, _speeds(grid_runs)),
      differences=[*differences.itertuples()],
      held_out=held_out, of_pretraining=of_pretraining,
      overlap=_overlap(grid_runs),
      curves=[(name, _base64(path)) for name, path in pictures],
      examples=_examples(cells),
      sources=provenance.sources(grid_runs, cells, table2.PARTS),
      table1=_table1(grid_runs), figures=_figures(figures_dir),
      notes=notes)
  _write(out_dir, 'index.html', page)
  return markdown, notes


def _chosen_on_dev(cells):
  """Returns the tasks that are chosen by held-out rows: 'all', or names."""
  by_dev = cells.chosen_on == grid.DEV
  return 'all' if len(cells) and by_dev.all() else ', '.join(
      dict.fromkeys(cells.task[by_dev]))


def _write(out_dir, name, text):
  with open(os.path.join(out_dir, name), 'w') as f:
    f.write(text)


def _base64(path):
  with open(path, 'rb') as f:
    return base64.b64encode(f.read()).decode()


def _plot(grid_runs, cells, out_dir):
  """Draws the curves of each task; returns (task, path)s."""
  best = {(cell.init, cell.model, cell.task): cell.model_dir
          for cell in cells.itertuples() if isinstance(cell.model_dir, str)}
  pretrain = {run.model: run.model_dir for run in grid_runs
              if run.stage == 'pretrain'}

  pictures = []
  for task in dict.fromkeys(cells.task):
    def model_dirs(model, run, task=task):
      return (pretrain.get(model, '') if run == 'pretrain' else
              best.get((run, model, task), ''))
    path = os.path.join(out_dir, f'curves_{task}.png')
    curves.plot(
        path, table2.models(cells), model_dirs, grid.registered(task))
    pictures.append((task, path))
  return pictures


def _pretraining(grid_runs, out_dir):
  """Returns the held-out losses as rows of cells and a picture; two Nones."""
  checkpoints = pretraining.checkpoints(grid_runs)
  if checkpoints.empty:
    return None, None
  checkpoints.round(4).to_csv(
      os.path.join(out_dir, 'pretraining.csv'), index=False)
  path = os.path.join(out_dir, 'pretraining.png')
  pretraining.plot(path, checkpoints)
  return pretraining.to_rows(pretraining.last(checkpoints)), _base64(path)


def _overlap(grid_runs):
  """Returns sentences on the rows that lie in the pre-training text."""
  found = [overlap.read(run.model_dir) for run in grid_runs
           if run.job.name == 'overlap']
  return [overlap.describe(one['corpus'], split)
          for one in found if one for split in one['splits']]


def _table1(grid_runs):
  """Returns the lines of Table 1 as lists of cells; none for other tasks."""
  from mtf_conv.report import table1
  tasks = {run.task for run in grid_runs}
  if not tasks & set(table1.PAPER):
    return []
  lines = table1.table().splitlines()
  return [[cell.strip() for cell in line.strip('|').split('|')]
          for line in lines[:1] + lines[2:]]


def _figures(folder):
  """Returns (title, picture) of the figures that are there."""
  return [(title, _base64(path)) for name, title in _FIGURES.items()
          for path in [os.path.join(folder or '', f'{name}.png')]
          if os.path.exists(path)]


def _speeds(grid_runs):
  found = {run.model: events.steps_per_second(run.model_dir)
           for run in grid_runs if run.stage == 'pretrain'}
  return {model: speed for model, speed in found.items()
          if not np.isnan(speed)}


def _examples(cells):
  """Some predictions of the best checkpoint of each task, right and wrong."""
  found = []
  for task, group in cells.dropna(subset=['ours']).groupby('task', sort=False):
    best = group.loc[group.ours.idxmax()]
    rows = events.predictions(
        best.model_dir, grid.registered(task), int(best.step))
    right = [row for row in rows if row['target'] == row['prediction']]
    wrong = [row for row in rows if row['target'] != row['prediction']]
    if rows:
      found.append((f'{task}: {best.model}, {table2.PARTS[best.init]}, '
                    f'{len(right)} of {len(rows)} right',
                    wrong[:_EXAMPLES] + right[:_EXAMPLES]))
  return found
