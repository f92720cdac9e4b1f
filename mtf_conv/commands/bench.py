"""mtf_conv bench: speed, as ratios that are measured in turn."""

from mtf_conv.base import gin_files, modules


def add_flags(parser):
  """Adds the flags; returns the function that does the work."""
  parser.add_argument(
      'what', choices=['op', 'block', 'step', 'stock', 'profile', 'decode',
                       'generate', 'build', 'figure1'],
      help="the convolution, the block, a step of training, what T5's own "
      'embedding, loss, norms and optimizer would take, where the time of a '
      'step goes, decoding, decoding in PyTorch, building the graph; or the '
      "paper's Figure 1")
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
      '--vocabulary', type=int,
      help="ids, for step, profile and figure1; T5's when not given")
  parser.add_argument(
      '--models', type=lambda text: text.split(','), metavar='NAME,...',
      help="for step (transformer, lightconv and the user's own), build and "
      'figure1 (all there are of the size), profile (lightconv.mini and '
      'transformer.mini)')
  modules.add_flag(parser)

  def run(args):
    known = {
        'op': {'quick', 'tokens', 'lowering'}, 'block': {'quick', 'tokens'},
        'step': {'quick', 'tokens', 'lengths', 'models', 'vocabulary'},
        'stock': {'quick'}, 'profile': {'models', 'vocabulary'},
        'decode': {'quick', 'lengths'}, 'generate': {'quick', 'lengths'},
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
    elif args.what == 'profile':
      bench.profile_step(args.out, options.get('kinds'),
                         options.get('vocabulary'))
    elif args.what == 'generate':
      from mtf_conv.exchange import generate_speed
      bench.run('generate', out_dir=args.out,
                benchmark=generate_speed.bench, **options)
    else:
      bench.run(args.what, out_dir=args.out, **options)

  return run
