"""What predict, score and embed share: the model, the input, the output."""

import os

from mtf_conv.base import errors, lines, modules, terminal

_FORMATS = ('text', 'tsv', 'jsonl')


def add_checkpoint(parser):
  """Adds the flag of whose weights are taken."""
  parser.add_argument(
      '--checkpoint', type=int, metavar='STEP', help='of the weights; the last '
      'one when it is not given')


def add_beams(parser):
  """Adds the flags of a beam search."""
  parser.add_argument('--beam_size', type=int, default=1, metavar='N',
                      help='more than 1 for a search')
  parser.add_argument(
      '--alpha', type=float, default=0.6, metavar='X', help='of the length '
      'penalty (default: %(default)s)')


def add(parser, has_formats=True):
  """Adds the flags to a parser."""
  parser.add_argument(
      '--model_dir', required=True, metavar='DIR', help='the folder that '
      't5_mesh_conv trained in: it has the model, its vocabulary and lengths')
  add_checkpoint(parser)
  parser.add_argument(
      '--input', required=True, metavar='FILE', help='one example a line: '
      'text, .tsv or .jsonl (and .gz); - for standard input. The model reads a '
      'line as it is: no preprocessing of a task is applied')
  parser.add_argument(
      '--output', required=True, metavar='FILE', help='a line for each of the '
      'input, in its order' + ('; - for standard output'
                               if has_formats else ' (.npy, .parquet)'))
  parser.add_argument(
      '--input_format', choices=_FORMATS, help='when the name of the file '
      'does not say it')
  if has_formats:
    parser.add_argument(
        '--output_format', choices=_FORMATS, help='when the name of the file '
        'does not say it; tsv and jsonl repeat the record before the answer')
  parser.add_argument(
      '--inputs_field', default='inputs', metavar='NAME', help='of JSONL; of '
      'TSV it is the first column (default: %(default)s)')
  parser.add_argument(
      '--truncate', action='store_true', help='cut what is longer than in '
      'training; without it all is read')
  parser.add_argument(
      '--batch_size', type=int, default=64, metavar='N', help='rows that the '
      'model reads at once; answers do not depend on it (default: %(default)s)')
  parser.add_argument(
      '--overwrite', action='store_true', help='replace the output, and what a '
      'command that was killed has left of it')
  modules.add_flag(parser)


# What a command may be given otherwise when it goes on.
_FREE = {'input', 'output', 'overwrite', 'batch_size', 'module_import',
         'input_format', 'checkpoint', 'model_dir', 'targets'}


def run(args, fields, make, pairs=None):
  """Answers a file.

  Args:
    args: as parsed.
    fields: the names of what is read of a record.
    make: a function of a Trained, an Engine and the output's format that
      returns one of answer.verbs.
    pairs: a file of text with the targets, one for each line of the input.

  Raises:
    errors.UserError: something of it cannot be used.
  """
  from mtf_conv.answer import engine as engines
  from mtf_conv.answer import loop, output, records, trained
  if args.batch_size < 1:
    raise errors.UserError(
        f'--batch_size (={args.batch_size}) must be at least 1')
  modules.import_all(args.module_import)
  input_format = records.form(args.input, args.input_format)
  if pairs and input_format != 'text':
    raise errors.UserError(
        f'--targets={pairs} is for an --input of text: {input_format} has the '
        'targets beside the inputs')

  def read():
    if pairs:
      return records.read_pairs(args.input, pairs, fields)
    return records.read(args.input, input_format, fields)

  found = trained.load(args.model_dir, args.checkpoint)
  engine = engines.Engine(found)
  verb = make(found, engine, records.form(
      args.output, getattr(args, 'output_format', None)))
  settings = {'checkpoint': os.path.abspath(found.checkpoint), **{
      name: value for name, value in sorted(vars(args).items())
      if name not in _FREE}}
  to = output.Output(args.output, settings, args.overwrite, verb.header,
                     verb.converted)
  # All lines are looked at before the first is answered.
  total = None if args.input == lines.STANDARD else sum(1 for _ in read())
  if to.done:
    terminal.say(f'{args.output}: goes on after {to.done:,} answers.')
  try:
    loop.run(verb, engine, read(), to, args.batch_size, total)
  except KeyboardInterrupt:
    if args.output != lines.STANDARD:
      terminal.say(f'Stopped after {to.done:,} answers. The same command goes '
                   'on from there.')
    raise
  for note in verb.notes():
    terminal.say(note)
