"""The PyTorch twin of each model, and the way to it and back."""

import json
import os
import re
import runpy
import shlex
import shutil
import sys

import gin
import mtf_harness as harness
import numpy as np
import pages
import pytest
import seqio
import tensorflow.compat.v1 as tf
import tiny_vocabulary
from mesh_tensorflow.transformer import transformer_layers

from mtf_conv import cli
from mtf_conv.base import command_line
from mtf_conv.exchange import hugging_face, names, tokenizer
from mtf_conv.model_dir import checkpoints
from mtf_conv.testing import model

torch = pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')

from mtf_conv.exchange import modeling_mtf_conv as twin  # noqa: E402

torch.set_num_threads(1)

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
    'dynamicconv': (['models/dynamicconv.tiny.gin', 'models/paper_norm.gin'],
                    ['mtf_conv.layers.DynamicConv.use_bias = True']),
    'dilatedconv': (['models/dilatedconv.tiny.gin',
                     'models/encoder_attention.gin'], [
        'filter_sizes = [4, 5]',
        'mtf_conv.layers.DilatedConv.dilation_rates = [1, 2]']),
    'transformer': (['models/transformer.tiny.gin'], []),
    'every_option': (['models/lightconv.tiny.gin'], [
        f'{LIGHT}.num_filters = None', f'{LIGHT}.pointwise = True',
        f'{LIGHT}.use_bias = True', f'{LIGHT}.gated = False',
        f'{LIGHT}.softmax = False', 'DenseReluDense.use_bias = True',
        'transformer.Unitransformer.positional_embedding = True',
        'transformer.Unitransformer.max_length = 12']),
    't5.1.1': (['models/t5.1.1.tiny.gin', 'models/vocabulary.gin'], []),
}
STOCK = ('transformer', 't5.1.1')


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

  def make(name):
    if name not in found:
      found[name] = _make(name, tmp_path_factory.mktemp('made'))
    return found[name]

  return make


def _make(name, folder):
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
      weights = {name: _sharp(name, array)
                 for name, array in m.weights.items()}
      logits, loss = evaluate(weights=weights)
  (folder / 'operative_config.gin').write_text(gin.operative_config_str())
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


def _twin_of_all():
  """A twin in float64 with every kind of layer, its weights from a seed."""
  sizes = {'num_heads': 4, 'd_kv': 4}
  conv = {**sizes, 'filter_size': 5, 'num_filters': 2}
  mixers = [
      {'layer': 'LightConv', **conv}, {'layer': 'DynamicConv', **conv},
      {'layer': 'DilatedConv', **conv, 'dilation_rate': 3, 'use_bias': True},
      {'layer': 'SelfAttention', **sizes, 'num_buckets': 32},
      {'layer': 'SelfAttention', **sizes}]
  memory = {'layer': 'EncDecAttention', **sizes}
  dense = {'layer': 'DenseReluDense', 'd_ff': 32, 'activations': ['relu']}
  torch.manual_seed(0)
  made = twin.MtfConvForConditionalGeneration(twin.MtfConvConfig(
      vocab_size=60, d_model=16, dropout_rate=0.0, max_positions=40,
      encoder_blocks=[[mixer, dense] for mixer in mixers],
      decoder_blocks=[[mixer, memory, dense] for mixer in mixers]))
  for parameter in made.parameters():
    parameter.data += 0.3 * torch.randn_like(parameter)
  return made.double().eval()


BATCH = {'input_ids': torch.tensor([[5, 6, 7, 8, 9], [9, 8, 7, 0, 0]]),
         'attention_mask': torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])}


@pytest.mark.parametrize('more', [
    {}, {'num_beams': 3, 'num_return_sequences': 3},
    {'do_sample': True, 'top_k': 20, 'num_return_sequences': 2},
    {'decoder_input_ids': torch.tensor([[0, 7, 8], [0, 9, 9]])}])
