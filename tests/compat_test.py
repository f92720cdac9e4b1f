"""What mtf_conv puts in the place of what the installed libraries lack."""

import importlib
import importlib.util
import os
import re
import subprocess
import sys
from importlib import metadata

import forked
import mesh_tensorflow  # noqa: F401, has compat put Estimator back
import pytest
import tensorflow as tf
import tensorflow.compat.v1 as tf_v1

from mtf_conv import compat
from mtf_conv.base import errors

HAS_ESTIMATOR = tuple(map(int, tf.__version__.split('.')[:2])) < (2, 16)
SUPPORT = 'tensorflow.python.tpu.session_support'


def load(name):
  spec = compat._Last().find_spec(name)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def test_an_old_version_is_refused():
  with pytest.raises(errors.UserError) as error:
    compat.require('TensorFlow', '2.11.1', compat._TENSORFLOW)
  assert str(error.value) == (
      'mtf_conv needs TensorFlow 2.12 to 2.21, and this is TensorFlow 2.11.1: '
      'run_scripts/quickstart.sh makes an environment that fits')


def test_a_version_newer_than_any_tried_goes_on_with_one_line(capsys):
  for version in '2.12.0', '2.21.1':
    compat.require('TensorFlow', version, compat._TENSORFLOW)
  assert capsys.readouterr().err == ''
  compat.require('TensorFlow', '2.22.0-rc1', compat._TENSORFLOW)
  assert capsys.readouterr().err == (
      'mtf_conv was tried with TensorFlow 2.12 to 2.21, and this is TensorFlow '
      '2.22.0-rc1.\n')


@pytest.mark.parametrize('name, version, wanted', [
    ('numpy', '2.0.1', 'numpy<2.0.0,>=1.23.5'),
    ('protobuf', '5.29.0', 'protobuf!=4.21.0,<5.0.0dev,>=3.20.3'),
    ('protobuf', '6.31.1', 'protobuf!=4.21.0,<5.0.0dev,>=3.20.3'),
])
def test_libraries_that_tensorflow_cannot_use(
    name, version, wanted, monkeypatch):
  installed = {'tensorflow': '2.15.1', 'numpy': '1.26.4', 'protobuf': '4.25.9',
               name: version}
  monkeypatch.setattr(metadata, 'version', installed.get)
  monkeypatch.setattr(metadata, 'requires', lambda _: [
      'numpy<2.0.0,>=1.23.5', 'protobuf!=4.21.0,<5.0.0dev,>=3.20.3',
      "numpy<1; extra == 'old'"])
  with pytest.raises(errors.UserError) as error:
    compat.require_what_tensorflow_needs()
  message = str(error.value)
  assert message.startswith(f'tensorflow 2.15.1 needs {name}')
  assert f'and this is {name} {version}: pip install "{name}' in message
  for part in wanted.removeprefix(name).split(','):
    assert part in message


