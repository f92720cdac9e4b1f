"""A checkpoint of the release, rewritten for the layers of this package."""

import forked
import mesh_tensorflow as mtf
import ml_dtypes
import mtf_harness as harness
import numpy as np
import pytest
import stock_release as stock
import tensorflow.compat.v1 as tf

from mtf_conv import cli
from mtf_conv.base import command_line, errors
from mtf_conv.release import convert, released_checkpoint

TO = {'lightweight_conv': 'lightconv', 'dynamic_conv': 'dynamicconv'}


def _read(folder):
  reader = tf.train.load_checkpoint(str(folder))
  return {name: reader.get_tensor(name)
          for name in reader.get_variable_to_shape_map()}


def _logits_after(m, first_ids):
  """Teacher-forced logits of decoders whose first input is each of these."""
  shared_params = m.bitransformer._shared_params(m.mesh, m.variable_dtype)
  source, targets = m.ids(stock.SOURCE), m.ids(stock.TARGETS)
  memory, _ = m.encoder.call_simple(
      source, None, compute_loss=False, mode='eval',
      sequence_id=mtf.minimum(source, 1), shared_params=shared_params)
  rename = mtf.layers.rename_length_to_memory_length
  return [m.decoder.call_simple(
      m.ids(np.insert(stock.TARGETS[:, :-1], 0, first_id, axis=1)), targets,
      compute_loss=False, mode='eval', sequence_id=mtf.minimum(targets, 1),
      encoder_output=rename(memory),
      encoder_sequence_id=rename(mtf.minimum(source, 1)),
      shared_params=shared_params)[0] for first_id in first_ids]


def _check(source_dir, out_dir, attention_type):
  """Converts, and checks the logits where the two models should agree."""
  convert.convert(source_dir, out_dir, TO[attention_type], num_heads=4)
  logits = []
  for gin_text, weights in (
      (released_checkpoint.gin_bindings(source_dir, num_heads=4),
       _read(source_dir)),
      ((out_dir / 'model.gin').read_text(), _read(out_dir))):
    with harness.Model([], [gin_text]) as m:
      tensors = _logits_after(m, [5, 0])
      shapes = {v.name: v.shape.to_integer_list
                for v in m.graph.trainable_variables}
      logits.append(m.run(tensors, weights))
  # The last model's variables are those of the new checkpoint, and no other.
  assert int(weights.pop('global_step')) == stock.STEPS
  assert shapes == {name: list(w.shape) for name, w in weights.items()}
  assert {w.dtype for w in weights.values()} == {np.dtype('float32')}
  (after_5, after_0), (new_after_5, new_after_0) = logits
  assert np.abs(after_5).max() > 0.1, 'the logits say something'
  np.testing.assert_allclose(new_after_5, after_5, rtol=0, atol=1e-5)
  # What could not be kept: that the first position of a decoder adds nothing.
  assert np.abs(new_after_0 - after_0).max() > 1e-2


@pytest.mark.parametrize('attention_type, repeats', [
    ('lightweight_conv', 1), ('dynamic_conv', 4), *(
        pytest.param(*case, marks=pytest.mark.slow)
        for case in (('dynamic_conv', 1), ('lightweight_conv', 2)))])
def test_a_converted_model_gives_the_same_logits(
    attention_type, repeats, tmp_path):
  _check(stock.trained(attention_type, repeats).folder, tmp_path / 'out',
         attention_type)


@pytest.mark.parametrize('attention_type, options', [
    ('lightweight_conv', dict(pointwise=False)),
    ('dynamic_conv', dict(use_bias=False, num_filters=8))])
def test_blocks_without_a_part(attention_type, options, tmp_path):
  block = 'mtf_conv.released.LocalConvAttnBlock'
  options['attention_type'] = attention_type
  with harness.Model(['models/released/block.gin'], ['num_layers = 1'] + [
      f'{block}.{name} = {value!r}' for name, value in options.items()]) as m:
    m.run([stock.logits(m)])
    (tmp_path / 'in').mkdir()
    stock.save(tmp_path / 'in', m.weights)
  _check(tmp_path / 'in', tmp_path / 'out', attention_type)


