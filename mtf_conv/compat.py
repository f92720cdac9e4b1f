"""Lets t5 and mesh-tensorflow import on TensorFlow 2.12 to 2.21, no torch.

`import mtf_conv` installs two finders of modules, which import nothing
themselves. The first one acts when these are imported:

* tensorflow, or one of those that import it: the versions of Python and of what
  TensorFlow needs are looked at, before a wrong one fails in many lines.
* tensorflow: 2.20 and later write what they find out to standard error whatever
  TF_CPP_MIN_LOG_LEVEL says. Where it is set they do not.
* mesh_tensorflow: version 0.1.21 reads `register_tensor_conversion_function`
  from a private module of TensorFlow, from which 2.13 took it out. It is put
  back. So is Estimator, which 2.16 took out, from tensorflow_estimator 2.15.
* t5.models.hf_model: `t5.models` imports it, and it needs torch and
  transformers, which the Mesh TensorFlow models do not. Where these are not
  installed, a stand-in takes its place whose use is an error that says so.
* rouge_score.rouge_scorer, which imports NLTK for one of T5's metrics, and
  tensorflow_hub, for a splitter of tensorflow_text: each runs when used.
* mesh_tensorflow.transformer.utils, t5.models.utils and mtf_model: t5_patches
  puts right what they read and write as text, and how the latter trains.

The last one is asked for modules that no other finder has:

* those that TensorFlow 2.16 took out with Estimator; before, it does nothing.
* editdistance: T5 and SeqIO import it, and it has no wheel for Python 3.13.
"""

import contextlib
import functools
import importlib.abc
import importlib.machinery
import importlib.util
import os
import re
import sys
import tempfile
from importlib import metadata

from mtf_conv.base import errors, terminal

# The first that works, and the last that was tried.
_PYTHON = ((3, 9), (3, 13))
_TENSORFLOW = ((2, 12), (2, 21))
_LAST_WITH_TPUS = (2, 15)  # TensorFlow whose TPUEstimator can use one.
_FIRST_WITH_KERAS_3 = (2, 16)

# Modules that TensorFlow 2.16 took out, and those whose names they gave again;
# None where only TPUs and distribution strategies need the content.
_ESTIMATOR = 'tensorflow_estimator.python.estimator'
_TAKEN_OUT = {
    'tensorflow.python.distribute.estimator_training': None,
    'tensorflow.python.tpu.session_support': None,
    'tensorflow.python.tpu.tpu_config': f'{_ESTIMATOR}.tpu.tpu_config',
    'tensorflow.python.tpu.tpu_embedding': None,
    'tensorflow.python.tpu.tpu_embedding_gradient': None,
    'tensorflow.python.tpu.tpu_estimator': f'{_ESTIMATOR}.tpu.tpu_estimator',
}


def _numbers(version):
  return tuple(int(part) for part in version.split('.')[:2])


def _text(numbers):
  return '.'.join(map(str, numbers))


@functools.lru_cache(maxsize=None)  # It is said once.
def require(name, version, known):
  """Refuses what is too old, and says so of what is newer than any tried.

  Args:
    name: of the software.
    version: as it writes it.
    known: (first, last), two pairs of integers.

  Raises:
    errors.UserError: the version cannot work.
  """
  first, last = known
  if _numbers(version) < first:
    raise errors.UserError(
        f'mtf_conv needs {name} {_text(first)} to {_text(last)}, and this is '
        f'{name} {version}: run_scripts/quickstart.sh makes an environment '
        'that fits')
  if _numbers(version) > last:
    terminal.say(f'mtf_conv was tried with {name} {_text(first)} to '
                 f'{_text(last)}, and this is {name} {version}.')


def require_for_tpu(version):
  """Refuses a TensorFlow whose Estimator cannot use a TPU.

  Args:
    version: of TensorFlow.

  Raises:
    errors.UserError: it cannot.
  """
  if _numbers(version) > _LAST_WITH_TPUS:
    raise errors.UserError(
        f'TPUs need TensorFlow {_text(_LAST_WITH_TPUS)}, and this is '
        f'TensorFlow {version}: T5 trains on them through TPUEstimator, whose '
        'support was taken out of TensorFlow in 2.16; run_scripts/tpu/create.sh'
        ' makes a TPU VM that fits')


