"""Where the gin files of this package are."""

import ast
import pathlib
import re


def gin_folder() -> str:
  """Returns the folder that holds this package's gin files.

  Returns:
    The absolute path: beside this module where a wheel was installed, one level
    up in an editable install.

  Raises:
    FileNotFoundError: it is in neither place.
  """
  package = pathlib.Path(__file__).resolve().parent
  for folder in (package / 'gin', package.parent / 'gin'):
    # In site-packages, gin alone is the folder of gin-config.
    if (folder / 'models').is_dir():
      return str(folder)
  raise FileNotFoundError(
      f'No folder of gin files in {package} or {package.parent}: install '
      'mtf_conv again.')


def list_gin_files() -> list[str]:
  """Returns the paths of all gin files, relative to gin_folder(), sorted."""
  root = pathlib.Path(gin_folder())
  return sorted(
      path.relative_to(root).as_posix() for path in root.rglob('*.gin'))


def sequence_lengths(task):
  """Returns what sequence_lengths/<task>.gin binds; {} if there is no file."""
  path = pathlib.Path(gin_folder()) / 'sequence_lengths' / f'{task}.gin'
  if not path.exists():
    return {}
  bound = re.search(
      r'^utils.run.sequence_length = (.*)$', path.read_text(), re.M)
  return ast.literal_eval(bound.group(1))