def test_a_step_with_its_state_gives_what_the_whole_gives(more):
  made = _twin_of_all()
  found = []
  for use_cache in (True, False):
    torch.manual_seed(1)
    found.append(made.generate(
        **BATCH, use_cache=use_cache, max_new_tokens=15, min_new_tokens=15,
        output_scores=True, return_dict_in_generate=True, **more))
  stepwise, whole = found
  assert torch.equal(stepwise.sequences, whole.sequences)
  assert len({*stepwise.sequences[0].tolist()}) > 2
  for a, b in zip(stepwise.scores, whole.scores):
    torch.testing.assert_close(a, b, rtol=0, atol=1e-9)


@torch.no_grad()
def test_a_convolution_keeps_what_its_taps_read():
  made = _twin_of_all()
  state, ids = twin.DecodingState(), torch.randint(2, 60, (2, 20))
  whole = made(**BATCH, decoder_input_ids=ids).logits
  found = [
      made(**BATCH, decoder_input_ids=part, past_key_values=state).logits
      for part in ids.split([1, 4, 1, 1, 13], dim=1)]
  torch.testing.assert_close(torch.cat(found, 1), whole, rtol=0, atol=1e-9)
  # (filter_size - 1) * dilation_rate positions, however many were decoded.
  assert [tensors[0].shape[1] for tensors in state.layers.values()
          if tensors[0].ndim == 3] == [4, 4, 12]


@torch.no_grad()
def test_padding_before_a_prefix_is_not_read():
  made = _twin_of_all()
  made.positions = None
  ids, mask = torch.tensor([[[0, 0, 0, 7, 8, 9]], [[0, 0, 1, 1, 1, 1]]])
  one = {name: value[:1] for name, value in BATCH.items()}
  alone = made(**one, decoder_input_ids=ids[:, 2:]).logits
  padded = made(
      **one, decoder_input_ids=ids, decoder_attention_mask=mask).logits
  torch.testing.assert_close(padded[:, 2:], alone, rtol=0, atol=1e-9)
  state = twin.DecodingState()
  for end in range(1, 7):
    step = made(**one, decoder_input_ids=ids[:, end - 1:end], cache=state,
                decoder_attention_mask=mask[:, :end]).logits
  torch.testing.assert_close(step, alone[:, -1:], rtol=0, atol=1e-9)


@pytest.mark.parametrize('alpha', [0.0, 0.6])
def test_generate_decodes_as_mesh_tensorflow_does(alpha, made, tmp_path):
  name = 'dilatedconv'
  folder, weights, _, _ = made(name)
  hugging_face.write(folder, tmp_path / 'out')
  files, bindings = MODELS[name]
  with harness.Model(files, [*TINY, *bindings]) as m:
    found = m.run([m.bitransformer.decode(
        m.ids(SOURCE), beam_size=beams, alpha=alpha, max_decode_length=12)
                   for beams in (1, 4)], weights)
  loaded = _load(tmp_path / 'out')
  for beams, expected in zip((1, 4), found):
    assert len({*map(tuple, expected)}) == len(expected)
    generated = loaded.generate(
        **_tensors(input_ids=SOURCE, attention_mask=SOURCE > 0),
        num_beams=beams, length_penalty=alpha, max_new_tokens=12).numpy()
    for expected_row, row in zip(expected, generated[:, 1:]):
      known = harness.length_with_eos(expected_row)
      np.testing.assert_array_equal(row[:known], expected_row[:known])


def _gradients(made):
  made.train()
  made.zero_grad()
  made(input_ids=torch.tensor(SOURCE) % 60, labels=torch.tensor(TARGETS) % 60,
       segment_ids=torch.tensor(SEGMENTS),
       decoder_segment_ids=torch.tensor(TARGET_SEGMENTS)).loss.backward()
  return {name: p.grad.clone() for name, p in made.named_parameters()}


def _checkpointed(made):
  made.gradient_checkpointing_enable()


def _compiled(made):
  # One graph: nothing of a pass is left to Python.
  made.forward = torch.compile(made.forward, backend='eager', fullgraph=True)


@pytest.mark.parametrize('change', [
    _checkpointed, pytest.param(_compiled, marks=pytest.mark.slow)])
def test_checkpointing_and_compiling_change_no_gradient(change):
  made = _twin_of_all()
  expected = _gradients(made)
  assert all(gradient.abs().max() > 0 for gradient in expected.values())
  change(made)
  for name, gradient in _gradients(made).items():
    torch.testing.assert_close(
        gradient, expected[name], rtol=0, atol=1e-9, msg=name)


