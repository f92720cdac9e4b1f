"""The PyTorch twin of each model, and the way to it and back."""

import json
import os
import shutil

import forked  # noqa: F401
import gin
import mtf_harness as harness
import numpy as np
import pytest
import seqio
import tensorflow.compat.v1 as tf
import tiny_vocabulary
from mesh_tensorflow.transformer import transformer_layers

from mtf_conv import cli
from mtf_conv.base import command_line
from mtf_conv.exchange import hugging_face, names
from mtf_conv.model_dir import checkpoints
from mtf_conv.testing import model

torch = pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')

from mtf_conv.exchange import modeling_mtf_conv as twin  # noqa: E402

VOCABULARY = 350  # Of tiny_vocabulary, with sentinels.
TINY = [*harness.TINY, 'num_layers = 2']

# Rows of one example, of one with padding, of three, and of none.
SEGMENTS = np.array([[1] * 9, [1] * 5 + [0] * 4, [1, 1, 1, 2, 2, 2, 2, 3, 0]])
TARGET_SEGMENTS = np.array([
    [1] * 7, [1] * 3 + [0] * 4, [1, 1, 2, 2, 3, 3, 0]])
_rng = np.random.RandomState(0)
SOURCE = _rng.randint(2, VOCABULARY, SEGMENTS.shape) * (SEGMENTS > 0)
TARGETS = _rng.randint(2, VOCABULARY, TARGET_SEGMENTS.shape) * (
    TARGET_SEGMENTS > 0)
UNPACKED = slice(2)  # The rows that any T5 can read.

LIGHT = 'mtf_conv.layers.LightConv'
MODELS = {
    'lightconv': (['models/lightconv.tiny.gin'], []),
    'dynamicconv': (['models/dynamicconv.tiny.gin'], []),
    'dilatedconv': (['models/dilatedconv.tiny.gin'], [
        'filter_sizes = [4, 5]',
        'mtf_conv.layers.DilatedConv.dilation_rates = [1, 2]']),
    'transformer': (['models/transformer.tiny.gin'], []),
    'encoder_attention': (['models/lightconv.tiny.gin',
                           'models/encoder_attention.gin'], []),
    'paper_norm': (['models/dynamicconv.tiny.gin', 'models/paper_norm.gin'],
                   ['mtf_conv.layers.DynamicConv.use_bias = True']),
    'every_option': (['models/lightconv.tiny.gin'], [
        f'{LIGHT}.num_filters = None', f'{LIGHT}.pointwise = True',
        f'{LIGHT}.use_bias = True', f'{LIGHT}.gated = False',
        f'{LIGHT}.softmax = False', 'DenseReluDense.use_bias = True',
        'transformer.Unitransformer.positional_embedding = True',
        'transformer.Unitransformer.max_length = 12']),
    't5.1.1': (['models/t5.1.1.tiny.gin', 'models/vocabulary.gin'], []),
    'before_2020': (['models/transformer.tiny.gin'], [
        'transformer.LayerStack.dropout_rate = 0.0',
        'transformer.LayerStack.norm_epsilon = 1e-6']),
}
STOCK = ('transformer', 't5.1.1', 'before_2020')


@pytest.fixture(autouse=True)
def tiny(monkeypatch, tmp_path_factory):
  monkeypatch.setattr(model, 'VOCABULARY', VOCABULARY)
  path = tmp_path_factory.getbasetemp() / 'spiece.model'
  if not path.exists():
    tiny_vocabulary.write(path)
  monkeypatch.setenv('MTF_CONV_VOCAB', str(path))


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """Returns a function of a model's name: its folder, weights and logits."""
  found = {}

  def make(name, dtype='float32'):
    if name not in found:
      found[name] = _make(name, tmp_path_factory.mktemp('made'), dtype)
    return found[name]

  return make


def _make(name, folder, dtype):
  files, bindings = MODELS[name]
  positions = [_positions(ids) for ids in (SEGMENTS, TARGET_SEGMENTS)]
  with harness.Model(files, [*TINY, *bindings]) as m:
    logits, loss = m.bitransformer.call_simple(
        m.ids(SOURCE), m.ids(TARGETS), compute_loss=True, mode='eval',
        encoder_sequence_id=m.ids(SEGMENTS),
        decoder_sequence_id=m.ids(TARGET_SEGMENTS),
        encoder_position=m.ids(positions[0]),
        decoder_position=m.ids(positions[1]))
    with m.evaluating([logits, loss]) as evaluate:
      weights = {name: np.float32(_sharp(name, array).astype(
          tf.as_dtype(dtype).as_numpy_dtype))
                 for name, array in m.weights.items()}
      logits, loss = evaluate(weights=weights)
  (folder / 'operative_config.gin').write_text(gin.operative_config_str())
  weights = {name: array.astype(tf.as_dtype(dtype).as_numpy_dtype)
             for name, array in weights.items()}
  slots = {'encoder/rms_norm/scale_slot_v': np.zeros(16, 'float32')}
  checkpoints.write(str(folder / 'model.ckpt-7'), [
      {**weights, **slots, 'global_step': np.int64(7)}])
  return folder, weights, logits, float(loss) * TARGETS.size / (
      TARGETS > 0).sum()


def _sharp(name, array):
  """Weights with which the logits differ by more than rounding."""
  return array * (6 if name in ('shared/embedding', 'decoder/logits/kernel')
                  else 1)


def _positions(segments):
  return np.array([[np.sum(row[:i] == row[i]) for i in range(len(row))]
                   for row in segments])


def _load(folder):
  return transformers.AutoModelForSeq2SeqLM.from_pretrained(
      str(folder), trust_remote_code=True).eval()


def _tensors(**arrays):
  return {name: torch.tensor(np.int64(array))
          for name, array in arrays.items()}


def _read(folder):
  reader = tf.train.load_checkpoint(str(folder))
  return {name: reader.get_tensor(name)
          for name in reader.get_variable_to_shape_map()}


@pytest.mark.parametrize('name, own_code', [
    *((name, False) for name in MODELS),
    ('transformer', True), ('t5.1.1', True)])
def test_logits_are_those_of_mesh_tensorflow(name, own_code, made, tmp_path):
  folder, weights, logits, loss = made(name)
  out = tmp_path / 'out'
  hugging_face.write(folder, out, own_code)
  loaded = _load(out)
  is_stock = name in STOCK and not own_code
  assert type(loaded).__name__ == (
      'T5ForConditionalGeneration' if is_stock
      else 'MtfConvForConditionalGeneration')
  assert 'past' not in json.dumps(loaded.config.to_dict())
  rows = UNPACKED if is_stock else slice(None)
  batch = _tensors(input_ids=SOURCE[rows],
                   labels=np.where(TARGETS > 0, TARGETS, -100)[rows])
  if is_stock:
    batch.update(_tensors(attention_mask=SOURCE[rows] > 0))
  else:
    batch.update(_tensors(segment_ids=SEGMENTS,
                          decoder_segment_ids=TARGET_SEGMENTS))
  with torch.no_grad():
    found = loaded(**batch)
  known = TARGETS[rows] > 0
  assert np.abs(logits).max() > 1
  np.testing.assert_allclose(
      found.logits.numpy()[known], logits[rows][known], rtol=0, atol=1e-4)
  if not is_stock:
    assert abs(float(found.loss) - loss) < 1e-4

  back = tmp_path / 'back'
  hugging_face.read(out, back)
  read = _read(back)
  assert int(read.pop('global_step')) == 7
  assert {*read} == {*weights}
  for variable, array in weights.items():
    assert read[variable].dtype == array.dtype
    np.testing.assert_array_equal(read[variable], array)
