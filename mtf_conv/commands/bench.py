"""mtf_conv bench: speed, as ratios that are measured in turn."""

from mtf_conv.base import gin_files, modules


def add_flags(parser):
  """Adds the flags; returns the function that does the work."""
  parser.add_argument(
      'what', choices=['op', 'block', 'step', 'stock', 'profile', 'decode',
                       'generate', 'build', 'start', 'figure1', 'tpu'],
      help="the convolution, the block, a step of training, what T5's own "
      'embedding, loss, norms and optimizer would take, where the time of a '
      'step goes, decoding, decoding in PyTorch, building the graph, the time '
      "until a command answers or trains; the paper's Figure 1; or a step of "
      "training as the TPU's compiler estimates it, without a TPU")
  parser.add_argument(
      '--quick', action='store_true', help='less of it, within a minute')
  parser.add_argument('--out', help='a folder for the table and the picture')
  parser.add_argument(
      '--tokens', type=int, help='in a batch, not for decode')
  parser.add_argument(
      '--lengths', nargs='+', type=int, metavar='N',
      help='of sequences, for step, decode, figure1 and tpu')
  parser.add_argument(
      '--lowering', action='append',
      choices=['depthwise', 'slices', 'band', 'matrix'],
      help='for op: timed beside the one that is chosen; may be repeated')
  parser.add_argument(
      '--size', choices=gin_files.sizes(),
      help='for build and tpu (base) and figure1 (4+4 layers of d_model '
      '256)')
  parser.add_argument(
      '--vocabulary', type=int,
      help="ids, for step, profile and figure1; T5's when not given")
  parser.add_argument(
      '--models', type=lambda text: text.split(','), metavar='NAME,...',
      help="for step (transformer, lightconv and the user's own), build, "
      'figure1 and tpu (all there are of the size), profile (lightconv.mini '
      'and transformer.mini)')
  tpu = parser.add_argument_group(
      'tpu', "libtpu compiles the step; run_scripts/tpu_compiler.sh makes its "
      'environment, on Linux on x86-64')
  tpu.add_argument(
      '--topology', metavar='NAME', help='v3:4x4 (32 cores, as v3-32) when not '
      'given; v2:2x2, v3:2x2, v4:2x2x1, ...')
  tpu.add_argument(
      '--mesh', metavar='DIMS', help="such as batch:16,model:2; the batch over "
      'all cores when not given')
  tpu.add_argument(
      '--layout', metavar='RULES', help="of Mesh TensorFlow; T5's own when not "
      'given')
  tpu.add_argument(
      '--batch', type=int, metavar='N', help='sequences in a step; 128')
  tpu.add_argument(
      '--layers', type=int, metavar='N', help='of the encoder and of the '
      'decoder, to compile less of the model')
  tpu.add_argument(
      '--cache', metavar='DIR', help='where compiled programs are kept; '
      '~/.cache/mtf_conv/tpu')
  tpu.add_argument(
      '--figure1', action='store_true', help="the paper's Figure 1 for this "
      'topology: --tokens in a step (65536) at --lengths (64 to 4096)')
  modules.add_flag(parser)

  def run(args):
    known = {
        'op': {'quick', 'tokens', 'lowering'}, 'block': {'quick', 'tokens'},
        'step': {'quick', 'tokens', 'lengths', 'models', 'vocabulary'},
        'stock': {'quick'}, 'profile': {'models', 'vocabulary'},
        'decode': {'quick', 'lengths'}, 'generate': {'quick', 'lengths'},
        'build': {'quick', 'size', 'models'}, 'start': {'quick'},
        'figure1': {'tokens', 'lengths', 'size', 'vocabulary', 'models'},
        'tpu': {'lengths', 'size', 'models', 'topology', 'mesh', 'layout',
                'batch', 'layers', 'cache'}}[args.what]
    what = args.what
    if args.what == 'tpu' and args.figure1:
      what = 'tpu --figure1'
      known = known - {'batch', 'layers'} | {'figure1', 'tokens'}
    options = {name: value for name, value in vars(args).items()
               if (value or value == 0 and value is not False)
               and name not in ('what', 'out', 'module_import')}
    for name in options:
      if name not in known:
        parser.error(f'{what} has no --{name}')
    modules.import_all(args.module_import)
    if 'models' in options:
      options['kinds'] = options.pop('models')
    if args.what == 'tpu':
      from mtf_conv.measure.tpu import figure1, step
      if options.pop('figure1', False):
        options['benchmark'] = figure1.bench
      step.run(args.out, module_import=args.module_import, **options)
      return
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