@torch.no_grad()
def test_bfloat16_is_close_and_decodes():
  made = _twin_of_all()
  labels = torch.tensor([[5, 6, 7, 1], [8, 1, 0, 0]])
  expected = made(**BATCH, labels=labels)
  made.bfloat16()
  found = made(**BATCH, labels=labels)
  assert found.logits.dtype == torch.bfloat16
  assert abs(float(found.loss) / float(expected.loss) - 1) < 0.02
  assert made.generate(**BATCH, max_new_tokens=3, num_beams=2).shape[1] <= 4


@torch.no_grad()
def test_dropout_is_for_training_alone():
  made = _twin_of_all()
  for module in made.modules():
    if hasattr(module, 'dropout_rate'):
      module.dropout_rate = 0.5
  labels = torch.tensor([[5, 6, 7, 1], [8, 1, 0, 0]])
  assert made(**BATCH, labels=labels).loss == made(**BATCH, labels=labels).loss
  made.train()
  assert made(**BATCH, labels=labels).loss != made(**BATCH, labels=labels).loss


def test_buckets_are_those_of_mesh_tensorflow():
  distance = np.arange(-300, 300)
  for causal in (False, True):
    m = harness.Model([], [])
    with m:
      found, = m.run([transformer_layers._relative_position_bucket(
          -m.tensor(np.int32(distance), 'length'),
          bidirectional=not causal)], {})
    np.testing.assert_array_equal(
        twin.relative_buckets(torch.tensor(distance), 32, causal), found)


@pytest.mark.parametrize('options', [
    {}, {'model_type': 'bpe', 'normalization_rule_name': 'identity'}])
def test_tokens_are_those_of_training(options, tmp_path):
  path = tiny_vocabulary.write(tmp_path / 'tiny.model', **options)
  tokenizer.write(tmp_path, path, 100)
  (tmp_path / 'config.json').write_text('{"model_type": "t5"}')
  _same_tokens(tmp_path, path, [
      ' '.join(tiny_vocabulary.words(30, seed=1)), '  ba  ko, li ', '', 'a\tb',
      'é ① 北京', 'ba\nko\u3000li é北 mu', '<extra_id_0> ba <extra_id_99>',
      'under_score ~`^'])


def _same_tokens(folder, path, texts):
  loaded = transformers.AutoTokenizer.from_pretrained(
      str(folder), trust_remote_code=True)
  vocabulary = seqio.SentencePieceVocabulary(path, 100)
  assert len(loaded) == vocabulary.vocab_size
  assert (loaded.pad_token_id, loaded.eos_token_id) == (0, 1)
  for text in texts:
    ids = vocabulary.encode(text)
    assert loaded(text).input_ids == [*ids, 1], text
    if 2 not in ids and '<' not in text:
      assert loaded.decode(ids) == vocabulary.decode(ids)


def test_tokens_of_real_text_by_t5s_vocabulary(data_dir, tmp_path):
  path = f'{data_dir}/t5_vocab/sentencepiece.model'
  tokenizer.write(tmp_path, path, 100)
  (tmp_path / 'config.json').write_text('{"model_type": "t5"}')
  with open(f'{data_dir}/trec/train_5500.label', encoding='latin-1') as f:
    texts = f.read().splitlines()[:1000]
  assert len(texts) == 1000
  _same_tokens(tmp_path, path, texts)


