"""mtf_conv VERB: the command line, parsing only.

A verb is a function that adds its flags to a parser and returns the function
that does the work, which imports what it needs: `mtf_conv --help` does not wait
for TensorFlow.
"""

import argparse
import logging
import os
import re
import sys
import warnings

from mtf_conv import errors, gin_files, modules


class Parser(argparse.ArgumentParser):
  """argparse, telling what is wrong in one line with the nearest valid name."""

  def __init__(self, **kwargs):
    super().__init__(
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter, **kwargs)

  def parse_args(self, args=None, namespace=None):
    """Parses; an unknown flag or a wrong value ends the program."""
    parsed, unknown = self.parse_known_args(args, namespace)
    if unknown:
      flag = unknown[0].split('=')[0]
      kind = 'flag' if flag.startswith('-') else 'argument'
      self.error(f'unknown {kind} {flag!r}'
                 + errors.nearest(flag, self._option_string_actions))
    return parsed

  def error(self, message):
    """Ends the program with one line."""
    choice = re.fullmatch(
        r"argument (.*): invalid choice: '(.*)' \(choose from (.*)\)", message)
    if choice:
      name, value, choices = choice.groups()
      choices = re.findall(r"'([^']*)'", choices)
      message = (f'unknown {name} {value!r}: choose from {", ".join(choices)}'
                 + errors.nearest(value, choices))
    self.exit(2, f'{self.prog}: {message}; --help says what there is\n')


def quiet():
  """Keeps what TensorFlow and TFDS log for their developers to themselves.

  To be called before TensorFlow is imported.
  """
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
  warnings.simplefilter('ignore')
  for name in ('absl', 'tensorflow'):
    logging.getLogger(name).setLevel(logging.ERROR)


def _list(parser):
  parser.add_argument(
      'kind', nargs='?', choices=['models', 'tasks', 'gin'],
      help='only these; all when it is not given')

  def run(args):
    from mtf_conv import listing
    return listing.show(args.kind)

  return run


def _doctor(parser):
  parser.add_argument(
      '--data_dir', help="TFDS's data folder to look into, beside the default")

  def run(args):
    from mtf_conv import doctor
    return doctor.examine(args.data_dir)

  return run


def _prepare(parser):
  parser.add_argument(
      'task', nargs='+', help='tasks whose data is prepared: trec, ...; '
      'mixtures; or all')
  modules.add_flag(parser)
  parser.add_argument(
      '--raw_dir', help='the folder of the raw files or archives under their '
      "original names, or of folders with the tasks' names; without it they "
      'are downloaded')
  parser.add_argument(
      '--data_dir', help="TFDS's data folder, to be given to t5_mesh_conv as "
      "--t5_tfds_data_dir; TFDS's default when it is not given")

  parser.add_argument(
      '--lengths', action='store_true', help='also measure the lengths of the '
      'examples in the vocabulary in use')
  parser.add_argument(
      '--table', action='store_true', help="also print the paper's Table 1 "
      'with what is prepared')
  parser.add_argument(
      '--speed', action='store_true', help='also measure how many tokens per '
      'second there are to train on, prepared and in a cache of SeqIO, and how '
      'many a mini model takes')

  def run(args):
    from mtf_conv import prepare, vocabulary
    modules.import_all(args.module_import)
    tasks = prepare.task_names(args.task)
    if args.lengths or args.speed:
      vocabulary.model_path()  # Before anything that takes long.
    try:
      prepare.prepare_all(args.task, args.raw_dir, args.data_dir)
    finally:  # Of what there is, when some of all tasks cannot be had.
      if args.lengths:
        from mtf_conv import lengths
        lengths.show_all(tasks, args.data_dir)
      if args.table:
        from mtf_conv.report import table1
        print(table1.table(args.data_dir))
      if args.speed:
        from mtf_conv import input_speed
        input_speed.show_all(tasks, args.data_dir)

  return run


