"""What T5 reads and writes as text: whole, as text, one line an answer."""

import gin
import numpy as np
import pytest
import seqio
import tensorflow.compat.v1 as tf
import tiny_vocabulary
import trained_folder
from mesh_tensorflow.transformer import utils
from t5.models import mtf_model
from t5.models import utils as t5_utils

from mtf_conv import t5_patches, vocabulary
from mtf_conv.answer import trained
from mtf_conv.base import errors, gin_files
from mtf_conv.measure import models
from mtf_conv.model_dir import checkpoints, record

LINES = [' '.join(tiny_vocabulary.words(2, seed)) for seed in range(5)]


def test_files_are_written_whole_and_as_text(tmp_path):
  path = tmp_path / 'new' / 'out.txt'
  utils.write_lines_to_file([b'caf\xc3\xa9', 'two\nlines', 3], str(path))
  assert path.read_text() == 'café\ntwo lines\n3\n'

  def fails():
    yield 'first'
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    utils.write_lines_to_file(fails(), str(path))
  assert path.read_text() == 'café\ntwo lines\n3\n'
  utils.write_lines_to_file([], str(path))
  assert path.read_text() == ''
  t5_utils.write_lines_to_file([b'a', 'b'], str(path))
  assert path.read_text() == 'a\nb'
  assert [f.name for f in path.parent.iterdir()] == ['out.txt']


def test_files_are_read_as_they_are(tmp_path):
  path = tmp_path / 'in.txt'
  path.write_bytes('\ufeffone \r\n\n# two\n\n'.encode())
  assert utils.get_inputs_from_file(str(path)) == ['one', '', '# two', '']
  assert utils.get_inputs_from_file(str(path), ignore_comments=True) == [
      'one', '', '']
  path.write_bytes(b'')
  assert utils.get_inputs_from_file(str(path)) == []
  path.write_bytes(b'one\n\xe9\n')
  with pytest.raises(errors.UserError, match='in.txt:2: not UTF-8: byte 0xe9'):
    utils.get_inputs_from_file(str(path))
  with pytest.raises(errors.UserError, match='none: there is no such file'):
    utils.get_inputs_from_file(str(tmp_path / 'none'))


def test_inputs_that_are_cut_are_counted(capfd):
  vocabulary = seqio.ByteVocabulary()
  ids = utils.encode_inputs(
      ['abc', 'abcd', ''], vocabulary, 'bitransformer', 2, 4)
  assert ids.shape == (4, 4) and ids[0, 3] == 1 and ids[1, 3] not in (0, 1)
  assert '1 of 3 texts are longer than 4 tokens' in capfd.readouterr().err
  assert utils.encode_inputs(
      [], vocabulary, 'bitransformer', 2, 4).shape == (0, 4)
  assert not capfd.readouterr().err


def test_the_vocabulary_of_nothing_is_this_package_s():
  assert isinstance(t5_utils.get_vocabulary(), vocabulary.ConfiguredVocabulary)
  inputs, targets = t5_utils.get_vocabulary('demo_finetune')
  assert inputs is targets


@pytest.fixture
def model(tmp_path):
  """T5's model API on a trained folder, as a script makes it."""
  trained_folder.write(tmp_path / 'model', bindings=[
      'num_layers = 1', "utils.get_variable_dtype.master_dtype = 'float32'"])
  for folder in (tmp_path / 'in.txt', tmp_path / 'targets.txt'):
    folder.write_text('\n'.join(LINES))
  found = trained.load(str(tmp_path / 'model'))
  with tf.Graph().as_default():
    yield found.vocabulary, mtf_model.MtfModel(
        model_dir=str(tmp_path / 'model'), tpu=None, batch_size=4,
        sequence_length=trained_folder.LENGTHS)
  gin.clear_config()