def test_weights_that_are_not_bfloat16_any_more_are_float32(
    made, tmp_path):
  folder, weights, *_ = made('lightconv')
  weights = {name: array.astype(tf.bfloat16.as_numpy_dtype)
             for name, array in weights.items()}
  folder = shutil.copytree(folder, tmp_path / 'in')
  _edit(folder, lambda found: found.update(weights))
  out, again = tmp_path / 'out', tmp_path / 'again'
  hugging_face.write(folder, out)
  loaded = _load(out)
  assert loaded.dtype == torch.float32
  assert hugging_face.read(out, tmp_path / 'back') == []
  read = _read(tmp_path / 'back')
  for variable, array in weights.items():
    assert read[variable].dtype == array.dtype
    np.testing.assert_array_equal(
        read[variable].astype('float32'), array.astype('float32'))

  loaded.shared.weight.data += 1e-4
  loaded.save_pretrained(again)
  shutil.copy(out / 'operative_config.gin', again)
  notes = hugging_face.read(again, tmp_path / 'trained')
  assert notes == ['The weights are not bfloat16 any more: '
                   'operative_config.gin asks for float32.']
  read = _read(tmp_path / 'trained')
  assert read['shared/embedding'].dtype == np.float32
  np.testing.assert_array_equal(
      read['shared/embedding'], loaded.shared.weight.detach().numpy())
  gin_text = (tmp_path / 'trained' / 'operative_config.gin').read_text()
  assert gin_text.endswith("master_dtype = 'float32'\n")


def test_the_norms_of_t5_before_2020(made, tmp_path):
  folder, weights, logits, _ = made('transformer')
  old = {re.sub(r'^(\w+)/rms_norm/', r'\1/final_layer_norm/', name).replace(
      'rms_norm', 'layer_norm'): array for name, array in weights.items()}
  checkpoints.write(str(tmp_path / 'model.ckpt-5'), [
      {**old, 'global_step': np.int64(5)}])
  hugging_face.write(tmp_path, tmp_path / 'out')
  found = _load(tmp_path / 'out')(**_tensors(
      input_ids=SOURCE[UNPACKED], attention_mask=SOURCE[UNPACKED] > 0,
      labels=TARGETS[UNPACKED]))
  known = TARGETS[UNPACKED] > 0
  np.testing.assert_allclose(found.logits.detach().numpy()[known],
                             logits[UNPACKED][known], rtol=0, atol=1e-4)
  hugging_face.read(tmp_path / 'out', tmp_path / 'back')
  assert {*_read(tmp_path / 'back')} == {*old, 'global_step'}
  with harness.Model([str(tmp_path / 'back' / 'operative_config.gin')]) as m:
    m.bitransformer.call_simple(
        m.ids(SOURCE), m.ids(TARGETS), compute_loss=False, mode='eval')
    assert {v.name for v in m.graph.trainable_variables} == {*old}


def test_a_t5_of_transformers_becomes_a_checkpoint(made, tmp_path):
  folder, weights, logits, _ = made('t5.1.1')
  alone = tmp_path / 'alone'
  alone.mkdir()
  for path in folder.glob('model.ckpt*'):
    shutil.copy(path, alone)
  # Without gin the shapes tell which T5 it is.
  notes = hugging_face.write(alone / 'model.ckpt-7', tmp_path / 'out')
  assert 'operative_config.gin' in notes[1]
  with open(tmp_path / 'out' / 'config.json') as f:
    config = json.load(f)
  del config['mtf']  # As of any other T5.
  (tmp_path / 'out' / 'config.json').write_text(json.dumps(config))
  notes = hugging_face.read(tmp_path / 'out', tmp_path / 'back')
  assert notes == ["Assumed: T5's model, as config.json describes it."]
  read = _read(tmp_path / 'back')
  assert int(read.pop('global_step')) == 0
  with harness.Model([str(tmp_path / 'back' / 'operative_config.gin')]) as m:
    found, _ = m.bitransformer.call_simple(
        m.ids(SOURCE), m.ids(TARGETS), compute_loss=False, mode='eval',
        encoder_sequence_id=m.ids(SEGMENTS),
        decoder_sequence_id=m.ids(TARGET_SEGMENTS))
    found, = m.run([found], read)
  np.testing.assert_allclose(found, logits, rtol=0, atol=1e-5)
  assert {*read} == {*weights}


def _edit(folder, change):
  """Writes the checkpoint again, with other weights or another gin."""
  weights = {name: array for name, array in _read(folder).items()}
  change(weights)
  for path in folder.glob('model.ckpt-7*'):
    path.unlink()
  checkpoints.write(str(folder / 'model.ckpt-7'), [weights])