def require_what_tensorflow_needs():
  """Checks TensorFlow, and what fails in many lines in another version.

  Raises:
    errors.UserError: TensorFlow is too old; or a library has a version that it
      does not ask for; or Keras is to be one that is not there.
  """
  from packaging import requirements
  for tensorflow in ('tensorflow', 'tensorflow-cpu'):
    try:
      needs = metadata.requires(tensorflow) or ()
    except metadata.PackageNotFoundError:
      continue
    tensorflow_version = metadata.version(tensorflow)
    require('TensorFlow', tensorflow_version, _TENSORFLOW)
    _require_keras(tensorflow_version)
    for needed in map(requirements.Requirement, needs):
      if needed.name in ('numpy', 'protobuf') and (
          not needed.marker or needed.marker.evaluate({'extra': ''})):
        version = metadata.version(needed.name)
        if not needed.specifier.contains(version, prereleases=True):
          wanted = f'{needed.name}{needed.specifier}'
          raise errors.UserError(
              f'{tensorflow} {tensorflow_version} needs {wanted}, '
              f'and this is {needed.name} {version}: pip install "{wanted}"')


def _require_keras(tensorflow_version):
  """Refuses to go where tensorflow_text, which asks for Keras, fails."""
  name = 'TF_USE_LEGACY_KERAS'
  if (_numbers(tensorflow_version) >= _FIRST_WITH_KERAS_3
      and os.environ.get(name) in ('1', 'true', 'True')
      and importlib.util.find_spec('tf_keras') is None):
    raise errors.UserError(
        f'{name} (={os.environ[name]}) asks for the package tf-keras, which is '
        f'not installed: unset {name}, nothing here needs it')


_FOUND_OUT = re.compile(rb'WARNING: All log messages before absl::|I\d{4} ')


@contextlib.contextmanager
def _without_what_it_finds_out():
  """Keeps standard error, C++'s too, and lets the rest of it through."""
  sys.stderr.flush()
  kept = os.dup(2)
  with tempfile.TemporaryFile() as written:
    os.dup2(written.fileno(), 2)
    try:
      yield
    finally:
      sys.stderr.flush()
      os.dup2(kept, 2)
      os.close(kept)
      written.seek(0)
      for line in written:
        if not _FOUND_OUT.match(line):
          os.write(2, line)


def _tensorflow_spec():
  """Returns TensorFlow's spec, which runs it as TF_CPP_MIN_LOG_LEVEL says."""
  spec = importlib.machinery.PathFinder.find_spec('tensorflow')
  if spec and os.environ.get('TF_CPP_MIN_LOG_LEVEL', '0') != '0':
    run = spec.loader.exec_module

    def exec_module(module):
      with _without_what_it_finds_out():
        run(module)

    spec.loader.exec_module = exec_module
  return spec


# Whichever is imported first imports the others, and much that a wrong version
# of NumPy breaks.
_IMPORT_TENSORFLOW = ('tensorflow', 'jax', 'mesh_tensorflow', 'seqio', 't5')


@functools.lru_cache(maxsize=None)
def _before_all_of_them():
  require('Python', sys.version.split()[0], _PYTHON)
  require_what_tensorflow_needs()


def _before_mesh_tensorflow():
  import tensorflow as tf
  require('TensorFlow', tf.__version__, _TENSORFLOW)
  from tensorflow.python.framework import ops
  if not hasattr(ops, 'register_tensor_conversion_function'):
    ops.register_tensor_conversion_function = (
        tf.register_tensor_conversion_function)
  if not hasattr(tf, 'estimator'):
    _put_estimator_back(tf)


def _put_estimator_back(tf):
  """Gives TensorFlow the names by which others reach Estimator."""
  if importlib.util.find_spec('tensorflow_estimator') is None:
    raise errors.UserError(
        f'TensorFlow {tf.__version__} has no Estimator, which T5 trains '
        'through: pip install --no-deps tensorflow-estimator==2.15.0')
  # What its classes and functions are registered under.
  from tensorflow.python.util import tf_export
  tf_export.ESTIMATOR_API_NAME = 'estimator'
  for names, v1 in (tf_export.API_ATTRS, ''), (tf_export.API_ATTRS_V1, '_v1'):
    attributes = type(names[tf_export.TENSORFLOW_API_NAME])
    names[tf_export.ESTIMATOR_API_NAME] = attributes(
        f'_estimator_api_names{v1}', f'_estimator_api_constants{v1}')
  import tensorflow.compat.v1 as tf_v1  # Not the module tf.compat.v1 before it.
  from tensorflow_estimator._api.v1 import estimator as estimator_v1
  from tensorflow_estimator._api.v2 import estimator as estimator_v2
  tf.estimator = estimator_v2
  tf_v1.estimator = estimator_v1


