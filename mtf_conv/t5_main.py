"""t5_mesh_conv: T5's own main, with this package's layers, tasks and gin.

All flags of t5_mesh_transformer, and --verbose. What TensorFlow and T5 print
goes to <model_dir>/log.txt; the terminal shows progress, scores and errors.
"""

import os
import sys
import tempfile
import traceback

from mtf_conv import jobs, terminal


def console_entry_point(argv=None):
  """Runs T5's main on the flags of the command line."""
  argv = sys.argv if argv is None else argv
  verbose = any(arg in ('--verbose', '-verbose') for arg in argv)
  if not verbose:
    # TensorFlow reads this once, before Python can filter anything.
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
    terminal.quiet(_log_path(argv))
  try:
    _run(argv)
  except SystemExit:
    raise
  except KeyboardInterrupt:
    terminal.say('Stopped. The same command goes on from the last checkpoint.')
    sys.exit(130)
  except Exception as error:  # Whatever it is, it is shown and logged.
    traceback.print_exc()
    from mtf_conv import explain
    if verbose:
      sys.exit(1)
    terminal.say(explain.one_line(error) or traceback.format_exc())
    terminal.say(f'Everything that was printed: {_log_path(argv)}')
    sys.exit(1)


def _flag(argv, name):
  """The value of a flag that is needed before flags can be parsed."""
  for arg, following in zip(argv[1:], argv[2:] + ['']):
    if arg in (f'--{name}', f'-{name}'):
      return following
    if arg.lstrip('-').startswith(f'{name}='):
      return arg.split('=', 1)[1]
  return None


def _log_path(argv):
  """<model_dir>/log.txt, or a temporary file when that is in a bucket."""
  model_dir = _flag(argv, 'model_dir')
  if model_dir is None or '://' in model_dir:
    return os.path.join(tempfile.gettempdir(), 'mtf_conv', 'log.txt')
  return os.path.join(model_dir, 'log.txt')


def preload():
  """Imports all that T5's main needs: ten seconds, once for all forks."""
  from mtf_conv import compat
  compat.install()
  from t5.models import mesh_transformer_main  # noqa: F401

  from mtf_conv import explain, layers, tasks, training  # noqa: F401


def run_jobs(root, all_jobs, at_once, threads, environment=None):
  """Runs jobs that are commands of t5_mesh_conv, see jobs.run.

  To be called before TensorFlow is imported: some of the environment is read
  then.

  Args:
    root: the folder of the records, held by jobs.lock.
    all_jobs: a list of jobs.Job.
    at_once: how many run at a time.
    threads: of each job.
    environment: environment variables that this process and each job gets.

  Returns:
    A list of (job, reason) of those that failed.
  """
  os.environ.update(environment or {}, MTF_CONV_PROGRESS='0', **dict.fromkeys(
      ('OMP_NUM_THREADS', 'TF_NUM_INTRAOP_THREADS', 'TF_NUM_INTEROP_THREADS'),
      str(threads)))
  preload()
  return jobs.run(root, all_jobs, console_entry_point, at_once)


def _run(argv):
  preload()
  import gin
  import tensorflow.compat.v1 as tf
  from absl import app, flags
  from t5.models import mesh_transformer_main

  from mtf_conv import gin_files, record
  flags.DEFINE_boolean(
      'verbose', False, 'Show all that TensorFlow and T5 print.')
  for folder in gin_files.folders():
    gin.add_config_file_search_path(folder)

  def parse_flags(argv):
    try:
      return flags.FLAGS(argv)
    except flags.Error as error:
      terminal.say(str(error))
      sys.exit(2)

  def main(unused_argv):
    # First, so that every file and binding of the user comes after it.
    flags.FLAGS.gin_file = ['runs/terminal.gin'] + (flags.FLAGS.gin_file or [])
    record.check_on_finalize(flags.FLAGS.model_dir)
    return mesh_transformer_main.main(unused_argv)

  tf.disable_v2_behavior()
  tf.logging.set_verbosity(tf.logging.INFO)
  app.run(main, argv, flags_parser=parse_flags)


if __name__ == '__main__':
  console_entry_point()
