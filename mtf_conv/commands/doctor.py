"""mtf_conv doctor: what is installed, found and missing, and how to mend it.

Looks at this machine alone, never at the network.
"""

import os
import platform
import sys
from importlib import metadata

from packaging import requirements, specifiers

from mtf_conv.base import errors, files

OK, ABSENT, DOUBTFUL, BROKEN = 'ok', 'absent', 'DOUBTFUL', 'BROKEN'

# Distributions that put different versions of the same files in one place.
_DOUBLES = (('tensorflow-datasets', 'tfds-nightly'),
            ('seqio', 'seqio-nightly'))
_NEEDED_GIB = 4  # By the quick start.


def add_flags(parser):
  """Adds the flags; returns the function that does the work."""
  parser.add_argument(
      '--data_dir', help="TFDS's data folder to look into, beside the default")
  return lambda args: examine(args.data_dir)


def examine(data_dir=None):
  """Prints one line for each finding, and below it the line that mends it.

  Args:
    data_dir: TFDS's data folder to look into; its default when None.

  Returns:
    The exit code: 1 if anything that is needed is broken.
  """
  broken = 0
  for check in (python, distributions, doubles, imports, machine, gin,
                vocabulary, lambda: data(data_dir)):
    for state, finding, remedy in check():
      print(f'{state:9}{finding}', flush=True)
      if remedy:
        print(f'{"":9}-> {remedy}', flush=True)
      broken += state == BROKEN
      if state == BROKEN and check is imports:
        print('The rest cannot be looked at before this is mended.')
        return 1
  print(f'{broken} broken' if broken else 'Nothing that is needed is broken.')
  return 1 if broken else 0


def python():
  """Checks the version of Python; each check yields (state, text, remedy)."""
  supported = metadata.metadata('mtf_conv')['Requires-Python']
  version = platform.python_version()
  fits = specifiers.SpecifierSet(supported).contains(version)
  yield (OK if fits else BROKEN, f'Python {version} (supported: {supported})',
         None if fits else 'run_scripts/quickstart.sh makes an environment of '
         'a Python that fits')


def distributions():
  """Checks the versions of what setup.py asks for."""
  for text in metadata.requires('mtf_conv'):
    required = requirements.Requirement(text)
    if required.marker and not required.marker.evaluate({'extra': ''}):
      continue
    supported = str(required.specifier) or 'any'
    version = _version(required.name)
    if version is None:
      # tfds-nightly, for one, stands in for tensorflow-datasets.
      others = [other for pair in _DOUBLES for other in pair
                if required.name in pair and _version(other)]
      if others:
        yield (DOUBTFUL, f'{others[0]} {_version(others[0])} in place of '
               f'{required.name} (supported: {supported})', None)
        continue
      yield (BROKEN, f'{required.name} is not installed',
             f"pip install '{required.name}{required.specifier}'")
    elif not required.specifier.contains(version, prereleases=True):
      yield (BROKEN, f'{required.name} {version} (supported: {supported})',
             f"pip install '{required.name}{required.specifier}'")
    else:
      yield (OK, f'{required.name} {version} (supported: {supported})', None)
  torch = _version('torch')
  yield (OK, f'torch {torch or "is not installed"}, which is not needed', None)


def doubles():
  """Finds distributions that overwrite each other's files."""
  for pair in _DOUBLES:
    if all(_version(name) for name in pair):
      yield (DOUBTFUL, f'{pair[0]} and {pair[1]} are both installed and hold '
             'the same files', f'pip uninstall -y {" ".join(pair)} && pip '
             f'install {pair[0]}=={_version(pair[0])}')


def imports():
  """Imports all that T5's main needs."""
  try:
    from mtf_conv import t5_main
    t5_main.preload()
  except (Exception, SystemExit) as error:  # Whatever it is, it is told.
    yield (BROKEN, f't5_mesh_conv cannot be imported: {error}',
           f'pip install --no-deps -r {_lock()}')
  else:
    yield OK, 't5_mesh_conv, with the layers and tasks, can be imported', None


def machine():
  """Says what there is to compute with."""
  import tensorflow as tf
  devices = [device.device_type for device in tf.config.list_physical_devices()]
  counts = ', '.join(f'{devices.count(kind)} {kind}'
                     for kind in sorted(set(devices)))
  yield OK, f'devices: {counts}; {os.cpu_count()} cores', None
  gib = (os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')) / 2**30
  enough = gib > _NEEDED_GIB - 0.5
  yield (OK if enough else DOUBTFUL, f'memory: {gib:.1f} GiB',
         None if enough else f'the quick start needs {_NEEDED_GIB} GiB: run it '
         'with --jobs=1')


def gin():
  """Looks for the gin files."""
  from mtf_conv.base import gin_files
  try:
    yield (OK, f'{len(gin_files.list_gin_files())} gin files in '
           + ', '.join(gin_files.folders()), None)
  except errors.UserError as error:
    yield BROKEN, str(error), None
  except FileNotFoundError as error:
    yield BROKEN, str(error), 'pip install mtf_conv again'


def vocabulary():
  """Looks for the vocabulary of all tasks but those of the demo."""
  from mtf_conv import vocabulary as vocabularies
  try:
    path = vocabularies.model_path(download=False)
  except errors.UserError as error:
    if os.environ.get('MTF_CONV_VOCAB'):
      yield BROKEN, str(error), None
    else:
      yield ABSENT, str(error), None
    return
  sha256 = files.sha256(path)
  own = "T5's own" if sha256 == vocabularies.T5_SHA256 else "not T5's own"
  yield OK, f'vocabulary {path}: sha256 {sha256}, {own}', None


def data(data_dir=None):
  """Looks for the data of each task."""
  from mtf_conv.prepare import available
  for name, there, text in available.tasks(data_dir):
    yield OK if there else ABSENT, f'task {name}: {text}', None


def _lock():
  """Returns the file of the versions for this Python."""
  return ('requirements.lock' if sys.version_info < (3, 12)
          else 'requirements-py312.lock')


def _version(name):
  """Returns the version of a distribution, None if it is not installed."""
  try:
    return metadata.version(name)
  except metadata.PackageNotFoundError:
    return None
