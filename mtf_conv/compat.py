"""Lets t5 and mesh-tensorflow import on TensorFlow 2.12 to 2.15, no torch.

This is the only module that touches other libraries. It does two things:

* TensorFlow 2.13 took `register_tensor_conversion_function` out of a private
  module from which mesh-tensorflow 0.1.21 reads it; it is put back.
* `t5.models` imports `t5.models.hf_model`, which needs torch and transformers,
  though the Mesh TensorFlow models do not. Where these are not installed, a
  stand-in takes its place whose use is an error that says so.
"""

import importlib.util
import sys
import types

_TENSORFLOW = ((2, 12), (2, 16))
_PYTHON = ((3, 9), (3, 12))


class _HfPyTorchModel:
  """Stands in for T5's PyTorch model where PyTorch is not installed."""

  def __init__(self, *unused_args, **unused_kwargs):
    raise ImportError(
        't5.models.HfPyTorchModel needs the packages torch and transformers, '
        'which are not installed. Mesh TensorFlow models do not need them.')


def _require(name, version, supported):
  """Exits with one line unless first <= version < last."""
  first, last = supported
  found = tuple(int(part) for part in version.split('.')[:2])
  if not first <= found < last:
    newest = f'{last[0]}.{last[1] - 1}'
    raise SystemExit(
        f'mtf_conv needs {name} {first[0]}.{first[1]} to {newest}, and this '
        f'is {name} {version}: run_scripts/quickstart.sh makes an environment '
        'that fits.')


def install():
  """Makes mesh_tensorflow and t5.models importable; safe to call again.

  Raises:
    SystemExit: Python or TensorFlow is of a version that cannot work.
  """
  _require('Python', sys.version.split()[0], _PYTHON)
  import tensorflow as tf
  _require('TensorFlow', tf.__version__, _TENSORFLOW)
  from tensorflow.python.framework import ops
  if not hasattr(ops, 'register_tensor_conversion_function'):
    ops.register_tensor_conversion_function = (
        tf.register_tensor_conversion_function)
  hf_model = 't5.models.hf_model'
  if hf_model not in sys.modules and not all(
      importlib.util.find_spec(name) for name in ('torch', 'transformers')):
    stand_in = types.ModuleType(hf_model, _HfPyTorchModel.__doc__)
    stand_in.HfPyTorchModel = _HfPyTorchModel
    sys.modules[hf_model] = stand_in