def _break(name):
  first = 'encoder/block_000/layer_000/LightConv/wi'

  def breaks(folder, monkeypatch):
    gin_file = folder / 'operative_config.gin'
    if name == 'missing':
      _edit(folder, lambda weights: weights.pop(first))
    elif name == 'reshaped':
      _edit(folder, lambda weights: weights.update({
          first: np.zeros((3, 16), 'f4')}))
    elif name == 'unknown':
      _edit(folder, lambda weights: weights.update({'x': np.zeros(3, 'f4')}))
    elif name == 'mixed':
      _edit(folder, lambda weights: weights.update({
          first: weights[first].astype(tf.bfloat16.as_numpy_dtype)}))
    elif name == 'no checkpoint':
      (folder / 'checkpoint').unlink()
    elif name == 'cut short':
      data, = folder.glob('*.data-*')
      os.truncate(data, 100)
    elif name == 'wrong bytes':
      data, = folder.glob('*.data-*')
      data.write_bytes(bytes(data.stat().st_size))
    elif name == 'no gin':
      gin_file.unlink()
    elif name == 'no model':
      gin_file.write_text('d_model = ')
    elif name == 'another layer':
      gin_file.write_text(gin_file.read_text().replace(
          '@transformer_layers.DenseReluDense', '@transformer_layers.ConvLayer'
      ).replace('@mesh_tensorflow.transformer.transformer_layers.DenseReluDense',
                '@transformer_layers.ParallelLayer'))
    elif name == 'vocabulary':
      (folder / 'record.json').write_text(json.dumps({'starts': [{
          'vocabulary': {'path': '/no', 'sha256': 'abc', 'size': 350}}]}))
    elif name == 'out exists':
      (folder / 'out').mkdir()
      (folder / 'out' / 'kept').touch()
    elif name == 'no torch':
      monkeypatch.setitem(sys.modules, 'torch', None)
    elif name == 'disk full':
      def full(*unused_args, **unused_kwargs):
        raise OSError(28, 'No space left on device')
      monkeypatch.setattr(shutil, 'copyfile', full)
  return breaks


@pytest.mark.parametrize('name, message', [
    ('missing', 'encoder/block_000/layer_000/LightConv/wi in DIR/model.ckpt-7 '
     'is missing: expected shape [16, 16]'),
    ('reshaped', 'encoder/block_000/layer_000/LightConv/wi in DIR/model.ckpt-7 '
     'has shape [3, 16]: expected shape [16, 16]'),
    ('unknown', 'DIR/model.ckpt-7 has a variable x, which its model does not'),
    ('mixed', 'DIR/model.ckpt-7 has variables of bfloat16 and float32: '),
    ('no checkpoint', 'DIR holds no checkpoint: expected a folder with '),
    ('cut short', 'checkpoint: DIR/model.ckpt-7.data-* is cut short (100 of '),
    ('wrong bytes', 'checkpoint: DIR/model.ckpt-7.data-* cannot be read'),
    ('no gin', 'DIR/model.ckpt-7 has no operative_config.gin and no variable '
     'encoder/block_000/layer_000/SelfAttention/relative_attention_bias, '),
    ('no model', 'DIR/operative_config.gin describes no encoder-decoder: '),
    ('another layer', 'DIR/operative_config.gin: encoder/block_000/layer_001/'
     'ParallelLayer has no PyTorch twin: expected one of LightConv, '),
    ('vocabulary', 'DIR was trained with the vocabulary /no (sha256 abc), '),
    ('out exists', 'DIR/out must be a new or an empty folder of this machine'),
    ('no torch', "no package torch: pip install 'mtf_conv[torch]' brings "),
    ('disk full', 'DIR/out cannot be written: [Errno 28] No space left'),
])
def test_what_is_wrong_is_told_in_one_line(
    name, message, made, tmp_path, monkeypatch, capsys):
  folder = tmp_path / 'in'
  shutil.copytree(made('lightconv')[0], folder)
  _break(name)(folder, monkeypatch)
  before = sorted(folder.rglob('*'))
  _fails(['--to=hf', str(folder), str(folder / 'out')],
         message.replace('DIR', str(folder)), monkeypatch, capsys)
  assert sorted(folder.rglob('*')) == before