def _stand_in(module, name):
  """Returns a class in the place of what a module had, whose use is an error.

  Args:
    module: the name of the module that was taken out.
    name: of the function or class.
  """
  if name.startswith('__'):  # Python's own questions to a module.
    raise AttributeError(name)

  def refuse(*unused_args, **unused_kwargs):
    raise errors.UserError(
        f'{module}.{name} was taken out of TensorFlow in 2.16: what needs it '
        f'needs TensorFlow {_text(_LAST_WITH_TPUS)}')

  return type(name, (), {'__init__': refuse, '__module__': module})


def _fill_taken_out(module):
  """Puts the module of the same content in its place, or stand-ins in it."""
  name = module.__name__
  if _TAKEN_OUT[name]:
    sys.modules[name] = importlib.import_module(_TAKEN_OUT[name])
  else:
    module.__getattr__ = functools.partial(_stand_in, name)


def _fill_editdistance(module):
  """Has the distance of two sequences by NLTK, which T5 needs anyway."""
  import nltk
  module.eval = module.distance = nltk.edit_distance


class _HfPyTorchModel:
  """Stands in for T5's PyTorch model where PyTorch is not installed."""

  def __init__(self, *unused_args, **unused_kwargs):
    raise ImportError(
        't5.models.HfPyTorchModel needs the packages torch and transformers, '
        'which are not installed. Mesh TensorFlow models do not need them.')


def _fill_hf_model(module):
  """Has the stand-in of t5.models.hf_model."""
  module.HfPyTorchModel = _HfPyTorchModel


class _Loader(importlib.abc.Loader):
  """Makes a module of what a function puts into it."""

  def __init__(self, fill):
    self._fill = fill

  def create_module(self, spec):
    """Has Python make the module."""
    return None

  def exec_module(self, module):
    """Fills the module."""
    self._fill(module)


# A module, and the function that is given it when it has been imported.
_PATCHED = {'mesh_tensorflow.transformer.utils': 'patch_mesh_tensorflow',
            't5.models.utils': 'patch_t5',
            't5.models.mtf_model': 'patch_model_api'}


_WHEN_USED = ('rouge_score.rouge_scorer', 'tensorflow_hub')


def _patch(module):
  patches = importlib.import_module('mtf_conv.t5_patches')
  getattr(patches, _PATCHED[module.__name__])(module)


class _PatchingLoader(importlib.machinery.SourceFileLoader):
  """Loads a module, and patches it."""

  def exec_module(self, module):
    """Fills the module."""
    super().exec_module(module)
    _patch(module)


class _First(importlib.abc.MetaPathFinder):
  """Acts before the modules at the top of this page are found."""

  def find_spec(self, fullname, path=None, target=None):
    """Returns a spec for TensorFlow and for the stand-in only."""
    if fullname in _IMPORT_TENSORFLOW:
      _before_all_of_them()
    if fullname == 'tensorflow':
      return _tensorflow_spec()
    if fullname == 'mesh_tensorflow':
      _before_mesh_tensorflow()
    if fullname == 't5.models.hf_model' and not all(
        importlib.util.find_spec(name) for name in ('torch', 'transformers')):
      return importlib.machinery.ModuleSpec(fullname, _Loader(_fill_hf_model))
    if fullname in _WHEN_USED:
      spec = importlib.machinery.PathFinder.find_spec(fullname, path)
      if spec:
        spec.loader = importlib.util.LazyLoader(spec.loader)
      return spec
    if fullname in _PATCHED:
      spec = importlib.machinery.PathFinder.find_spec(fullname, path)
      spec.loader = _PatchingLoader(fullname, spec.origin)
      return spec
    return None


class _Last(importlib.abc.MetaPathFinder):
  """Finds what no other finder has found."""

  _FILLS = {'editdistance': _fill_editdistance,
            **dict.fromkeys(_TAKEN_OUT, _fill_taken_out)}

  def find_spec(self, fullname, path=None, target=None):
    """Returns a spec for a module that is missing and can be replaced."""
    fill = self._FILLS.get(fullname)
    return fill and importlib.machinery.ModuleSpec(fullname, _Loader(fill))


def _draw_without_a_notebook():
  """Has matplotlib be imported where the backend of a notebook is not.

  A notebook names its own backend to all that it starts. Where that is not
  installed matplotlib cannot be imported, nor can Keras 3, which imports it.
  """
  scheme, _, name = os.environ.get('MPLBACKEND', '').partition('://')
  if scheme == 'module' and not importlib.util.find_spec(name.split('.')[0]):
    os.environ['MPLBACKEND'] = 'Agg'


def install():
  """Installs the finders; safe to call again."""
  _draw_without_a_notebook()
  if not any(isinstance(finder, _First) for finder in sys.meta_path):
    sys.meta_path.insert(0, _First())
    sys.meta_path.append(_Last())
    for name in _PATCHED:
      if name in sys.modules:
        _patch(sys.modules[name])