def test_a_converted_model_decodes_as_it_scores(tmp_path):
  out_dir = tmp_path / 'out'
  convert.convert(stock.trained('dynamic_conv').folder, out_dir, 'dynamicconv',
                  num_heads=4)
  gin_text = (out_dir / 'model.gin').read_text()
  harness.check_greedy(lambda: harness.Model([], [gin_text]), stock.SOURCE,
                       stock.LENGTH, _read(out_dir))


def test_from_the_main_of_t5_to_the_main_of_t5(tmp_path):
  """As a user: stock layer trained, converted and scored by commands."""
  def run(program, *args):
    result = forked.run(program, *args, cwd=tmp_path)
    assert result.returncode == 0, result.stdout
    return result.stdout

  def t5_main(model_dir, *gin_files, bindings=()):
    return run('t5_mesh_conv', f'--model_dir={model_dir}',
               *(f'--gin_file={f}' for f in [*gin_files, 'hardware/cpu.gin']),
               *(f'--gin_param={b}' for b in bindings))

  t5_main('in', 'models/bi_bert_base.gin', 'objectives/span_3_15.gin',
          'runs/demo_pretrain.gin', bindings=[
              *harness.TINY, *stock.bindings('lightweight_conv', half=1),
              'utils.run.train_steps = 2',
              "utils.run.batch_size = ('sequences_per_batch', 4)"])
  # The heads come from the operative_config.gin that T5 has written.
  converted = run('mtf_conv', 'convert', '--to=lightconv', 'in', 'out')
  assert converted.endswith('--gin_file=out/model.gin\n')
  assert [line.split()[0] for line in converted.splitlines()] == [
      'Not', 'Not', 'Assumed:', 'Not', 'Wrote']
  # T5 stops where a variable is not in the checkpoint.
  scored = t5_main(tmp_path / 'out', 'out/model.gin', 'runs/eval.gin',
                   bindings=["MIXTURE_NAME = 'demo_finetune'",
                             'DECODE_LENGTH = 2'])
  assert 'eval/demo_finetune/accuracy at step 2: ' in scored


def test_says_what_it_could_not_keep(tmp_path, capsys):
  """By the command line, of a checkpoint in bfloat16 as T5 writes them."""
  (tmp_path / 'in').mkdir()
  stock.save(tmp_path / 'in', {
      name: value if 'separable' in name or name == 'global_step'
      else value.astype(ml_dtypes.bfloat16)
      for name, value in stock.trained('lightweight_conv').weights.items()})
  assert cli.main(['mtf_conv', 'convert', '--to=lightconv', '--num_heads=4',
                   str(tmp_path / 'in'), str(tmp_path / 'out')]) == 0
  said = capsys.readouterr().out
  for words in ('first position of every decoder', 'optimizer', 'bfloat16',
                'windows of -4..4 in the encoder and -8..0 in the decoder'):
    assert words in said
    assert words in (tmp_path / 'out' / 'model.gin').read_text()
  weights = _read(tmp_path / 'out')
  assert int(weights.pop('global_step')) == 3
  assert {w.dtype for w in weights.values()} == {np.dtype(ml_dtypes.bfloat16)}


def test_describes_a_checkpoint(capsys):
  folder = stock.trained('dynamic_conv').folder
  assert cli.main(['mtf_conv', 'convert', '--describe', '--num_heads=4',
                   folder]) == 0
  assert capsys.readouterr().out == released_checkpoint.gin_bindings(folder, 4)


# Wrong input.


@pytest.fixture
def source_dir(tmp_path):
  (tmp_path / 'in').mkdir()
  stock.save(tmp_path / 'in', stock.trained('lightweight_conv').weights)
  return tmp_path / 'in'


def _refused(source_dir, to='lightconv', out='out'):
  """The message with which it is refused; checks that nothing is written."""
  before = sorted(source_dir.parent.rglob('*'))
  if '://' not in str(out):
    out = source_dir.parent / out
  with pytest.raises(errors.UserError) as error:
    convert.convert(source_dir, out, to, num_heads=4)
  assert sorted(source_dir.parent.rglob('*')) == before
  assert '\n' not in str(error.value)
  return str(error.value).replace(str(source_dir.parent), 'DIR')