def _convert(parser):
  parser.add_argument(
      'checkpoint', help="a checkpoint of mesh-tensorflow's "
      'LocalConvAttnBlock: its folder, or a path such as DIR/model.ckpt-1000')
  parser.add_argument(
      'out_dir', nargs='?', help='a new folder, for a checkpoint and model.gin')
  parser.add_argument(
      '--to', choices=['lightconv', 'dynamicconv'], help='the layer to write')
  parser.add_argument(
      '--describe', action='store_true', help='only print the model gin with '
      'which the checkpoint loads as it is')
  parser.add_argument(
      '--num_heads', type=int, help='heads of the encoder-decoder attention, '
      'which shapes do not tell; from operative_config.gin beside the '
      'checkpoint, or d_model / 64, when it is not given')

  def run(args):
    given = (args.to is not None, args.out_dir is not None, args.describe)
    if given not in ((True, True, False), (False, False, True)):
      parser.error('give --to and out_dir, or --describe alone')
    if args.describe:
      from mtf_conv import released_checkpoint
      print(released_checkpoint.gin_bindings(args.checkpoint, args.num_heads),
            end='')
      return
    from mtf_conv import convert
    for note in convert.convert(
        args.checkpoint, args.out_dir, args.to, args.num_heads):
      print(note)
    print(f'Wrote {args.out_dir}; its model is --gin_file={args.out_dir}'
          '/model.gin')

  return run


def _params(parser):
  parser.add_argument(
      'model', nargs='*',
      help='lightconv.base, lightconv, or the path of a gin file; all '
      'models when none is given')
  parser.add_argument(
      '--sizes', nargs='+', default=['base'], metavar='SIZE',
      choices=gin_files.sizes(),
      help='of models that are named without one; base when not given')
  parser.add_argument(
      '--lengths', nargs='+', type=int, metavar='N',
      help='of inputs; 64 to 4096 when not given, with --topology 512')
  parser.add_argument('--csv', help='a file for the table')
  modules.add_flag(parser)
  parser.add_argument(
      '--figure', help="a folder for the paper's Figure 2, PNG and CSV")
  tpu = parser.add_argument_group(
      'TPUs', 'what a core of a slice holds when it pre-trains the model')
  tpu.add_argument(
      '--topology', nargs='+', metavar='NAME', help='v3-8, v3-32, ...; or all')
  tpu.add_argument(
      '--model_parallelism', type=int, metavar='N', help='cores that share a '
      'replica; as few as will do when not given')
  tpu.add_argument(
      '--batch', type=int, metavar='N', help='sequences in a step; 128')
  tpu.add_argument(
      '--tokens_per_microbatch', type=int, metavar='N', help='of a replica; '
      '2048; 0 for a batch that is not split')

  tpu.add_argument(
      '--scale_doc', metavar='PATH', help='a file for a page of what base and '
      'large cost on every topology, like docs/scale.md; takes minutes')

  def run(args):
    modules.import_all(args.module_import)
    names = args.model or list(dict.fromkeys(
        name for size in args.sizes for name in gin_files.model_names(size)))
    if args.scale_doc:
      from mtf_conv.measure import scale
      scale.write(args.scale_doc)
      return
    if args.lengths and min(args.lengths) < 1:
      raise errors.UserError(
          f'length {min(args.lengths)} must be at least 1')
    if args.topology:
      if args.figure:
        parser.error('--figure is not for --topology')
      from mtf_conv.measure import fit
      fit.show(names, args.sizes, args.topology, args.model_parallelism,
               _default(args.batch, fit.BATCH), args.lengths or [fit.INPUTS],
               _default(args.tokens_per_microbatch, fit.TOKENS), args.csv)
      return
    for name in ('model_parallelism', 'batch', 'tokens_per_microbatch'):
      if getattr(args, name) is not None:
        parser.error(f'--{name} is for --topology')
    from mtf_conv.measure import counting
    counting.show(
        names, args.sizes, args.lengths or [2**n for n in range(6, 13)],
        args.csv, args.figure)

  return run


def _default(value, default):
  return default if value is None else value


def _check(parser):
  from mtf_conv import check
  return check.add_flags(parser)


