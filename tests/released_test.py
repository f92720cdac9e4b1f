"""The release's block: checkpoints load, and decoding agrees with training."""

import mesh_tensorflow as mtf
import mtf_harness as harness
import numpy as np
import pytest
import stock_release as stock
import tensorflow.compat.v1 as tf

from mtf_conv import released
from mtf_conv.base import errors, gin_files
from mtf_conv.release import released_checkpoint

BLOCK = 'mtf_conv.released.LocalConvAttnBlock'
TYPES = ['lightweight_conv', 'dynamic_conv']


def _model(folder, mesh_shape=''):
  """The model that the shapes in a checkpoint tell."""
  return harness.Model(
      [], [released_checkpoint.gin_bindings(folder, num_heads=4)], mesh_shape)


# Loading.


@pytest.mark.parametrize('attention_type, repeats', [
    ('lightweight_conv', 1), ('dynamic_conv', 4), *(
        pytest.param(*case, marks=pytest.mark.slow)
        for case in (('dynamic_conv', 1), ('lightweight_conv', 2)))])
def test_a_stock_checkpoint_gives_the_stock_logits(
    attention_type, repeats):
  trained = stock.trained(attention_type, repeats)
  with _model(trained.folder) as m:
    logits = stock.logits(m)
    # None left over, none under another name.
    assert released_checkpoint.Checkpoint(trained.folder, 4).shapes() == {
        v.name: tuple(v.shape.to_integer_list)
        for v in m.graph.trainable_variables}
    logits, = m.run([logits], trained.weights)
  assert np.abs(trained.logits).max() > 0.5, 'the logits say something'
  np.testing.assert_allclose(logits, trained.logits, rtol=0, atol=1e-5)


def test_master_dtypes_are_those_of_the_stock_block():
  masters = []
  for model in (stock.model('dynamic_conv'),
                _model(stock.trained('dynamic_conv').folder)):
    model.variable_dtype = mtf.VariableDType(
        tf.bfloat16, tf.float32, tf.float32)
    with model as m:
      stock.logits(m)
      masters.append({
          v.name: v.master_dtype for v in m.graph.trainable_variables})
  assert masters[0] == masters[1]
  assert set(masters[1].values()) == {tf.bfloat16, tf.float32}


@pytest.mark.parametrize('options', [
    dict(pointwise=False), dict(attention_type='dynamic_conv', use_bias=False)])
def test_shapes_tell_what_the_public_code_has_not(options, tmp_path):
  bindings = ['num_layers = 1', 'd_kv = 6', 'Unitransformer.max_length = 24',
              f'encoder/{BLOCK}.max_relative_pos = 3']
  bindings += [f'{BLOCK}.{name} = {v!r}' for name, v in options.items()]
  with harness.Model(['models/released/block.gin'], bindings) as m:
    logits, = m.run([stock.logits(m)])
    weights = m.weights
  stock.save(tmp_path, weights)
  with _model(tmp_path) as m:
    found, = m.run([stock.logits(m)], weights)
  np.testing.assert_allclose(found, logits, rtol=0, atol=1e-6)


@pytest.mark.parametrize('name, parameters', [
    ('lconv.small', 60854272), ('lconv.base', 223554048),
    ('lconv.large', 738879488), ('dconv.small', 89165824),
    ('dconv.base', 350956032), ('dconv.large', 1191864320)])
def test_sizes_are_those_of_the_release(name, parameters):
  path = f'models/released/{name}.gin'
  with open(f'{gin_files.gin_folder()}/{path}') as f:
    assert f'\n# {parameters:,} parameters.\n' in f.read()
  assert harness.count_parameters(path, 32128) == parameters


def test_the_operative_config_tells_num_heads(tmp_path):
  stock.save(tmp_path, stock.trained('lightweight_conv').weights)
  (tmp_path / 'operative_config.gin').write_text(
      'd_kv = 2\nnum_heads = 8\nSelfAttention.num_heads = %num_heads\n')
  checkpoint = released_checkpoint.Checkpoint(tmp_path)
  assert (checkpoint.num_heads, checkpoint.d_kv) == (8, 2)


