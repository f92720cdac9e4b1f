"""mtf_conv predict: a trained model's answers to a file, line by line."""

from mtf_conv.commands import answer_flags


def add_flags(parser):
  """Adds the flags; returns the function that does the work."""
  answer_flags.add(parser)
  parser.add_argument(
      '--decode_length', type=int, metavar='N', help='how many tokens an '
      'answer has at most; as many as the targets in training when not given')
  parser.add_argument(
      '--scores', action='store_true', help="also write each answer's "
      'log-likelihood, of a beam search its score (tsv, jsonl)')
  parser.add_argument(
      '--num_return', type=int, default=1, metavar='N', help='answers to each '
      'line, drawn or beams, with their scores (tsv, jsonl)')
  drawn = parser.add_argument_group(
      'drawing', 'without these the likeliest token is taken each time')
  drawn.add_argument(
      '--temperature', type=float, default=0.0, metavar='X', help='draw '
      'tokens; 1 as the model has learnt it, less for the likelier ones')
  drawn.add_argument('--top_k', type=int, default=0, metavar='N',
                     help='from the N likeliest tokens')
  drawn.add_argument(
      '--top_p', type=float, default=1.0, metavar='P', help='from the '
      'likeliest tokens that have this probability')
  drawn.add_argument(
      '--seed', type=int, default=0, metavar='N', help='the same seed gives '
      'the same answer to a line, in any batch (default: %(default)s)')
  answer_flags.add_beams(parser.add_argument_group('beam search'))

  def run(args):
    _check(args)

    def make(trained, engine, form):
      from mtf_conv.answer import verbs
      return verbs.Predict(
          trained, engine, form, [args.inputs_field], args.truncate,
          args.decode_length, args.scores, args.temperature, args.top_k,
          args.top_p, args.seed, args.beam_size, args.alpha, args.num_return)

    answer_flags.run(args, [args.inputs_field], make)

  return run


def _check(args):
  """Refuses values out of their range."""
  from mtf_conv.base import errors
  for name, least in (('decode_length', 1), ('num_return', 1), ('beam_size', 1),
                      ('temperature', 0), ('top_k', 0), ('seed', 0)):
    value = getattr(args, name)
    if value is not None and not value >= least:
      raise errors.UserError(f'--{name} (={value}) must be at least {least}')
  if not 0 < args.top_p <= 1:
    raise errors.UserError(
        f'--top_p (={args.top_p}) must be more than 0 and at most 1')
