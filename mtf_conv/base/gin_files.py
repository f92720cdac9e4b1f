"""The gin files there are: this package's, and those of the user's folders.

The environment variable MTF_CONV_GIN is a list of folders, parted as in PATH.
Each is laid out like this package's: models/, runs/, hardware/ and so on. A
file models/<name>.<size>.gin in any of them is a model.
"""

import ast
import os
import pathlib
import re

from mtf_conv.base import errors

VARIABLE = 'MTF_CONV_GIN'
_MODEL = re.compile(r'models/([^/.]+)\.([^/.]+)\.gin')
# Sizes from small to large; others follow in the order of the alphabet.
_SIZES = ('tiny', 'mini', 'small', 'base', 'large')


def gin_folder() -> str:
  """Returns the folder that holds this package's gin files.

  Returns:
    The absolute path: in the package where a wheel was installed, beside it in
    an editable install.

  Raises:
    FileNotFoundError: it is in neither place.
  """
  package = pathlib.Path(__file__).resolve().parents[1]
  for folder in (package / 'gin', package.parent / 'gin'):
    # In site-packages, gin alone is the folder of gin-config.
    if (folder / 'models').is_dir():
      return str(folder)
  raise FileNotFoundError(
      f'No folder of gin files in {package} or {package.parent}: install '
      'mtf_conv again.')


def folders() -> list[str]:
  """Returns the folders of gin files: this package's, then MTF_CONV_GIN's.

  Raises:
    errors.UserError: MTF_CONV_GIN names a folder that is not there.
  """
  found = [gin_folder()]
  for folder in filter(None, os.environ.get(VARIABLE, '').split(os.pathsep)):
    folder = os.path.abspath(os.path.expanduser(folder))
    if not os.path.isdir(folder):
      raise errors.UserError(f'{VARIABLE}: {folder} is no folder')
    if folder not in found:
      found.append(folder)
  return found


def paths() -> dict[str, str]:
  """Finds all gin files.

  Returns:
    A dict from paths relative to their folders, as --gin_file takes them, to
    absolute ones: this package's first, in each folder sorted.

  Raises:
    errors.UserError: two folders have the same file.
  """
  found = {}
  for folder in map(pathlib.Path, folders()):
    for path in sorted(folder.rglob('*.gin')):
      name = path.relative_to(folder).as_posix()
      if name in found:
        raise errors.UserError(
            f'{name} is in two folders: {found[name]} and {path}; give the '
            'second another name')
      found[name] = str(path)
  return found


def list_gin_files() -> list[str]:
  """Returns the gin files of `paths` by name, sorted."""
  return sorted(paths())


def read(name) -> str:
  """Returns the text of a gin file of `paths`."""
  with open(paths()[name]) as f:
    return f.read()


def models() -> list[tuple[str, str, str]]:
  """Lists the models.

  Returns:
    A list of (name, size, gin file), in the order of `model_names`, the sizes
    of a model from small to large.
  """
  found = [(*match.groups(), match.group()) for match in
           map(_MODEL.fullmatch, paths()) if match]
  order = list(dict.fromkeys(name for name, *_ in found))
  order.sort(key=lambda name: name != 'transformer')
  return sorted(found, key=lambda row: (order.index(row[0]), _rank(row[1])))


def _rank(size):
  return (_SIZES.index(size) if size in _SIZES else len(_SIZES), size)


def sizes() -> list[str]:
  """Returns the sizes that models have, from small to large."""
  return sorted({size for _, size, _ in models()}, key=_rank)


def model_names(size=None) -> list[str]:
  """Returns the names of models.

  Args:
    size: that they have; any when None.

  Returns:
    The Transformer first, which all others are compared with; then this
    package's, then those of the user's folders.
  """
  return list(dict.fromkeys(
      name for name, found, _ in models() if size in (None, found)))


def added_model_names(size=None) -> list[str]:
  """Returns the names of models of MTF_CONV_GIN's folders; see model_names."""
  ours = os.path.join(gin_folder(), 'models')
  found = paths()
  return list(dict.fromkeys(
      name for name, its_size, path in models() if size in (None, its_size)
      and os.path.dirname(found[path]) != ours))


def sequence_lengths(task) -> dict[str, int]:
  """Returns the lengths that sequence_lengths/<task>.gin binds, {} without."""
  name = f'sequence_lengths/{task}.gin'
  if name not in paths():
    return {}
  bound = re.search(r'^utils.run.sequence_length = (.*)$', read(name), re.M)
  return ast.literal_eval(bound.group(1))
