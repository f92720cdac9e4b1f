"""mtf_conv replicate: plans, runs and shows the paper's grid."""

import os
import sys

from mtf_conv import commands, t5_main
from mtf_conv.base import errors, modules
from mtf_conv.commands import grid_flags
from mtf_conv.replicate import jobs, runner

_FORMATS = ('table', 'json', 'shell', 'slurm')


def add_flags(parser):
  """Adds the flags; returns the function that does the work."""
  parser.add_argument('what', choices=['plan', 'run', 'status'])
  grid_flags.add(parser)
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
    scale, runs = grid_flags.make(args)
    if args.what == 'plan':
      modules.import_all(args.module_import)
      return plan(runs, scale, args.format, args.teraflops_per_second)
    if args.what == 'status':
      return status(args.root, runs)
    return run(args.root, runs, scale, args.jobs, args.threads)

  return work


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
    failed = runner.run_jobs(
        root, all_jobs, at_once, threads, scale.get('environment'), _run_job,
        check=True)
  for job, reason in failed:
    print('\n' + jobs.describe_failure(root, job, reason), file=sys.stderr)
  return 1 if failed else 0


def _run_job(argv):
  """Runs a command of t5_mesh_conv, or of a verb."""
  program, verb, *args = argv
  if program == 't5_mesh_conv':
    t5_main.console_entry_point(argv)
    return
  sys.exit(commands.run(verb, args))
