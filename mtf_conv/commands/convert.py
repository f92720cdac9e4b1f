"""mtf_conv convert: checkpoints for other layers, for PyTorch, and back."""

_RELEASE = ('lightconv', 'dynamicconv')


def add_flags(parser):
  """Adds the flags; returns the function that does the work."""
  parser.add_argument(
      'checkpoint', help="a checkpoint's folder, or a path such as "
      'DIR/model.ckpt-1000; with --to=mtf, a folder of Hugging Face\'s')
  parser.add_argument('out_dir', nargs='?', help='a new folder')
  parser.add_argument(
      '--to', choices=[*_RELEASE, 'hf', 'mtf'],
      help="hf: from a model of this package, or T5's own, to a folder of "
      "Hugging Face's; mtf: back; lightconv, dynamicconv: from the authors' "
      'release to the layers of this package')
  parser.add_argument(
      '--own_code', action='store_true', help="with --to=hf: T5's own models, "
      "too, get this package's modelling file, which knows packed examples")
  parser.add_argument(
      '--describe', action='store_true', help='only print the model gin with '
      'which a checkpoint of the release loads as it is')
  parser.add_argument(
      '--num_heads', type=int, help='of a checkpoint of the release: heads of '
      'the encoder-decoder attention, which shapes do not tell; from '
      'operative_config.gin beside the checkpoint, or d_model / 64, when it is '
      'not given')

  def run(args):
    given = (args.to is not None, args.out_dir is not None, args.describe)
    if given not in ((True, True, False), (False, False, True)):
      parser.error('give --to and out_dir, or --describe alone')
    if args.own_code and args.to != 'hf':
      parser.error('--own_code needs --to=hf')
    if args.num_heads is not None and args.to in ('hf', 'mtf'):
      parser.error(f'--num_heads has no meaning with --to={args.to}')
    if args.describe:
      from mtf_conv.release import released_checkpoint
      print(released_checkpoint.gin_bindings(args.checkpoint, args.num_heads),
            end='')
      return
    notes, use = _convert(args)
    for note in notes:
      print(note)
    print(f'Wrote {args.out_dir}; {use}')

  return run


def _convert(args):
  """Does the work; returns what could not be kept, and how to go on."""
  if args.to in _RELEASE:
    from mtf_conv.release import convert
    return convert.convert(
        args.checkpoint, args.out_dir, args.to, args.num_heads), (
            f'its model is --gin_file={args.out_dir}/model.gin')
  from mtf_conv.exchange import hugging_face
  if args.to == 'hf':
    return hugging_face.write(
        args.checkpoint, args.out_dir, args.own_code), (
            'its README.md says how it is loaded')
  return hugging_face.read(args.checkpoint, args.out_dir), (
      f'its model is --gin_file={args.out_dir}/operative_config.gin')
