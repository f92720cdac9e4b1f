"""Lets t5 and mesh-tensorflow import on TensorFlow 2.12 to 2.15, no torch.

`import mtf_conv` installs a finder of modules, which imports nothing itself and
acts when these are imported:

* mesh_tensorflow: version 0.1.21 reads `register_tensor_conversion_function`
  from a private module of TensorFlow, from which 2.13 took it out. It is put
  back.
* t5.models.hf_model: `t5.models` imports it, and it needs torch and
  transformers, which the Mesh TensorFlow models do not. Where these are not
  installed, a stand-in takes its place whose use is an error that says so.
* mesh_tensorflow.transformer.utils and t5.models.utils: t5_patches puts right
  what they read and write as text.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import sys

_TENSORFLOW = ((2, 12), (2, 16))
_PYTHON = ((3, 9), (3, 12))


def require(name, version, supported):
  """Exits with one line unless first <= version < last.

  Args:
    name: of the software.
    version: as it writes it.
    supported: (first, last), two pairs of integers.

  Raises:
    SystemExit: the version cannot work.
  """
  first, last = supported
  found = tuple(int(part) for part in version.split('.')[:2])
  if not first <= found < last:
    newest = f'{last[0]}.{last[1] - 1}'
    raise SystemExit(
        f'mtf_conv needs {name} {first[0]}.{first[1]} to {newest}, and this '
        f'is {name} {version}: run_scripts/quickstart.sh makes an environment '
        'that fits.')


def _before_mesh_tensorflow():
  require('Python', sys.version.split()[0], _PYTHON)
  import tensorflow as tf
  require('TensorFlow', tf.__version__, _TENSORFLOW)
  from tensorflow.python.framework import ops
  if not hasattr(ops, 'register_tensor_conversion_function'):
    ops.register_tensor_conversion_function = (
        tf.register_tensor_conversion_function)


class _HfPyTorchModel:
  """Stands in for T5's PyTorch model where PyTorch is not installed."""

  def __init__(self, *unused_args, **unused_kwargs):
    raise ImportError(
        't5.models.HfPyTorchModel needs the packages torch and transformers, '
        'which are not installed. Mesh TensorFlow models do not need them.')


class _HfModelLoader(importlib.abc.Loader):
  """Loads the stand-in for t5.models.hf_model."""

  def create_module(self, spec):
    """Has Python make the module."""
    return None

  def exec_module(self, module):
    """Fills the module."""
    module.__doc__ = _HfPyTorchModel.__doc__
    module.HfPyTorchModel = _HfPyTorchModel


# A module, and the function that is given it when it has been imported.
_PATCHED = {'mesh_tensorflow.transformer.utils': 'patch_mesh_tensorflow',
            't5.models.utils': 'patch_t5'}


def _patch(module):
  patches = importlib.import_module('mtf_conv.t5_patches')
  getattr(patches, _PATCHED[module.__name__])(module)


class _PatchingLoader(importlib.machinery.SourceFileLoader):
  """Loads a module, and patches it."""

  def exec_module(self, module):
    """Fills the module."""
    super().exec_module(module)
    _patch(module)


class _Finder(importlib.abc.MetaPathFinder):
  """Acts before mesh_tensorflow is found; finds t5.models.hf_model."""

  def find_spec(self, fullname, path=None, target=None):
    """Returns a spec for the stand-in only."""
    if fullname == 'mesh_tensorflow':
      _before_mesh_tensorflow()
    if fullname == 't5.models.hf_model' and not all(
        importlib.util.find_spec(name) for name in ('torch', 'transformers')):
      return importlib.machinery.ModuleSpec(fullname, _HfModelLoader())
    if fullname in _PATCHED:
      spec = importlib.machinery.PathFinder.find_spec(fullname, path)
      spec.loader = _PatchingLoader(fullname, spec.origin)
      return spec
    return None


def install():
  """Installs the finder; safe to call again."""
  if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
    sys.meta_path.insert(0, _Finder())
    for name in _PATCHED:
      if name in sys.modules:
        _patch(sys.modules[name])
