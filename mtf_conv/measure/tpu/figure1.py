"""The paper's Figure 1 for a slice of TPUs, as their compiler estimates it.

A part of each model is compiled, see `cut`. Nothing is run.
"""

import os

import pandas as pd

from mtf_conv.base import errors, gin_files
from mtf_conv.measure import figures, models
from mtf_conv.measure.tpu import compiler, cut, fit, step

LENGTHS = (64, 128, 256, 512, 1024, 2048, 4096)
TOKENS = fit.BATCH * fit.INPUTS
_CASE = ['model', 'topology', 'mesh', 'inputs']


def sequences(tokens, inputs, replicas) -> int:
  """Returns the sequences in a step, at least one on each replica.

  Args:
    tokens: of inputs in a step.
    inputs: the length of a sequence.
    replicas: of the model.
  """
  return max(tokens // max(inputs, 1), replicas)


def bench(kinds=None, size='base', topology='v3:4x4', mesh=None, layout=None,
          lengths=LENGTHS, tokens=TOKENS, cache=None, out_dir=None,
          module_import=(), say=print):
  """Estimates, prints and draws Figure 1.

  Args:
    kinds: names of models; all that have the size when None.
    size: of the models.
    topology: see step.setup, as what follows.
    mesh: over which the step is divided.
    layout: layout rules.
    lengths: of inputs; targets are as T5's span corruption has them.
    tokens: of inputs in a step, at any length.
    cache: a folder for what is compiled.
    out_dir: a folder for figure1.csv, to which rows are added, and figure1.png;
      None for none.
    module_import: modules of the user that models need.
    say: is told what is done.

  Raises:
    errors.UserError: no clock of the TPU is published; or a model is not
      compiled, after those that are.
  """
  paths = [path for name in kinds or gin_files.model_names(size)
           for path in models.resolve(name, [size])]
  if tokens < 1:
    raise errors.UserError(f'tokens (={tokens}) must be at least 1')
  first = step.setup(topology, mesh, layout)
  device = f'TPU {first.topology.partition(":")[0]}'
  if device not in compiler.HERTZ:
    raise errors.UserError(
        f'the clock of {device} is not published, so that cycles are no '
        f'seconds: {", ".join(compiler.HERTZ)} have one')
  replicas = first.shape.size // first.model_parallelism
  wanted = [step.setup(topology, mesh, layout, sequences(tokens, n, replicas),
                       n) for n in lengths]
  cases = [(path, each) for path in paths for each in wanted]
  frame, failed = pd.DataFrame(), []
  for number, (path, each) in enumerate(cases, 1):
    say(f'{number} of {len(cases)}')
    try:
      row = estimate(path, each, cache, module_import, say)
    except errors.UserError as error:
      failed.append(error)
      say(str(error))
      continue
    frame = pd.concat([frame, pd.DataFrame([row])])
    if out_dir:  # What comes next may take minutes, and fail.
      write(out_dir, frame)
  if len(frame):
    say(to_text(frame))
    if out_dir:
      say(f'Wrote {os.path.join(out_dir, "figure1")}.csv and .png')
  if failed:
    raise failed[0]


def estimate(path, wanted, cache=None, module_import=(), say=print) -> dict:
  """Compiles a part of a model, and reckons a step of the whole.

  Args:
    path: the model's gin file.
    wanted: a step.Setup.
    cache: see compiler.compile_program.
    module_import: see step.compile_step.
    say: is told what is done.

  Returns:
    A row of figure1.csv.
  """
  part = cut.cut(path)
  compiled, rows = step.compile_step(
      path, wanted, cache, module_import, say, part.bindings)
  found = cut.whole(rows, part.counts, cut.growth(path))
  missing = found.pop('not_estimated_bytes')
  cycles = sum(found.values())
  seconds = cycles / compiled.hertz
  return {
      'model': models.title(path), 'topology': wanted.topology,
      'mesh': wanted.mesh, 'inputs': wanted.inputs,
      'targets': models.targets_length(wanted.inputs), 'batch': wanted.batch,
      'device': compiled.device,
      'counts': ' '.join(map(str, part.counts)), **found, 'cycles': cycles,
      'not_estimated_bytes': missing,
      'milliseconds': round(1e3 * seconds, 3),
      'examples_per_second': round(wanted.batch / seconds, 2)}


def to_text(frame) -> str:
  """Returns the figure as lines.

  Args:
    frame: a pd.DataFrame with the columns of figure1.csv.
  """
  lines = []
  for (topology, mesh), rows in frame.groupby(['topology', 'mesh'], sort=False):
    table = _by_length(rows)
    lines += [f'{topology}, {mesh}: examples a second, by the estimate of its '
              'compiler; nothing was run, transfers are not in it',
              *table.to_string(float_format='{:.1f}'.format,
                               na_rep='').splitlines()]
    transformers = [name for name in table if name.startswith('transformer')]
    if transformers and len(table.columns) > 1:
      ratios = table.div(table[transformers[0]], axis=0)
      lines += ['as many times as the Transformer', *ratios.to_string(
          float_format='{:.2f}'.format, na_rep='').splitlines()]
  return '\n'.join(lines)


def _by_length(rows):
  return rows.pivot(index='inputs', columns='model',
                    values='examples_per_second')[
                        list(dict.fromkeys(rows.model))]


def write(out_dir, frame):
  """Adds rows to figure1.csv, in place of those of the same case; draws them.

  Args:
    out_dir: a folder.
    frame: a pd.DataFrame. The picture is of its first row's topology and mesh.
  """
  os.makedirs(out_dir, exist_ok=True)
  path = os.path.join(out_dir, 'figure1')
  first = frame.iloc[0]
  if os.path.exists(f'{path}.csv'):
    frame = pd.concat([pd.read_csv(f'{path}.csv'), frame])
  frame = frame.drop_duplicates(_CASE, keep='last')
  frame.to_csv(f'{path}.csv', index=False)
  shown = frame[(frame.topology == first.topology) & (frame.mesh == first.mesh)]
  figures.lines(
      f'{path}.png', _by_length(shown.sort_values('inputs', kind='stable')),
      f'examples a second on {first.topology}, estimated',
      'input length; transfers between cores are not in it',
      f'libtpu {compiler.VERSIONS["libtpu"]}, {first.mesh}, bfloat16; nothing '
      'was run')
