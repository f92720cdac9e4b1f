"""mtf_conv score: how likely given targets are to a trained model."""

from mtf_conv.base import errors
from mtf_conv.commands import answer_flags


def add_flags(parser):
  """Adds the flags; returns the function that does the work."""
  answer_flags.add(parser)
  parser.add_argument(
      '--targets', metavar='FILE', help='of an input of text: a target for '
      'each line; .tsv has it in the second column, .jsonl in a field')
  parser.add_argument(
      '--targets_field', default='targets', metavar='NAME',
      help='of JSONL (default: %(default)s)')
  parser.add_argument(
      '--classes', metavar='A,B,...', help='score each of these targets for '
      'each input instead, and write the likeliest and the probabilities')

  def run(args):
    classes = None
    if args.classes is not None:
      classes = [name.strip() for name in args.classes.split(',')]
      if len(classes) < 2 or not all(classes):
        raise errors.UserError(
            f'--classes (={args.classes}): expected two or more names parted '
            'by commas')
      if args.targets:
        raise errors.UserError(
            'give --classes or --targets: they are what is scored')
    fields = [args.inputs_field, args.targets_field]

    def make(trained, engine, form):
      from mtf_conv.answer import verbs
      return verbs.Score(
          trained, engine, form, fields, args.truncate, classes)

    from mtf_conv.answer import records
    form = records.form(args.input, args.input_format)
    if not classes and not args.targets and form == 'text':
      raise errors.UserError(
          f'{args.input} is text and has no targets: give --targets=FILE or '
          '--classes=A,B, or a .tsv or .jsonl file that has them')
    answer_flags.run(args, fields[:1] if classes else fields, make,
                     args.targets)

  return run