def test_the_other_kind_is_refused(source_dir):
  assert _refused(source_dir, to='dynamicconv') == (
      'DIR/in/model.ckpt-3 holds lightweight_conv, which is not --to='
      'dynamicconv: expected --to=lightconv')


def test_an_output_folder_in_use_is_refused(source_dir):
  message = ' must be a new or an empty folder of this machine: nothing was '
  assert _refused(source_dir, out='in') == f'DIR/in{message}written'
  file = source_dir / 'checkpoint'
  assert _refused(source_dir, out=file) == f'DIR/in/checkpoint{message}written'
  assert _refused(source_dir, out='gs://b/out') == f'gs://b/out{message}written'


def test_an_output_folder_that_cannot_be_is_refused(source_dir):
  assert _refused(source_dir, out='in/checkpoint/out').startswith(
      'DIR/in/checkpoint/out cannot be written: [Errno ')


@pytest.mark.parametrize('part', ['data-00000-of-00001', 'index'])
@pytest.mark.parametrize('left', [0.0, 0.5, 0.99])
def test_a_checkpoint_cut_short_is_refused(part, left, source_dir):
  path = source_dir / f'model.ckpt-3.{part}'
  path.write_bytes(path.read_bytes()[:int(left * path.stat().st_size)])
  message = _refused(source_dir)
  assert message.startswith('DIR/in/model.ckpt-3 cannot be read')
  assert 'expected a complete checkpoint' in message


def test_a_damaged_checkpoint_is_refused(source_dir):
  path = source_dir / 'model.ckpt-3.data-00000-of-00001'
  data = bytearray(path.read_bytes())
  data[1000] ^= 1
  path.write_bytes(data)
  assert 'expected a complete checkpoint' in _refused(source_dir)


def test_a_missing_data_file_is_refused(source_dir):
  (source_dir / 'model.ckpt-3.data-00000-of-00001').unlink()
  assert 'expected a complete checkpoint' in _refused(source_dir)


def test_an_empty_output_folder_is_filled(source_dir):
  (source_dir.parent / 'out').mkdir()
  convert.convert(source_dir / 'model.ckpt-3', source_dir.parent / 'out',
                  'lightconv', num_heads=4)
  written = {path.name for path in (source_dir.parent / 'out').iterdir()}
  # One data file for each of the four blocks, and one for the rest.
  assert written == {'checkpoint', 'model.gin', 'model.ckpt-3.index'} | {
      f'model.ckpt-3.data-0000{n}-of-00005' for n in range(5)}
  assert tf.train.latest_checkpoint(str(source_dir.parent / 'out')) == str(
      source_dir.parent / 'out' / 'model.ckpt-3')


@pytest.mark.parametrize('args, code, message', [
    (['--to=lightcov', 'in', 'out'], 2, "unknown --to 'lightcov': choose from "
     "lightconv, dynamicconv, hf, mtf; did you mean 'lightconv'?"),
    (['--to=lightconv', 'in', 'out', '--head=4'], 2, "unknown flag '--head'"),
    (['--to=lightconv', 'in', 'out', '--num_heads=x'], 2,
     "argument --num_heads: invalid int value: 'x'"),
    (['--to=lightconv', 'in'], 2, 'give --to and out_dir, or --describe alone'),
    (['in', 'out'], 2, 'give --to and out_dir, or --describe alone'),
    (['--describe', 'in', 'out'], 2,
     'give --to and out_dir, or --describe alone'),
    ([], 2, 'the following arguments are required: checkpoint'),
    (['--to=lightconv', 'in', 'out'], 1, 'in holds no checkpoint: expected a '),
    (['--describe', 'in/model.ckpt-7'], 1, 'in/model.ckpt-7 holds no '),
])
def test_a_wrong_command_is_told_in_one_line(
    args, code, message, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(command_line, 'quiet', lambda: None)
  try:
    found = cli.main(['mtf_conv', 'convert', *args])
  except SystemExit as error:
    found = error.code
  assert found == code
  shown = capsys.readouterr()
  assert not shown.out
  assert shown.err.startswith(f'mtf_conv convert: {message}')
  assert shown.err.count('\n') == 1
  assert not list(tmp_path.iterdir())
