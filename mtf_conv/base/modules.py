"""Modules of the user that have to be imported before a verb's work."""

import importlib

from mtf_conv.base import errors


def add_flag(parser):
  """Adds --module_import, as t5_mesh_conv has it, to a parser."""
  parser.add_argument(
      '--module_import', action='append', default=[], metavar='MODULE',
      help='to import first, for the layers and tasks in it; repeatable')


def import_all(names):
  """Imports modules.

  Args:
    names: a list of dotted names.

  Raises:
    errors.UserError: there is no such module.
  """
  for name in names:
    try:
      importlib.import_module(name)
    except ModuleNotFoundError as error:
      if error.name is None or not f'{name}.'.startswith(f'{error.name}.'):
        raise  # It is there, and imports another that is not.
      raise errors.UserError(
          f'--module_import: no module {name!r}: put its folder into '
          'PYTHONPATH') from error
