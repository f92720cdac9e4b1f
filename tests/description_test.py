"""What a model is described as for PyTorch, which need not be installed."""

import pytest

from mtf_conv.base import errors
from mtf_conv.exchange import description

MIXERS = {'transformer': 'SelfAttention', 'lightconv': 'LightConv',
          'dynamicconv': 'DynamicConv', 'dilatedconv': 'DilatedConv'}


def _described(tmp_path, *lines):
  path = tmp_path / 'model.gin'
  path.write_text('\n'.join(lines))
  return description.from_gin(str(path))


@pytest.mark.parametrize('model', MIXERS)
def test_every_model_has_a_twin(model, tmp_path):
  found = _described(tmp_path, f"include 'models/{model}.tiny.gin'")
  assert [layer['layer'] for layer in found.blocks['encoder'][0]] == [
      MIXERS[model], 'DenseReluDense']
  assert [layer['layer'] for layer in found.blocks['decoder'][0]] == [
      MIXERS[model], 'EncDecAttention', 'DenseReluDense']
  assert found.norm_first and found.tied and found.epsilon == 1e-6
  assert found.is_t5 == (model == 'transformer')


@pytest.mark.parametrize('line, name', [
    ("mtf_conv.norm.rms_norm.epsilon = 0.01", 'mtf_conv.norm.rms_norm'),
    ('transformer.LayerStack.sublayers_final = [\n'
     '  @transformer.sublayer_rms_norm, @transformer.sublayer_dropout]\n'
     'transformer.sublayer_rms_norm.epsilon = 0.01', "T5's own")])
def test_the_epsilon_of_either_norm(line, name, tmp_path):
  found = _described(tmp_path, "include 'models/lightconv.tiny.gin'", line)
  assert found.epsilon == 0.01, name


def test_norms_after_the_layers(tmp_path):
  assert not _described(tmp_path, "include 'models/lightconv.tiny.gin'",
                        "include 'models/paper_norm.gin'").norm_first


def test_a_layer_without_a_twin_is_named(tmp_path):
  with pytest.raises(errors.UserError, match='num_memory_heads .=2. has no'):
    _described(tmp_path, "include 'models/transformer.tiny.gin'",
               'transformer_layers.SelfAttention.num_memory_heads = 2')
