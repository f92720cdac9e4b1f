"""mtf_conv convert: the authors' checkpoints, for this package's layers."""


def add_flags(parser):
  """Adds the flags; returns the function that does the work."""
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
      from mtf_conv.release import released_checkpoint
      print(released_checkpoint.gin_bindings(args.checkpoint, args.num_heads),
            end='')
      return
    from mtf_conv.release import convert
    for note in convert.convert(
        args.checkpoint, args.out_dir, args.to, args.num_heads):
      print(note)
    print(f'Wrote {args.out_dir}; its model is --gin_file={args.out_dir}'
          '/model.gin')

  return run
