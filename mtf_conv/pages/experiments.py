"""Writes docs/experiments.md: each number of the paper, its command and cost.

  python -m mtf_conv.pages.experiments > docs/experiments.md

It builds the graphs of all base models to count what they cost: minutes.
"""

import pandas as pd

from mtf_conv.base import markdown
from mtf_conv.replicate import grid, paper
from mtf_conv.replicate import plan as plans

_HEAD = """# Each number of the paper, its command, and what it costs

Written by `python -m mtf_conv.pages.experiments`. A row is one number; its
command makes it with base models, as the paper did, and prints it beside the
paper's. Costs are the FLOPs of all einsums of training, forward and backward,
at the steps and lengths of the scale `base` (three learning rates, one seed);
[scale.md](scale.md) turns them into hours of a TPU. Fine-tuning from
pre-trained models also needs the pre-training of that model, which is made
once.

Status: what needs a TPU has not been run. The same grid at two smaller scales
has: [demo](results/demo) (embedded text) and [evening](results/evening) (real
data).
"""
_NOT_RUN = 'not run: needs a TPU'
_RUN = 'mtf_conv replicate run --root=RUNS'


def experiments(cost):
  """Lists the experiments.

  Args:
    cost: a function of (scale's name, model, task, init), with None for the
      task and init of pre-training, that returns exaFLOPs.

  Returns:
    A list of (part of the paper, list of (number, printed, command, exaFLOPs,
    status)).
  """
  pretraining = [
      (model, '', f'{_RUN} --scale=base --models={model} --pretrain_only',
       cost('base', model, None, None), _NOT_RUN) for model in paper.MODELS]
  table_2 = [
      (f'{task} {metric}, {model}, {init}',
       f'{paper.score(model, init, task, metric):.2f}',
       _finetune('base', model, task, init), cost('base', model, task, init),
       _NOT_RUN)
      for task, metric in paper.COLUMNS for init in paper.INITS
      for model in paper.MODELS]
  text = []
  for (task, metric), printed in paper.TEXT.items():
    scale = 'base' if task.startswith('cogs') else 'section_6'
    trained = 'cogs' if task == 'cogs_gen' else task
    for model in paper.MODELS:
      text.append((
          f'{task} {metric}, {model}',
          f'{printed[model != "transformer"]:g}',
          _finetune(scale, model, trained, 'pretrained'),
          cost(scale, model, trained, 'pretrained'), _NOT_RUN))
  attention = [
      (f'mnli accuracy, {model} with encoder attention',
       f'{paper.MNLI_WITH_ENCODER_ATTENTION}',
       _finetune('section_6_attention', model, 'mnli', 'pretrained'),
       cost('section_6_attention', model, 'mnli', 'pretrained')
       + cost('section_6_attention', model, None, None), _NOT_RUN)
      for model in paper.MODELS if model != 'transformer']
  return [
      ('Table 1: data', [
          ('rows, classes and lengths of each data set', 'table',
           'mtf_conv prepare all --raw_dir=RAW --table', None,
           'in [fidelity.md](fidelity.md), each difference explained')]),
      ('Pre-training (section 4.2.1)', pretraining),
      ('Table 2', table_2),
      ('COGS, and section 6.1: the text gives one number for convolutions',
       text + attention),
      ('Figures', [
          ('Figure 1: examples per second against input length', 'picture',
           'mtf_conv bench figure1 --out=FIGURES', None,
           'run on 2 cores: [results/speed](results/speed)'),
          ('Figure 2: FLOPs against input length', 'picture',
           'mtf_conv params --figure=FIGURES', None,
           'run, at base size: [results/speed](results/speed)')])]


def _finetune(scale, model, task, init):
  return (f'{_RUN} --scale={scale} --models={model} --tasks={task} '
          f'--init={init}')


def to_markdown(parts):
  """Writes what `experiments` returns in Markdown."""
  text = _HEAD
  for part, rows in parts:
    frame = pd.DataFrame(
        [(number, printed, f'`{command}`',
          '' if cost is None else f'{cost:,.3g}', status)
         for number, printed, command, cost, status in rows],
        columns=['number', 'printed', 'command', 'exaFLOPs', 'status'])
    text += f'\n## {part}\n\n' + markdown.table(
        frame, numbers=(1, 3))
  return text


def counted_cost():
  """Returns the function `cost` that counts the einsums of the graphs."""
  frames = {}

  def cost(scale_name, model, task, init):
    if scale_name not in frames:
      scale = grid.load_scale(scale_name)
      frames[scale_name] = plans.to_frame(grid.make(scale, 'RUNS'), scale)
    frame = frames[scale_name]
    chosen = frame[frame.model == model]
    chosen = (chosen[chosen.stage == 'pretrain'] if task is None else chosen[
        (chosen.stage == 'finetune') & (chosen.task == task)
        & (chosen.init == init)])
    return chosen.petaflops.sum() / 1e3

  return cost


if __name__ == '__main__':
  print(to_markdown(experiments(counted_cost())), end='')
