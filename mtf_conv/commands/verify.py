"""mtf_conv verify: whether a packed model is what it was, and scores so."""

import multiprocessing
import os
import sys
import tempfile

from mtf_conv.base import modules


def add_flags(parser):
  """Adds the flags; returns the function that does the work."""
  parser.add_argument('folder', help='one that mtf_conv pack has written')
  parser.add_argument(
      '--files_only', action='store_true', help='only compare the files with '
      'their sums')
  parser.add_argument(
      '--data_dir', help="TFDS's data folder with the data of the task; TFDS's "
      'default when it is not given')
  modules.add_flag(parser)

  def run(args):
    from mtf_conv.exchange import pack
    manifest = pack.read(args.folder)
    print(f'{args.folder}: {len(manifest["files"])} files are what was packed')
    if args.files_only:
      return 0
    wanted = manifest['scores']
    tasks = list(dict.fromkeys(score['task'] for score in wanted))
    if not tasks:
      print('It was packed without a score: none is compared.')
    return max([_compare(args, task, manifest['step'],
                         [s for s in wanted if s['task'] == task])
                for task in tasks], default=0)

  return run


def _compare(args, task, step, wanted):
  """Scores a checkpoint on a task; returns whether it is worse than it was."""
  from mtf_conv.commands import pack
  with tempfile.TemporaryDirectory() as folder:
    for name in os.listdir(args.folder):  # What is written stays out of it.
      os.symlink(os.path.abspath(os.path.join(args.folder, name)),
                 os.path.join(folder, name))
    code = _evaluate(args, task, step, folder)
    if code:
      return code
    found = {score['metric']: score for score in pack.evaluation(folder, step)}
  code = 0
  for score in wanted:
    metric = score['metric']
    if metric not in found:
      print(f'{task}, {metric}: {score["score"]:.2f} when packed, and the task '
            'has no such metric here')
      code = 1
      continue
    rows, here = found[metric]['rows'], found[metric]['score']
    differs = abs(here - score['score'])
    says = ('the same' if differs < 0.005 else
            f'differs by {differs:.2f} ({rows} rows)')
    # Another processor rounds otherwise: a few rows may change.
    if differs > (score['error'] or 0.5):
      says += ', more than its error: not the model, or not the data'
      code = 1
    print(f'{task}, {metric}: {score["score"]:.2f} when packed, {here:.2f} '
          f'here: {says}')
  return code


def _evaluate(args, task, step, folder):
  """Has t5_mesh_conv evaluate a copy of a pack; returns its exit code."""
  from mtf_conv.answer import trained
  vocabulary = os.path.join(folder, trained.VOCABULARY)
  bindings = [
      f'MIXTURE_NAME = {task!r}', f'utils.run.eval_checkpoint_step = {step}',
      f'mtf_conv.vocabulary.sentencepiece_model_path = {vocabulary!r}']
  gin_files = [os.path.join(folder, 'operative_config.gin'),
               'runs/eval.gin', 'hardware/cpu.gin']
  data = [f'--t5_tfds_data_dir={args.data_dir}'] if args.data_dir else []
  argv = ['t5_mesh_conv', f'--model_dir={folder}', *data,
          *(f'--module_import={name}' for name in args.module_import),
          *(f'--gin_file={path}' for path in gin_files),
          *(f'--gin_param={binding}' for binding in bindings)]
  # In a process of its own, since gin and its flags are parsed once.
  process = multiprocessing.get_context('fork').Process(
      target=_run_t5, args=(argv, vocabulary))
  process.start()
  process.join()
  return process.exitcode


def _run_t5(argv, vocabulary):
  from mtf_conv import t5_main
  os.environ['MTF_CONV_VOCAB'] = vocabulary
  sys.argv = argv
  t5_main.console_entry_point(argv)