def test_the_model_api_writes_text(model, tmp_path):
  vocabulary, model = model
  model.predict(str(tmp_path / 'in.txt'), str(tmp_path / 'out'),
                temperature=0.0, vocabulary=vocabulary)
  answers = (tmp_path / 'out-30').read_text().splitlines()
  assert len(answers) == 5 and not any(a.startswith("b'") for a in answers)
  scores, texts = model.score(
      str(tmp_path / 'in.txt'), str(tmp_path / 'targets.txt'),
      scores_file=str(tmp_path / 'out'), vocabulary=vocabulary)
  assert texts == LINES and np.all(np.array(scores) < 0)
  for name in ('scores', 'targets', 'lengths'):
    assert len((tmp_path / f'out.{name}').read_text().splitlines()) == 5
  assert (tmp_path / 'out.targets').read_text().splitlines() == LINES
  (tmp_path / 'in.txt').write_text('')
  model.predict(str(tmp_path / 'in.txt'), str(tmp_path / 'empty'),
                temperature=0.0, vocabulary=vocabulary)
  assert (tmp_path / 'empty-30').read_text() == ''


@pytest.mark.parametrize('model', ['lightconv', *(
    pytest.param(name, marks=pytest.mark.slow)
    for name in ('transformer', 'dynamicconv', 'dilatedconv'))])
def test_the_model_api_trains_with_progress_and_guards(model, tmp_path, capfd):
  models.parse([f'models/{model}.tiny.gin', 'hardware/cpu.gin'], [
      'num_layers = 1', *['filter_sizes = [7]'] * (model == 'dilatedconv')])

  def make(folder):
    return mtf_model.MtfModel(
        model_dir=str(tmp_path / folder), tpu=None, batch_size=8,
        sequence_length={'inputs': 32, 'targets': 16}, iterations_per_loop=1)

  try:
    make('pretrained').train('demo_finetune', 1)
    tuned = make('tuned')
    capfd.readouterr()
    tuned.finetune('demo_finetune', 2, str(tmp_path / 'pretrained'))
    said = capfd.readouterr().err
    assert 'variables are in it.' in said and '3/3' in said
    start, = record.read(str(tmp_path / 'tuned'))
    assert start['data'][0]['task'] == 'demo_finetune'
    tuned.eval('demo_finetune', checkpoint_steps=-1)
    assert (tmp_path / 'tuned' / 'validation_eval'
            / 'demo_finetune_3_predictions').exists()
    (tmp_path / 'in.txt').write_text('what is it\n\n')
    tuned.predict(str(tmp_path / 'in.txt'), str(tmp_path / 'out'),
                  temperature=0.0)
    assert len((tmp_path / 'out-3').read_text().splitlines()) == 2
    assert tuned.export(str(tmp_path / 'export'), temperature=0.0)
    checkpoints.write(str(tmp_path / 'pretrained' / 'model.ckpt-1'), [
        {'encoder/rms_norm/scale': np.full([64], np.nan, np.float32)}])
    with pytest.raises(errors.UserError, match='weights that are not numbers'):
      make('other').finetune('demo_finetune', 2, str(tmp_path / 'pretrained'))
  finally:
    gin.clear_config()


def test_perplexity_is_said(capfd):
  class Estimator:
    def evaluate(self, name=None):
      return {'loss': 1.0, 'neg_log_perplexity': -2.0, 'global_step': 7}

  utils_get = t5_patches._with_ids(lambda vocabulary, **_: Estimator())
  utils_get(vocabulary=None).evaluate(name='demo_validation_4')
  assert capfd.readouterr().err == (
      'demo_validation_4/neg_log_perplexity at step 7: -2.000\n')


@pytest.mark.parametrize('name', ['predict', 'score'])
def test_runs_bind_what_is_there(name):
  gin.clear_config()
  gin.add_config_file_search_path(gin_files.gin_folder())
  gin.parse_config_file(f'runs/{name}.gin')
  assert gin.query_parameter('utils.run.eval_checkpoint_step') == -1
