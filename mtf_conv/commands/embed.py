"""mtf_conv embed: the mean state of a trained encoder for each line."""

import os

from mtf_conv.commands import answer_flags


def add_flags(parser):
  """Adds the flags; returns the function that does the work."""
  answer_flags.add(parser, has_formats=False)

  def run(args):
    from mtf_conv.base import errors
    form = os.path.splitext(args.output)[1].removeprefix('.')
    if form not in ('npy', 'parquet'):
      raise errors.UserError(
          f'--output (={args.output}) is an array of NumPy or a column of '
          'Parquet: expected a name that ends in .npy or .parquet')

    def make(trained, engine, unused_form):
      from mtf_conv.answer import verbs
      return verbs.Embed(
          trained, engine, form, [args.inputs_field], args.truncate)

    answer_flags.run(args, [args.inputs_field], make)

  return run
