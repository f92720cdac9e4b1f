"""What all tests share: slow ones wait to be asked for, data may be absent."""

import gc
import os

# TensorFlow reads it once, when it is first imported.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

import gin
import hypothesis
import pytest
import tensorflow.compat.v1 as tf

import mtf_conv  # noqa: F401, before any test imports mesh_tensorflow or t5

# The same examples in every run; building a graph takes longer than the 200 ms
# that hypothesis allows.
hypothesis.settings.register_profile(
    'repeatable', derandomize=True, deadline=None)
hypothesis.settings.load_profile('repeatable')


# A graph is many objects that live on: looking for cycles among them took 6% of
# the time of a test.
gc.set_threshold(100_000, 50, 1000)


@pytest.fixture(autouse=True)
def nothing_lasts(monkeypatch):
  """What a test binds by gin, or turns off in TensorFlow, is gone after it."""
  monkeypatch.setattr(tf, 'disable_v2_behavior', lambda: None)
  yield
  gin.clear_config()


def pytest_collection_modifyitems(items):
  if os.environ.get('RUN_SLOW') == '1':
    return
  for item in items:
    if item.get_closest_marker('slow'):
      item.add_marker(pytest.mark.skip(reason='slow: set RUN_SLOW=1 to run it'))


@pytest.fixture(scope='session')
def data_dir():
  """The folder of raw data sets."""
  folder = os.environ.get('MTF_CONV_DATA')
  if not folder:
    pytest.skip('reads real data: set MTF_CONV_DATA to its folder')
  return folder
