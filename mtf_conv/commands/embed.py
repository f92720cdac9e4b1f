"""mtf_conv embed: the mean state of a trained encoder for each line."""

from mtf_conv.commands import answer_flags


def add_flags(parser):
  """Adds the flags; returns the function that does the work."""
  answer_flags.add(parser, has_formats=False)

  def run(args):
    from mtf_conv.base import errors
    if not args.output.endswith('.npy'):
      raise errors.UserError(
          f'--output (={args.output}) is an array of NumPy: expected a name '
          'that ends in .npy')

    def make(trained, engine, unused_form):
      from mtf_conv.answer import verbs
      return verbs.Embed(
          trained, engine, [args.inputs_field], args.truncate)

    answer_flags.run(args, [args.inputs_field], make)

  return run
