"""mtf_conv train_vocabulary: a SentencePiece model of one's own for T5."""

from mtf_conv.base import errors, modules


def add_flags(parser):
  """Adds the flags; returns the function that does the work."""
  read = parser.add_mutually_exclusive_group(required=True)
  read.add_argument(
      '--text', metavar='GLOB', help='text files, as in MTF_CONV_TEXT: globs '
      'of .txt, .jsonl or .tokens, parted by commas')
  read.add_argument(
      '--task', metavar='NAME', help='the training text of a task, such as '
      'imdb_span_corruption, once its data is prepared')
  parser.add_argument(
      '--data_dir', help="TFDS's data folder, for --task; TFDS's default when "
      'it is not given')
  parser.add_argument(
      '--size', required=True, type=int, metavar='N', help='the number of '
      "pieces; T5's own has 32000. The 100 sentinels come on top")
  parser.add_argument(
      '--lowercase', action='store_true', help='take upper case for lower case')
  parser.add_argument(
      '--character_coverage', type=float, default=0.9995, metavar='SHARE',
      help='of the text by characters that it can write, besides ASCII; 0.9995')
  parser.add_argument(
      '--out', default='vocabulary.model', metavar='PATH', help='the file of '
      'the model; vocabulary.model when not given')
  modules.add_flag(parser)

  def run(args):
    if args.size < 1:
      raise errors.UserError(f'--size (={args.size}) must be at least 1')
    if not 0 < args.character_coverage <= 1:
      raise errors.UserError(
          f'--character_coverage (={args.character_coverage}) must be above 0 '
          'and at most 1')
    modules.import_all(args.module_import)
    import seqio

    from mtf_conv.prepare import train_vocabulary
    if args.data_dir:
      seqio.set_tfds_data_dir_override(args.data_dir)
    documents = (train_vocabulary.documents_of_files(args.text) if args.text
                 else train_vocabulary.documents_of_task(args.task))
    train_vocabulary.train(
        documents, args.text or args.task, args.size, args.out, args.lowercase,
        args.character_coverage)

  return run
