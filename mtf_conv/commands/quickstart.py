"""Pre-trained convolutions beside a pre-trained Transformer, in minutes.

Pre-trains tiny models with span corruption on the embedded corpus, fine-tunes
each from scratch and from its pre-trained checkpoint, scores every fine-tuning
checkpoint, and prints what pre-training gained. Training and scoring are T5's:
--plan prints the commands.

Stopped or killed, the same command goes on where it was.
"""

import os
import sys

from mtf_conv.base import command_line, errors, gin_files
from mtf_conv.replicate import grid, jobs, runner

TASK = 'demo_finetune'
_LEARNING_RATE = 0.001
_IMPORT_SECONDS = 12


def make_runs(models, root, scale):
  """Lists the runs of the comparison: of the grid, one learning rate.

  Args:
    models: names of models; all when None.
    root: the folder of all runs.
    scale: as grid.load_scale returns it.

  Returns:
    A list of grid.Run.
  """
  return grid.make(scale, root, models, tasks=[TASK],
                   learning_rates=[_LEARNING_RATE])


def write_report(models, runs, root):
  """Writes the table and the learning curves; returns the table's text."""
  from mtf_conv.report import curves, table
  folders = {(run.model, run.init or 'pretrain'): run.model_dir for run in runs}

  def model_dirs(model, init):
    return folders[model, init]

  frame = table.compare(models, model_dirs, TASK)
  text = table.to_markdown(frame)
  with open(os.path.join(root, 'table.md'), 'w') as f:
    f.write(text)
  frame.to_csv(os.path.join(root, 'table.csv'), index=False)
  curves.plot(os.path.join(root, 'curves.png'), models, model_dirs, TASK)
  return text


def _cores():
  try:
    return len(os.sched_getaffinity(0))
  except AttributeError:  # Not on Linux.
    return os.cpu_count()


def _threads(at_once):
  """Two jobs of one thread do more than one job of two threads."""
  return max(1, _cores() // at_once)


def _duration(seconds):
  """Returns a duration as a person says it."""
  return (f'{seconds / 60:.0f} minutes' if seconds >= 90
          else f'{max(10, round(seconds, -1)):.0f} seconds')


def _print_plan(left, done, at_once, root):
  # A job that runs alone at the end leaves cores idle: that is the 10 %.
  seconds = _IMPORT_SECONDS + 1.1 * sum(job.seconds for job in left) / at_once
  print(f'{len(left)} jobs to run, {at_once} at a time'
        + (f', {done} done already' if done else '')
        + f': about {_duration(seconds)}')
  print(f'Folder: {root}', flush=True)


def _parser():
  parser = command_line.Parser(prog='quickstart', description=__doc__)
  parser.add_argument(
      '--models', default='lightconv,transformer', metavar='NAME,...',
      help=f'some of {", ".join(gin_files.model_names("tiny"))}, or all '
      '(default: %(default)s)')
  parser.add_argument(
      '--root', default='quickstart_runs', metavar='DIR',
      help='the folder of checkpoints, logs and results (default: %(default)s)')
  parser.add_argument(
      '--jobs', type=int, default=min(4, _cores()), metavar='N',
      help='how many run at a time (default: one per core, at most 4)')
  parser.add_argument(
      '--scale', default='demo', metavar='FILE',
      help='a .json file like those in mtf_conv/replicate/scales, which says '
      'how long each run is (default: %(default)s)')
  parser.add_argument(
      '--plan', action='store_true', help='print the commands and run nothing')
  return parser


def _train(all_jobs, at_once, root, environment):
  return runner.run_jobs(
      root, all_jobs, at_once, _threads(at_once), environment)


def run(args):
  """Runs the comparison; returns the exit code."""
  models = None if args.models == 'all' else args.models.split(',')
  root = os.path.abspath(os.path.expanduser(args.root))
  scale = grid.load_scale(args.scale)
  runs = make_runs(models, root, scale)
  all_jobs = [run.job for run in runs]
  models = tuple(dict.fromkeys(run.model for run in runs))
  if args.jobs < 1:
    raise errors.UserError(f'--jobs (={args.jobs}) must be at least 1')
  if args.plan:
    for job in all_jobs:
      print(f'# {job.name}\n{job.command()}')
    return 0
  with jobs.lock(root):
    print(f'Quick start: {", ".join(models)} (tiny), raw and pre-trained')
    records = jobs.Records(root)
    left = [job for job in all_jobs if not records.is_done(job)]
    _print_plan(left, len(all_jobs) - len(left), args.jobs, root)
    command_line.quiet()
    failed = _train(
        all_jobs, args.jobs, root, scale.get('environment')) if left else []
    text = write_report(models, runs, root)
  print(f'\nAccuracy on {TASK} (%), best over the checkpoints; steps/s of '
        f'pre-training,\n{_threads(args.jobs)} thread(s) per job:\n\n{text}')
  print(f'Written to {root}: table.md, table.csv, curves.png')
  for job, reason in failed:
    print('\n' + jobs.describe_failure(root, job, reason), file=sys.stderr)
  return 1 if failed else 0


def main(argv=None):
  """Parses the command line and runs; returns the exit code."""
  args = _parser().parse_args(argv)
  try:
    return run(args)
  except errors.UserError as error:
    print(f'quickstart: {error}', file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    print('\nStopped. The same command goes on where it was.', file=sys.stderr)
    return 130


if __name__ == '__main__':
  sys.exit(main())