@pytest.mark.parametrize('name, version, said', [
    ('numpy', '2.0.2' if HAS_ESTIMATOR else '1.20.0',
     r'tensorflow [\d.]+ needs numpy.*, and this is numpy (2.0.2|1.20.0): '
     r'pip install "numpy.*"'),
    ('tensorflow', '2.11.1', r'mtf_conv needs TensorFlow 2.12 .*, and this is '
     r'TensorFlow 2.11.1: run_scripts/quickstart.sh makes .*'),
])
def test_it_is_told_before_anything_fails_by_it(name, version, said, tmp_path):
  package = tmp_path / name
  package.mkdir()
  (package / '__init__.py').write_text(
      'raise ImportError("compiled for another version")')
  installed = tmp_path / f'{name}-{version}.dist-info'
  installed.mkdir()
  (installed / 'METADATA').write_text(
      f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n')
  result = subprocess.run(
      [sys.executable, '-c', 'import sys; from mtf_conv import t5_main; '
       't5_main.console_entry_point(sys.argv)', f'--model_dir={tmp_path}/run'],
      env={**os.environ, 'PYTHONPATH': os.pathsep.join(
          [str(tmp_path), *sys.path[1:]])},
      capture_output=True, text=True)
  assert result.returncode == 1
  first, second = result.stderr.splitlines()
  assert re.fullmatch(said, first), first
  assert second == f'Everything that was printed: {tmp_path}/run/log.txt'


@pytest.mark.parametrize('version, value, there, refused', [
    ('2.21.0', '1', False, True), ('2.16.1', 'True', False, True),
    ('2.21.0', '1', True, False), ('2.21.0', '0', False, False),
    ('2.15.1', '1', False, False)])
def test_keras_2_without_its_package(
    version, value, there, refused, monkeypatch):
  monkeypatch.setenv('TF_USE_LEGACY_KERAS', value)
  monkeypatch.setattr(importlib.util, 'find_spec',
                      lambda name: object() if there else None)
  if not refused:
    return compat._require_keras(version)
  with pytest.raises(errors.UserError) as error:
    compat._require_keras(version)
  assert str(error.value) == (
      f'TF_USE_LEGACY_KERAS (={value}) asks for the package tf-keras, which is '
      'not installed: unset TF_USE_LEGACY_KERAS, nothing here needs it')


def test_libraries_that_are_installed_fit():
  compat.require_what_tensorflow_needs()


def test_what_tensorflow_finds_out_is_not_for_the_terminal(capfd):
  lines = ['WARNING: All log messages before absl::InitializeLog() is called',
           'I0000 00:00:1795756902.669594    4032 port.cc:153] oneDNN is on',
           'E0000 00:00:1795756902.669594    4032 x.cc:1] it is broken',
           'RuntimeWarning: it is old']
  with pytest.raises(KeyError), compat._without_what_it_finds_out():
    os.write(2, '\n'.join(lines).encode())
    raise KeyError
  assert capfd.readouterr().err == '\n'.join(lines[2:])


def test_estimator_is_there():
  for module in tf, tf_v1, tf.compat.v1:
    assert module.estimator.ModeKeys.TRAIN == 'train'
  from tensorflow.python.tpu import tpu_estimator
  from tensorflow_estimator.python.estimator.tpu import tpu_estimator as real
  assert tf_v1.estimator.tpu.TPUEstimator is real.TPUEstimator
  assert tpu_estimator.TPUEstimator is real.TPUEstimator


@pytest.mark.skipif(not HAS_ESTIMATOR, reason='TensorFlow has no Estimator')
def test_nothing_is_replaced_that_is_there():
  for name in compat._TAKEN_OUT:
    module = importlib.import_module(name)
    assert not isinstance(module.__loader__, compat._Loader), name
  assert not isinstance(importlib.import_module('editdistance').__loader__,
                        compat._Loader)


@pytest.mark.skipif(HAS_ESTIMATOR, reason='TensorFlow has Estimator')
def test_modules_are_those_that_others_import():
  for name, real in compat._TAKEN_OUT.items():
    assert importlib.import_module(name) is sys.modules[real or name]


def test_a_stand_in_says_what_is_missing():
  module = load(SUPPORT)
  assert not isinstance(module, module.ResetComputation)
  with pytest.raises(errors.UserError) as error:
    module.ResetComputation(all_workers=True)
  assert str(error.value) == (
      f'{SUPPORT}.ResetComputation was taken out of TensorFlow in 2.16: what '
      'needs it needs TensorFlow 2.15')
  assert not hasattr(module, '__path__')


def test_only_what_is_known_is_replaced():
  with pytest.raises(ModuleNotFoundError):
    importlib.import_module('tensorflow.python.tpu.no_such_module')


@pytest.mark.parametrize('one, other, distance', [
    ('kitten', 'sitting', 3), ('', 'trec', 4), ('sst2', 'sst2', 0),
    (['a', 'b'], ['b'], 1)])
def test_distances(one, other, distance):
  module = load('editdistance')
  assert module.eval(one, other) == module.distance(one, other) == distance


def test_tpus_need_an_older_tensorflow(tmp_path):
  compat.require_for_tpu('2.15.1')
  with pytest.raises(errors.UserError, match='needs? TensorFlow 2.15'):
    compat.require_for_tpu('2.16.0')
  if HAS_ESTIMATOR:
    return
  result = forked.run(
      't5_mesh_conv', f'--model_dir={tmp_path}', '--tpu=local',
      '--gin_file=models/lightconv.tiny.gin', '--gin_file=runs/pretrain.gin',
      '--gin_file=hardware/tpu.gin')
  assert result.returncode == 1
  said = result.stdout.splitlines()
  assert said[0].startswith(
      f'TPUs need TensorFlow 2.15, and this is TensorFlow {tf.__version__}')
  assert len(said) == 2 and said[1].startswith('Everything that was printed')


def test_what_a_training_does_not_need_is_imported_when_it_is_used():
  program = (
      'import sys; from mtf_conv import t5_main; t5_main.preload()\n'
      'names = ("nltk", "tensorflow_hub.resolver")\n'
      'print([name in sys.modules for name in names])\n'
      'from t5.evaluation import metrics; import tensorflow_hub\n'
      'print(metrics.rouge(["a b"], ["a b"])["rouge1"])\n'
      'print(tensorflow_hub.resolve)\n'
      'print([name in sys.modules for name in names])')
  done = subprocess.run([sys.executable, '-c', program], capture_output=True,
                        text=True, check=True)
  first, rouge, resolve, last = done.stdout.splitlines()
  assert first == '[False, False]' and last == '[True, True]'
  assert rouge == '100.0' and resolve.startswith('<function')