def _bench(parser):
  parser.add_argument(
      'what', choices=['op', 'block', 'step', 'decode', 'build', 'figure1'],
      help='the convolution, the block, a step of training, decoding, building '
      "the graph; or the paper's Figure 1")
  parser.add_argument(
      '--quick', action='store_true', help='less of it, within a minute')
  parser.add_argument('--out', help='a folder for the table and the picture')
  parser.add_argument(
      '--tokens', type=int, help='in a batch, not for decode')
  parser.add_argument(
      '--lengths', nargs='+', type=int, metavar='N',
      help='of sequences, for step, decode and figure1')
  parser.add_argument(
      '--lowering', action='append', choices=['depthwise', 'slices', 'band'],
      help='for op: timed beside the one that is chosen; may be repeated')
  parser.add_argument(
      '--size', choices=gin_files.sizes(),
      help='for build (base) and figure1 (4+4 layers of d_model 256)')
  parser.add_argument(
      '--vocabulary', type=int, help='for figure1; 1000 when not given')
  parser.add_argument(
      '--models', type=lambda text: text.split(','), metavar='NAME,...',
      help="for step (transformer, lightconv and the user's own), build and "
      'figure1 (all there are of the size)')
  modules.add_flag(parser)

  def run(args):
    known = {
        'op': {'quick', 'tokens', 'lowering'}, 'block': {'quick', 'tokens'},
        'step': {'quick', 'tokens', 'lengths', 'models'},
        'decode': {'quick', 'lengths'},
        'build': {'quick', 'size', 'models'},
        'figure1': {'tokens', 'lengths', 'size', 'vocabulary', 'models'}}[
            args.what]
    options = {name: value for name, value in vars(args).items()
               if value and name not in ('what', 'out', 'module_import')}
    for name in options:
      if name not in known:
        parser.error(f'{args.what} has no --{name}')
    modules.import_all(args.module_import)
    if 'models' in options:
      options['kinds'] = options.pop('models')
    from mtf_conv.measure import bench
    if args.what == 'figure1':
      bench.figure1(args.out, **options)
    else:
      bench.run(args.what, out_dir=args.out, **options)

  return run


def _replicate(parser):
  from mtf_conv.replicate import runner
  return runner.add_flags(parser)


def _report(parser):
  from mtf_conv.replicate import runner
  return runner.add_report_flags(parser)


# A verb: what it does, in a line, and the function that adds its flags.
_VERBS = {
    'list': ('the models, tasks and gin files there are', _list),
    'doctor': ('what is installed, found and missing, and how to mend it',
               _doctor),
    'prepare': ("a task's data, from raw files or from the network", _prepare),
    'convert': ("the authors' checkpoints, for the layers of this package",
                _convert),
    'replicate': ("the paper's grid: plan it, run it, see how it stands",
                  _replicate),
    'report': ("Table 2 of a grid beside the paper's, as pages and tables",
               _report),
    'check': ('whether a mixer may be trained: causality, packing, decoding, '
              '...', _check),
    'params': ('parameters, memory and FLOPs of models', _params),
    'bench': ('speed, as ratios that are measured in turn', _bench),
}


def _usage():
  width = max(map(len, _VERBS))
  return 'usage: mtf_conv VERB ...; mtf_conv VERB --help\n\n' + ''.join(
      f'  {verb.ljust(width)}  {what}\n' for verb, (what, _) in _VERBS.items())


def main(argv=None):
  """Runs a verb.

  Args:
    argv: the command line, the program's name first; sys.argv when None.

  Returns:
    The exit code.
  """
  args = (sys.argv if argv is None else argv)[1:]
  if not args or args[0] in ('-h', '--help', 'help'):
    print(_usage(), end='')
    return 0 if args else 2
  verb = args[0]
  if verb not in _VERBS:
    print(f'mtf_conv: unknown verb {verb!r}: choose from {", ".join(_VERBS)}'
          + errors.nearest(verb, _VERBS), file=sys.stderr)
    return 2
  what, add_flags = _VERBS[verb]
  parser = Parser(prog=f'mtf_conv {verb}', description=f'Verb {verb}: {what}.')
  try:
    run = add_flags(parser)
    parsed = parser.parse_args(args[1:])
    quiet()
    return run(parsed) or 0
  except errors.UserError as error:
    print(f'mtf_conv {verb}: {error}', file=sys.stderr)
    return 1
  except KeyboardInterrupt:
    return 130
  except BrokenPipeError:  # As in `mtf_conv list | head`.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


if __name__ == '__main__':
  sys.exit(main())
