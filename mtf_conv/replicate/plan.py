"""The grid on paper: a table, JSON, shell lines, a SLURM array."""

import json

import pandas as pd

from mtf_conv.measure import counting, graph, models
from mtf_conv.replicate import jobs


def to_frame(runs, scale, teraflops_per_second=None):
  """Lists the runs with what they cost.

  Args:
    runs: as grid.make returns them.
    scale: the scale they were made of.
    teraflops_per_second: what the machine does; None if it is not known.

  Returns:
    A pd.DataFrame, a row per run. petaflops are those of all einsums of
    training, forward and backward; of an evaluation they are not counted.
  """
  counted = {}
  rows = []
  for run in runs:
    petaflops = None
    if run.numbers:
      key = (run.model, run.numbers['inputs'], run.numbers['targets'])
      if key not in counted:
        counted[key] = _flops_per_example(scale, *key)
      petaflops = counted[key] * (
          run.numbers['sequences'] * run.numbers['steps']) / 1e15
    rows.append({
        'job': run.job.name, 'stage': run.stage, 'model': run.model,
        'task': run.task, 'init': run.init,
        'learning_rate': run.learning_rate, 'seed': run.seed,
        'steps': run.numbers.get('steps'), 'petaflops': petaflops,
        'hours': petaflops and teraflops_per_second and (
            petaflops * 1e3 / teraflops_per_second / 3600)})
  return pd.DataFrame(rows).astype({'petaflops': float, 'hours': float})


def _flops_per_example(scale, model, inputs, targets):
  models.parse([f'models/{model}.{scale["size"]}.gin',
                *scale.get('gin_files', ())], models.AS_ON_TPU)
  with graph.Builder() as builder:
    models.training(builder, 1, inputs, targets)
    return 2 * counting.einsum(builder)


def to_table(frame):
  """Writes the list for a person, with sums."""
  shown = frame[['job', 'steps', 'petaflops', 'hours']]
  shown = shown.dropna(axis=1, how='all')
  hours = frame.hours.sum()
  text = shown.to_string(
      index=False, na_rep='-', formatters={
          'steps': '{:,.0f}'.format, 'petaflops': '{:,.3g}'.format,
          'hours': '{:,.2f}'.format})
  return (f'{text}\n{len(frame)} jobs, {frame.petaflops.sum():,.4g} petaFLOPs '
          'of training' + (f', {hours:,.1f} hours' if hours else '') + '\n')


def to_json(runs, frame):
  """Writes everything about each job as JSON."""
  rows = json.loads(frame.to_json(orient='records'))
  for run, row in zip(runs, rows):
    row.update(command=list(run.job.argv), needs=list(run.job.needs),
               outputs=list(run.job.outputs))
  return json.dumps(rows, indent=1) + '\n'


def to_shell(runs):
  """Writes one line per job, in an order in which they can be run."""
  return ''.join(f'{run.job.command()}  # {run.job.name}\n' for run in runs)


def to_slurm(runs):
  """Writes a script that submits the grid to SLURM.

  It is an array for each stage: what prepares data, the pre-trainings, and a
  task for each fine-tuning with its evaluation; each waits for the one before.
  """
  chains = {}
  for run in runs:
    chains.setdefault(run.model_dir, []).append(run)
  arrays = {'prepare': [], 'pretrain': [], 'finetune': []}
  for chain in chains.values():
    stage = chain[0].stage if chain[0].stage in arrays else 'finetune'
    arrays[stage].append(' && '.join(run.job.command() for run in chain))
  text = '#!/bin/bash\n# Submits the grid: bash THIS_FILE\nset -euo pipefail\n'
  dependency = ''
  for name, commands in arrays.items():
    if commands:
      text += _SLURM_ARRAY.format(
          name=name, dependency=dependency, last=len(commands) - 1,
          cases='\n'.join(f'{number}) {command} ;;'
                          for number, command in enumerate(commands)))
      dependency = f'--dependency=afterok:"${name}" '
  return text


_SLURM_ARRAY = """
{name}=$(sbatch --parsable {dependency}--job-name={name} \\
  --array=0-{last} <<'ARRAY'
#!/bin/bash
case "$SLURM_ARRAY_TASK_ID" in
{cases}
esac
ARRAY
)
echo "{name}: ${name}"
"""


def status(root, runs):
  """Says how each job stands.

  Args:
    root: the folder of all runs.
    runs: as grid.make returns them.

  Returns:
    A pd.DataFrame with job, state ('done', 'failed', 'begun' or 'to do'),
    step, total and minutes.
  """
  records = jobs.Records(root)
  rows = []
  for run in runs:
    record = records.read(run.job)
    progress = jobs.read_progress(run.job)
    rows.append({
        'job': run.job.name, 'state': _state(records, run.job, record),
        'step': progress.get('step'), 'total': run.numbers.get('steps'),
        'minutes': record.get('seconds', float('nan')) / 60})
  return pd.DataFrame(rows).astype({'step': float, 'total': float})


def _state(records, job, record):
  if not record:
    return 'to do'
  if records.is_done(job):
    return 'done'
  return 'failed' if 'exit_code' in record else 'begun'
