"""mtf_conv params: parameters, memory and FLOPs of models."""

from mtf_conv.base import errors, gin_files, modules


def add_flags(parser):
  """Adds the flags; returns the function that does the work."""
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
      from mtf_conv.pages import scale
      scale.write(args.scale_doc)
      return
    if args.lengths and min(args.lengths) < 1:
      raise errors.UserError(
          f'length {min(args.lengths)} must be at least 1')
    if args.topology:
      if args.figure:
        parser.error('--figure is not for --topology')
      from mtf_conv.measure.tpu import fit
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