def _fails(args, message, monkeypatch, capsys):
  monkeypatch.setattr(command_line, 'quiet', lambda: None)
  capsys.readouterr()
  assert cli.main(['mtf_conv', 'convert', *args]) == 1
  shown = capsys.readouterr()
  assert not shown.out
  assert shown.err.startswith(f'mtf_conv convert: {message}')
  assert shown.err.count('\n') == 1


@pytest.mark.parametrize('name, message', [
    ('no config', "DIR is no folder of Hugging Face's: config.json: "),
    ('bert', "DIR holds a 'bert': expected one of ['mtf_conv', 't5']"),
    ('no gin', 'DIR/operative_config.gin is missing: expected the one that '),
    ('cut short', 'DIR cannot be read: '),
    ('missing', 'DIR: missing keys: shared.weight'),
    ('resized', 'DIR has 351 embeddings: expected a multiple of 128, '),
])
def test_what_is_wrong_on_the_way_back_is_told_in_one_line(
    name, message, made, tmp_path, monkeypatch, capsys):
  folder = tmp_path / 'out'
  hugging_face.write(made('lightconv')[0], folder)
  config = folder / 'config.json'
  if name == 'no config':
    config.unlink()
  elif name == 'bert':
    config.write_text('{"model_type": "bert"}')
  elif name == 'no gin':
    (folder / 'operative_config.gin').unlink()
  elif name == 'cut short':
    os.truncate(folder / 'model.safetensors', 1000)
  elif name == 'missing':
    safetensors = pytest.importorskip('safetensors.torch')
    weights = safetensors.load_file(folder / 'model.safetensors')
    del weights['shared.weight']
    safetensors.save_file(weights, folder / 'model.safetensors',
                          {'format': 'pt'})
  elif name == 'resized':
    loaded = _load(folder)
    loaded.resize_token_embeddings(351)
    loaded.save_pretrained(folder)
  _fails(['--to=mtf', str(folder), str(tmp_path / 'back')],
         message.replace('DIR', str(folder)), monkeypatch, capsys)
  assert [path.name for path in tmp_path.iterdir()] == ['out']


PAGE = 'docs/pytorch.md'


def _run_block(language, text, namespace):
  """Runs a block of the page here, where all is imported."""
  if language == 'python':
    exec(compile(text, PAGE, 'exec'), namespace)
  for line in text.splitlines() if language == 'sh' else ():
    program, *words = shlex.split(line)
    if program == 'mtf_conv':
      assert cli.main([program, *words]) == 0
    else:
      assert program == 'python'
      with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', words)
        runpy.run_path(words[0], run_name='__main__')


def test_the_page_does_what_it_says(made, tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(command_line, 'quiet', lambda: None)
  monkeypatch.chdir(tmp_path)
  shutil.copytree(made('lightconv')[0], 'runs/demo')
  (tmp_path / 'questions.tsv').write_text(''.join(
      f'what is {word}\tba\n' for word in tiny_vocabulary.words(40)))
  namespace = {}
  for heading in ('Out of Mesh TensorFlow', 'Load and decode', 'Train on',
                  'Back into Mesh TensorFlow'):
    found = pages.blocks(PAGE, heading)
    assert found
    paths = pages.write_files(found, '.')
    for language, text in found:
      if not any(text.startswith(f'# {path}') for path in paths):
        _run_block(language, text, namespace)
  assert len(namespace['answers']) == 2
  tuned = _load('demo_tuned')
  loaded = namespace['tokenizer']
  answers = tuned.generate(**loaded(['what is koro'], return_tensors='pt'))
  assert loaded.batch_decode(answers, skip_special_tokens=True) == ['ba']
  np.testing.assert_array_equal(
      _read('runs/tuned')['shared/embedding'],
      tuned.shared.weight.detach().numpy())
  # The table of names, held against the rule.
  scopes = tuned.config.mtf['scopes']
  rows = re.findall(r'^\| `(\w+\..*\.?\w+)` \| `(.*)` \|$',
                    (pages.ROOT / PAGE).read_text(), re.M)
  assert len(rows) == 8
  for parameter, variable in rows:
    assert names.of_variable(
        parameter, scopes, ('rms_norm', 'rms_norm'))[0] == variable
