"""mtf_conv bench: speed, as ratios that are measured in turn."""

from mtf_conv.base import gin_files, modules


def add_flags(parser):
  """Adds the flags; returns the function that does the work."""
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
    from mtf_conv.measure.speed import bench
    if args.what == 'figure1':
      bench.figure1(args.out, **options)
    else:
      bench.run(args.what, out_dir=args.out, **options)

  return run
