"""mtf_conv replicate: plans, runs and shows the paper's grid."""

import os
import sys

from mtf_conv import errors, jobs, modules, t5_main
from mtf_conv.replicate import grid

# Of t5_mesh_conv, which hands them to TensorFlow.
_TPU_FLAGS = {'tpu': 'the TPU that jobs run on, one at a time',
              'tpu_zone': 'the zone it is in', 'gcp_project': 'its project'}
_FORMATS = ('table', 'json', 'shell', 'slurm')
_NOTES = 12  # Lines of what is missing or doubtful on the terminal.


def plan(runs, scale, form, teraflops_per_second):
  """Prints the grid as `form`, one of table, json, shell, slurm."""
  from mtf_conv.replicate import plan as plans
  if form in ('shell', 'slurm'):
    print({'shell': plans.to_shell, 'slurm': plans.to_slurm}[form](runs),
          end='')
    return
  frame = plans.to_frame(runs, scale, teraflops_per_second)
  print(plans.to_table(frame) if form == 'table' else
        plans.to_json(runs, frame), end='')


def status(root, runs):
  """Prints how each job of a root stands."""
  from mtf_conv.replicate import plan as plans
  frame = plans.status(root, runs)
  print(frame.to_string(index=False, na_rep='-', formatters={
      'step': '{:,.0f}'.format, 'total': '{:,.0f}'.format,
      'minutes': '{:.1f}'.format}))
  counts = frame.state.value_counts()
  print(', '.join(f'{counts[state]} {state}' for state in counts.index))


def run(root, runs, scale, at_once, threads):
  """Runs what is not done.

  Args:
    root: the folder of all runs.
    runs: as grid.make returns them.
    scale: the scale they were made of.
    at_once: how many jobs at a time.
    threads: of each job.

  Returns:
    The exit code: 1 if any job failed.

  Raises:
    errors.UserError: another runner has the root, or it holds other runs.
  """
  if at_once < 1:
    raise errors.UserError(f'--jobs (={at_once}) must be at least 1')
  all_jobs = [run.job for run in runs]
  with jobs.lock(root):
    records = jobs.Records(root)
    left = sum(not records.is_done(job) for job in all_jobs)
    print(f'{left} of {len(all_jobs)} jobs to run, {at_once} at a time, in '
          f'{os.path.abspath(root)}', flush=True)
    if not left:
      return 0
    failed = t5_main.run_jobs(
        root, all_jobs, at_once, threads, scale.get('environment'))
  for job, reason in failed:
    print('\n' + jobs.describe_failure(root, job, reason), file=sys.stderr)
  return 1 if failed else 0


def report(runs, scale, out_dir, figures_dir):
  """Writes the report of a grid, finished or not, and prints its table."""
  from mtf_conv.report import page
  table, notes = page.write(runs, out_dir, scale.get('about', ''), figures_dir)
  print(table, end='')
  if notes:
    print('\nMissing or doubtful:', *notes[:_NOTES], sep='\n* ')
    if len(notes) > _NOTES:
      print(f'* and {len(notes) - _NOTES} more, which index.html has')
    print()
  print(f'Written to {os.path.abspath(out_dir)}: index.html, table2.md, .csv, '
        '.tex, curves')
  return 0


def add_report_flags(parser):
  """Adds the flags of mtf_conv report; returns the function that does it."""
  _add_grid_flags(parser)
  parser.add_argument('--out', default='report', metavar='DIR',
                      help='a folder for the report (default: %(default)s)')
  parser.add_argument(
      '--figures', metavar='DIR',
      help='of mtf_conv bench figure1 --out=DIR and mtf_conv params '
      '--figure=DIR (default: ROOT/figures)')

  def work(args):
    scale, runs = _grid(args)
    figures = args.figures or os.path.join(args.root, 'figures')
    return report(runs, scale, args.out, figures)
  return work


def add_flags(parser):
  """Adds the flags of mtf_conv replicate; returns the function that does it."""
  parser.add_argument('what', choices=['plan', 'run', 'status'])
  _add_grid_flags(parser)
  parser.add_argument(
      '--format', choices=_FORMATS, default='table', help='of the plan')
  parser.add_argument(
      '--teraflops_per_second', type=float, metavar='X',
      help='what the machine does, for the hours in the plan')
  parser.add_argument('--jobs', type=int, default=1, metavar='N',
                      help='how many run at a time (default: 1)')
  parser.add_argument('--threads', type=int, default=1, metavar='N',
                      help='of each job (default: 1)')

  def work(args):
    scale, runs = _grid(args)
    if args.what == 'plan':
      modules.import_all(args.module_import)
      return plan(runs, scale, args.format, args.teraflops_per_second)
    if args.what == 'status':
      return status(args.root, runs)
    return run(args.root, runs, scale, args.jobs, args.threads)
  return work


def _grid(args):
  scale = grid.load_scale(args.scale)
  flags = [f'--{name}={getattr(args, name)}' for name in _TPU_FLAGS
           if getattr(args, name)]
  flags += [f'--module_import={name}' for name in args.module_import]
  flags += [f'--gin_param={binding}' for binding in args.gin_param]
  hardware = args.hardware or ('tpu' if args.tpu else None)
  runs = grid.make(
      scale, args.root, args.models, args.tasks, args.init, args.learning_rates,
      args.seeds, hardware, args.checkpoints, flags)
  return scale, [run for run in runs
                 if run.stage == 'pretrain' or not args.pretrain_only]


def _add_grid_flags(parser):
  parser.add_argument('--scale', default='demo', help=(
      f'{", ".join(grid.scale_names())}, or the path of a .json file like '
      'theirs (default: %(default)s)'))
  parser.add_argument(
      '--root', default='replicate_runs', metavar='DIR',
      help='the folder of all runs (default: %(default)s)')
  for name in ('models', 'tasks', 'init'):
    parser.add_argument(f'--{name}', metavar='NAME,...', type=_list(str),
                        help='only these')
  parser.add_argument('--pretrain_only', action='store_true',
                      help='leave fine-tuning for later')
  parser.add_argument('--learning_rates', metavar='RATE,...', type=_list(float),
                      help="instead of the scale's")
  parser.add_argument('--seeds', metavar='N,...', type=_list(int),
                      default=[0], help='one grid for each (default: 0)')
  parser.add_argument('--hardware', choices=['cpu', 'gpu', 'tpu'],
                      help="instead of the scale's")
  parser.add_argument(
      '--checkpoints', metavar='DIR',
      help='where all model_dirs go, for a TPU gs://BUCKET/... (default: ROOT)')
  modules.add_flag(parser)
  for name, help_ in _TPU_FLAGS.items():
    parser.add_argument(f'--{name}', metavar='NAME', help=help_)
  parser.add_argument(
      '--gin_param', action='append', default=[], metavar='BINDING',
      help="of every command, for instance TPU_TOPOLOGY='v3-8'; repeatable")


def _list(kind):
  def parse(text):
    return [kind(part) for part in text.split(',')]
  parse.__name__ = f'list of {kind.__name__}'
  return parse