# Decoding.


@pytest.mark.parametrize('attention_type, num_layers, prefix_lengths', [
    ('lightweight_conv', 2, (0, 4, 11)), ('dynamic_conv', 1, (1, 2, 9))])
def test_training_and_decoding_agree(
    attention_type, num_layers, prefix_lengths):
  # Longer than the window of 9.
  ids = stock.token_ids(5)
  with harness.Model(['models/released/block.gin'], [
      f'num_layers = {num_layers}',
      f'{BLOCK}.attention_type = {attention_type!r}']) as m:
    harness.check_three_ways(m, ids, prefix_lengths)


# As long as the window, with which the stock block stops at an error, and not.
@pytest.mark.parametrize('attention_type, decode_length', [
    ('lightweight_conv', 9), ('dynamic_conv', 12)])
def test_greedy_decoding_takes_the_best_token(
    attention_type, decode_length):
  trained = stock.trained(attention_type)
  harness.check_greedy(
      lambda: _model(trained.folder), stock.SOURCE, decode_length,
      trained.weights)


def test_beam_scores_are_those_of_the_training_pass():
  trained = stock.trained('lightweight_conv')
  harness.check_beams(
      lambda: _model(trained.folder), stock.SOURCE, weights=trained.weights)


# Packing and splitting, where the stock block leaks and splits nothing.


def test_packed_examples_do_not_see_each_other():
  trained = stock.trained('lightweight_conv')
  segments = np.array([[1] * 5 + [2] * 7] * stock.BATCH)
  source, targets = stock.token_ids(1), stock.token_ids(2)
  # The last target is eos in practice; mtf itself shifts it into B.
  in_a = np.arange(12) < 4
  with _model(trained.folder) as m:
    logits = [m.bitransformer.call_simple(
        m.ids(np.where(in_a, a, source)), m.ids(np.where(in_a, a, targets)),
        compute_loss=False, mode='eval', encoder_sequence_id=m.ids(segments),
        decoder_sequence_id=m.ids(segments))[0]
              for a in (stock.token_ids(3), stock.token_ids(4))]
    one, other = m.run(logits, trained.weights)
  assert np.abs(one[:, :5] - other[:, :5]).max() > 1e-2
  np.testing.assert_array_equal(one[:, 5:], other[:, 5:])


@pytest.mark.parametrize('attention_type', TYPES)
def test_a_split_over_heads_gives_the_same(attention_type):
  trained = stock.trained(attention_type)
  with _model(trained.folder, 'model:2') as m:
    logits = stock.logits(m)
    split = {v.name for v in m.graph.trainable_variables
             if 'heads' in v.shape.dimension_names}
    logits, = m.run([logits], trained.weights)
  np.testing.assert_allclose(logits, trained.logits, rtol=0, atol=1e-5)
  scope = 'encoder/block_000/layer_000/LocalConvAttnBlock'
  assert {f'{scope}/{released.VARIABLES[name]}'
          for name in ('wi', 'ws', 'pointwise', 'wo')} <= split


# Wrong input.


@pytest.mark.parametrize('arguments, message', [
    (dict(min_relative_pos=1), 'min_relative_pos (=1) must not be greater than '
     'max_relative_pos (=0)'),
    (dict(attention_type='dynamic'), "attention_type (='dynamic') must be one "
     "of ['lightweight_conv', 'dynamic_conv']; did you mean 'dynamic_conv'?"),
    (dict(activation='rellu'), "activation (='rellu') must be 'linear' or the "
     'name of a function of mesh_tensorflow'),
    (dict(num_filters=3), 'output_size (=16) must be a multiple of num_filters '
     '(=3)'),
])
def test_wrong_options_are_named(arguments, message):
  arguments = {'min_relative_pos': -8, 'max_relative_pos': 0,
               'output_size': 16, **arguments}
  with pytest.raises(errors.UserError) as error:
    released.LocalConvAttnBlock(**arguments)
  # gin adds lines.
  assert errors.user_message(error.value) == message


