"""The verbs of mtf_conv, a module for each: its flags and its work."""

import importlib
import sys

from mtf_conv.base import command_line, errors


def run(verb, args, description=None):
  """Runs a verb.

  Args:
    verb: the name of a module here.
    args: what follows it on the command line.
    description: of the verb, for --help.

  Returns:
    The exit code.
  """
  parser = command_line.Parser(prog=f'mtf_conv {verb}', description=description)
  try:
    module = importlib.import_module(f'mtf_conv.commands.{verb}')
    work = module.add_flags(parser)
    parsed = parser.parse_args(args)
    command_line.quiet()
    return work(parsed) or 0
  except errors.UserError as error:
    print(f'mtf_conv {verb}: {error}', file=sys.stderr)
    return 1
