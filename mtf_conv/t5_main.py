"""t5_mesh_conv: T5's own main, with this package's layers, tasks and gin.

All flags of t5_mesh_transformer, --verbose, and --check and --check_settings,
which end before anything is built. What TensorFlow and T5 print goes to
<model_dir>/log.txt; the terminal shows progress, scores and errors.
"""

import getpass
import os
import re
import sys
import tempfile
import traceback

from mtf_conv.base import files, t5_flags, terminal


def console_entry_point(argv=None):
  """Runs T5's main on the flags of the command line."""
  argv = sys.argv if argv is None else argv
  if {'--help', '-help', '-h'} & {*argv[1:]}:
    print(t5_flags.HELP, end='')
    sys.exit(0)
  wrong = t5_flags.wrong(argv)
  if wrong:
    terminal.say(wrong)
    sys.exit(2)
  verbose = any(arg in ('--verbose', '-verbose') for arg in argv)
  if not verbose:
    # TensorFlow reads this once, before Python can filter anything.
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
    try:
      terminal.quiet(_log_path(argv))
    except OSError as error:
      terminal.say(f'--model_dir (={_flag(argv, "model_dir")!r}) must be a '
                   f'folder that can be written to: {error}')
      sys.exit(2)
  try:
    _run(argv)
  except SystemExit:
    raise
  except KeyboardInterrupt:
    terminal.say('Stopped. The same command goes on from the last checkpoint.')
    sys.exit(130)
  except Exception as error:  # Whatever it is, it is shown and logged.
    traceback.print_exc()
    from mtf_conv.base import explain
    if verbose:
      sys.exit(1)
    terminal.say(explain.one_line(error) or explain.unexpected(
        error, re.findall(r'^-?-gin_param=(.*)', '\n'.join(argv), re.M)))
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


def _instead(mode):
  """Names what does what a mode of the model API would."""
  return {
      'train': '--gin_file=runs/pretrain.gin',
      'eval': '--gin_file=runs/eval.gin',
      'predict': '--gin_file=runs/predict.gin, or mtf_conv predict',
      'score': '--gin_file=runs/score.gin, or mtf_conv score',
      'export_predict': 'mtf_conv export',
      'export_score': 'mtf_conv export',
  }.get(mode, '--gin_file=runs/finetune.gin')


def _log_path(argv):
  """<model_dir>/log.txt, or a temporary file where that cannot be written."""
  model_dir = _flag(argv, 'model_dir')
  if model_dir is None or files.is_remote(model_dir) or (
      os.path.isdir(model_dir) and not os.access(model_dir, os.W_OK)):
    return os.path.join(
        tempfile.gettempdir(), f'mtf_conv.{getpass.getuser()}', 'log.txt')
  return os.path.join(model_dir, 'log.txt')


def preload():
  """Imports all that T5's main needs: ten seconds, once for all forks."""
  from t5.models import mesh_transformer_main  # noqa: F401

  from mtf_conv import layers, tasks, training  # noqa: F401
  from mtf_conv.base import explain  # noqa: F401


def _run(argv):
  preload()
  import gin
  import tensorflow.compat.v1 as tf
  from absl import app, flags
  from t5.models import mesh_transformer_main

  from mtf_conv import compat
  from mtf_conv.base import errors, gin_files
  from mtf_conv.model_dir import before_run, settings
  for name, what in t5_flags.OWN.items():
    flags.DEFINE_boolean(name, False, what)
  for folder in gin_files.folders():
    gin.add_config_file_search_path(folder)

  def parse_flags(argv):
    try:
      program, *others = flags.FLAGS(argv)
    except flags.Error as error:
      terminal.say(str(error))
      sys.exit(2)
    if others:
      name, known = others[0].partition('=')[0], list(flags.FLAGS)
      meant = (f'; did you mean --{others[0]}?' if name in known else
               errors.nearest(f'--{name}', [f'--{flag}' for flag in known]))
      terminal.say(f'unexpected argument {others[0]!r}: expected flags{meant}')
      sys.exit(2)
    folders = [arg for arg in argv[1:] if re.match('--?model_dir(=|$)', arg)]
    if len(folders) > 1 or folders in (['--model_dir='], ['-model_dir=']):
      terminal.say('expected one --model_dir, the folder of the run: '
                   + ' '.join(folders))
      sys.exit(2)
    model_dir = flags.FLAGS.model_dir
    if re.search(r'[][*?]', model_dir or ''):
      terminal.say(f'--model_dir (={model_dir!r}) must be without [, ], * and '
                   '?: TensorFlow takes them for a pattern, and does not find '
                   'the checkpoints that it has written')
      sys.exit(2)
    if flags.FLAGS.use_model_api or flags.FLAGS.mode:
      terminal.say('--use_model_api and --mode: expected a gin file that says '
                   f'what is done, such as {_instead(flags.FLAGS.mode)}; the '
                   'model API is for scripts, as in docs/use.md')
      sys.exit(2)
    return [program]

  def main(unused_argv):
    if flags.FLAGS.tpu:
      compat.require_for_tpu(tf.__version__)
    before_run.check_on_finalize(flags.FLAGS.model_dir, flags.FLAGS.check)
    # T5 calls it by this name, and reads some of what it parsed at once.
    parse = mesh_transformer_main.utils.parse_gin_defaults_and_flags

    def parse_and_check(*args, **kwargs):
      parse(*args, **kwargs)
      settings.require(flags.FLAGS)
      if flags.FLAGS.check_settings:
        sys.exit(0)

    mesh_transformer_main.utils.parse_gin_defaults_and_flags = parse_and_check
    try:
      return mesh_transformer_main.main(unused_argv)
    finally:
      mesh_transformer_main.utils.parse_gin_defaults_and_flags = parse

  tf.disable_v2_behavior()
  tf.logging.set_verbosity(tf.logging.INFO)
  # First, so that every file and binding of the user comes after it.
  argv = [argv[0], '--gin_file=runs/terminal.gin', *argv[1:]]
  app.run(main, argv, flags_parser=parse_flags)


if __name__ == '__main__':
  console_entry_point()