def test_a_decoder_that_sees_the_future_is_refused():
  with harness.Model(['models/released/block.gin'], [
      'num_layers = 1', f'decoder/{BLOCK}.max_relative_pos = 1']) as m:
    with pytest.raises(errors.UserError, match=(
        r'max_relative_pos \(=1\) must be 0 in a decoder')):
      stock.logits(m)


def _changed(change):
  weights = dict(stock.trained('lightweight_conv').weights)
  change(weights)
  return weights


_SCOPE = 'decoder/block_001/layer_000/LocalConvAttnBlock'
_ENCODER_FILTER = ('encoder/block_000/layer_000/LocalConvAttnBlock/'
                   'lightwt_depthwise_dense_0/kernel')


@pytest.mark.parametrize('change, message', [
    (lambda w: w.pop(f'{_SCOPE}/local_conv_inp_1/bias'),
     f'has no variable {_SCOPE}/local_conv_inp_1/bias: expected one of shape '
     '[16]'),
    (lambda w: w.update({f'{_SCOPE}/local_conv_inp_0/kernel': w[
        f'{_SCOPE}/local_conv_inp_0/kernel'][:8]}),
     f'{_SCOPE}/local_conv_inp_0/kernel in MODEL has shape [8, 16]: expected '
     '[16, 16]'),
    (lambda w: w.update({f'{_SCOPE}/local_conv_inp_2/kernel': np.zeros(3)}),
     f'has a variable {_SCOPE}/local_conv_inp_2/kernel, which '
     'LocalConvAttnBlock models do not have; did you mean'),
    (lambda w: w.pop('shared/embedding'),
     'has no variable shared/embedding: expected it'),
    (lambda w: w.update({'shared/embedding': np.zeros(16)}),
     'shared/embedding in MODEL has shape [16]: expected 2 dimensions'),
    (lambda w: w.update({_ENCODER_FILTER: np.zeros(5)}),
     f'{_ENCODER_FILTER} in MODEL has 5 filters: expected a number that '
     'divides 16'),
    (lambda w: w.update({'decoder/block_002/layer_000/rms_norm/scale':
                         np.zeros(16)}),
     'has a variable decoder/block_002/layer_000/rms_norm/scale, which'),
    (lambda w: [w.pop(name) for name in list(w) if 'lightwt' in name],
     'has no filters in encoder/block_000/layer_000/LocalConvAttnBlock: '
     'expected lightwt_depthwise_dense or dyn_conv_depthwise_dense_0/kernel'),
])
def test_a_checkpoint_of_another_model_is_refused(change, message, tmp_path):
  stock.save(tmp_path, _changed(change))
  with pytest.raises(errors.UserError) as error:
    released_checkpoint.Checkpoint(tmp_path, num_heads=4)
  prefix = str(tmp_path / 'model.ckpt-3')
  assert message in str(error.value).replace(prefix, 'MODEL')
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('num_heads, message', [
    (None, 'd_model (=16) of MODEL is not a multiple of 64, so that num_heads '
     'cannot be guessed: expected --num_heads'),
    (3, 'num_heads (=3) must divide the attention width (=16) of MODEL'),
    (0, 'num_heads (=0) must divide the attention width (=16) of MODEL')])
def test_num_heads_that_cannot_be(num_heads, message):
  folder = stock.trained('lightweight_conv').folder
  with pytest.raises(errors.UserError) as error:
    released_checkpoint.Checkpoint(folder, num_heads)
  assert str(error.value).replace(f'{folder}/model.ckpt-3', 'MODEL') == message


def test_no_checkpoint_is_said_so(tmp_path):
  for path in (tmp_path, tmp_path / 'model.ckpt-7'):
    with pytest.raises(errors.UserError) as error:
      released_checkpoint.Checkpoint(path)
    assert str(error.value).startswith(f'{path} holds no checkpoint: expected')
