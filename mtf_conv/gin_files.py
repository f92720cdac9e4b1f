"""Where the gin files of this package are."""

import os


def gin_folder():
  """Returns the folder of gin files: in a wheel inside the package, in an
  editable install one level up."""
  package = os.path.dirname(os.path.abspath(__file__))
  for folder in (package, os.path.dirname(package)):
    candidate = os.path.join(folder, 'gin')
    if os.path.isdir(os.path.join(candidate, 'models')):
      return candidate
  raise FileNotFoundError('the gin files of mtf_conv are not installed')


def list_gin_files():
  """Returns the paths of all gin files, relative to gin_folder()."""
  root = gin_folder()
  return sorted(
      os.path.relpath(os.path.join(folder, name), root)
      for folder, _, names in os.walk(root) for name in names
      if name.endswith('.gin'))
