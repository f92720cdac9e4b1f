"""Pre-trained convolutions beside a pre-trained Transformer, in minutes.

Pre-trains tiny models with span corruption on the embedded corpus, fine-tunes
each from scratch and from its pre-trained checkpoint, scores every fine-tuning
checkpoint, and prints what pre-training gained. Training and scoring are T5's:
--plan prints the commands.

Stopped or killed, the same command goes on where it was.
"""

import glob
import os
import sys

from mtf_conv import cli, errors, jobs, t5_main

MODELS = ('lightconv', 'transformer', 'dynamicconv', 'dilatedconv')
TASK = 'demo_finetune'

# About how long a kind of job takes, on one core of a laptop.
_SECONDS = {'pretrain': 60, 'finetune': 25, 'evaluate': 20}
_IMPORT_SECONDS = 12


def make_jobs(models, root, gin_params=()):
  """Lists the jobs of the comparison.

  Args:
    models: names of models.
    root: the folder of all runs.
    gin_params: gin bindings that every command gets.

  Returns:
    A list of jobs.Job.
  """
  def command(model, folder, run, *bindings):
    gin_files = (f'models/{model}.tiny.gin', 'hardware/cpu.gin', run)
    return ('t5_mesh_conv', f'--model_dir={folder}',
            *(f'--gin_file={path}' for path in gin_files),
            *(f'--gin_param={binding}' for binding in [*bindings, *gin_params]))

  def output(*parts):
    return (os.path.join(glob.escape(parts[0]), *parts[1:]),)

  pretraining, finetuning = [], []
  for model in models:
    pretrain_dir = model_dir(root, model, 'pretrain')
    pretrain = jobs.Job(
        name=f'{model}.pretrain',
        argv=command(model, pretrain_dir, 'runs/demo_pretrain.gin'),
        outputs=output(pretrain_dir, 'checkpoint'),
        progress=os.path.join(pretrain_dir, 'progress.json'),
        seconds=_SECONDS['pretrain'])
    pretraining.append(pretrain)
    for init, checkpoint in (
        ('raw', None), ('pretrained', f'"{pretrain_dir}"')):
      finetune_dir = model_dir(root, model, init)
      finetune = jobs.Job(
          name=f'{model}.{init}.finetune',
          argv=command(model, finetune_dir, 'runs/demo_finetune.gin',
                       f'PRETRAINED={checkpoint}'),
          outputs=output(finetune_dir, 'checkpoint'),
          needs=(pretrain.name,) if checkpoint else (),
          progress=os.path.join(finetune_dir, 'progress.json'),
          seconds=_SECONDS['finetune'])
      evaluate = jobs.Job(
          name=f'{model}.{init}.evaluate',
          argv=command(model, finetune_dir, 'runs/eval.gin',
                       f'MIXTURE_NAME="{TASK}"'),
          outputs=output(finetune_dir, 'validation_eval', 'events.*'),
          needs=(finetune.name,),
          seconds=_SECONDS['evaluate'])
      finetuning += [finetune, evaluate]
  return pretraining + finetuning  # What others wait for comes first.


def model_dir(root, model, run):
  """Returns the folder of one run: 'pretrain', 'raw' or 'pretrained'."""
  return os.path.join(root, model, run)


def write_report(models, root):
  """Writes the table and the learning curves; returns the table's text."""
  from mtf_conv.report import curves, table

  def model_dirs(model, run):
    return model_dir(root, model, run)

  frame = table.compare(models, model_dirs, TASK)
  text = table.to_markdown(frame)
  with open(os.path.join(root, 'table.md'), 'w') as f:
    f.write(text)
  frame.to_csv(os.path.join(root, 'table.csv'), index=False)
  curves.plot(os.path.join(root, 'curves.png'), models, model_dirs, TASK)
  return text


def _models(text):
  """Parses --models."""
  models = MODELS if text == 'all' else tuple(text.split(','))
  for name in models:
    if name not in MODELS:
      raise errors.UserError(
          f'unknown model {name!r}: choose from {", ".join(MODELS)}, all'
          + errors.nearest(name, MODELS))
  return tuple(dict.fromkeys(models))


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
  parser = cli.Parser(prog='quickstart', description=__doc__)
  parser.add_argument(
      '--models', default='lightconv,transformer', metavar='NAME,...',
      help=f'some of {", ".join(MODELS)}, or all (default: %(default)s)')
  parser.add_argument(
      '--root', default='quickstart_runs', metavar='DIR',
      help='the folder of checkpoints, logs and results (default: %(default)s)')
  parser.add_argument(
      '--jobs', type=int, default=min(4, _cores()), metavar='N',
      help='how many run at a time (default: one per core, at most 4)')
  parser.add_argument(
      '--gin_param', action='append', default=[], metavar='NAME=VALUE',
      help='a gin binding that every command gets; may be repeated')
  parser.add_argument(
      '--plan', action='store_true', help='print the commands and run nothing')
  return parser


def _train(all_jobs, at_once, root):
  return t5_main.run_jobs(root, all_jobs, at_once, _threads(at_once))


def run(args):
  """Runs the comparison; returns the exit code."""
  models = _models(args.models)
  root = os.path.abspath(os.path.expanduser(args.root))
  all_jobs = make_jobs(models, root, args.gin_param)
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
    cli.quiet()
    failed = _train(all_jobs, args.jobs, root) if left else []
    text = write_report(models, root)
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
