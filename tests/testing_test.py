"""check_mixer passes what is right, and names what is wrong with the rest."""

import math
import re

import gin
import mesh_tensorflow as mtf
import pytest
import tensorflow.compat.v1 as tf
from mesh_tensorflow.transformer import transformer, transformer_layers

from mtf_conv import cli, layers, mixer, released, testing
from mtf_conv.base import errors

SMALL = ['num_layers = 1']


def _failed(results):
  return {result.name: result for result in results if not result.passed}


# What is right.


@pytest.mark.parametrize('model, bindings', [
    pytest.param('transformer.tiny', SMALL, marks=pytest.mark.slow),
    ('lightconv.tiny', [
        *SMALL, 'mtf_conv.layers.LightConv.filter_size = 5']),
    ('dynamicconv.tiny', [
        *SMALL, 'mtf_conv.layers.DynamicConv.filter_size = 5']),
    ('dilatedconv.tiny', ['filter_sizes = [5, 5]'])])
def test_layers_have_all_properties(model, bindings):
  results = testing.check_mixer(model, bindings)
  assert [result.name for result in results] == [*testing.PROPERTIES]
  assert not _failed(results)
  difference = {result.name: result.difference for result in results}
  # The same bits, and rounding only.
  assert difference['causality'] == 0
  for name in ('packing', 'padding', 'incremental', 'prefixes'):
    assert difference[name] < 5e-6, name
  assert 1e-4 < difference['bfloat16'], 'it was computed in bfloat16'


# The window of 9 is that of the model file. Splits and beams: released_test.
@pytest.mark.parametrize('model', [
    'lconv.small', pytest.param('dconv.small', marks=pytest.mark.slow)])
def test_released_blocks_have_all_properties(model):
  names = [name for name in testing.PROPERTIES
           if name not in ('splits', 'beams')]
  results = testing.check_mixer(f'released/{model}', [
      *SMALL, 'num_heads = 2', 'Unitransformer.max_length = 16'], names)
  assert len(results) == 8
  assert not _failed(results)


# How they decode: layers_test.
@pytest.mark.parametrize('make', [
    lambda: layers.LightConv(4, 4, use_bias=True, pointwise=True),
    lambda: layers.DynamicConv(4, 4, use_bias=True, dilation_rate=2),
    lambda: layers.LightConv(4, 4, num_filters=None, gated=False)])
def test_options_change_no_property(make):
  results = testing.check_mixer(make, SMALL, [
      'causality', 'packing', 'padding', 'bfloat16', 'gradients'])
  assert len(results) == 5
  assert not _failed(results)


# With biases, what is padded with zeros is not 0 where a convolution reads it.
# Without them it is among all properties, above.
@pytest.mark.parametrize('use_bias', [
    pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize('make', [
    lambda **options: layers.LightConv(4, 4, **options),
    lambda **options: layers.DynamicConv(4, 4, **options),
    lambda **options: layers.DilatedConv(4, 4, [7, 7], **options)])
def test_padding_says_nothing(make, use_bias):
  result, = testing.check_mixer(
      lambda: make(use_bias=use_bias), properties=['padding'])
  assert result.passed
  assert result.difference < 2e-6


# What is wrong. Each class is right but for one thing.


class Decay(mixer.GatedMixer):
  """Weights fall by half with each position of distance."""

  def mix(self, context, x):
    memory = mtf.Dimension('memory_length', context.length_dim.size)
    weights = self.weights(context, memory) * self.readable(context, memory)
    x = mtf.rename_dimension(x, 'length', 'memory_length')
    return mtf.einsum(
        [x, weights], output_shape=mtf.Shape(
            [d for d in x.shape.dims[:-3]] +
            [context.length_dim, *self.inner_dims]))

  def weights(self, context, memory):
    position = mtf.range(context.mesh, context.length_dim, tf.int32)
    distance = mtf.abs(
        position - mtf.rename_dimension(position, 'length', memory.name))
    return mtf.exp(
        math.log(0.5) * mtf.cast(distance, context.activation_dtype))

  def readable(self, context, memory):
    return mixer.readable(context, memory)

  def mix_step(self, context, x, state):
    window, state = self.slide(x, state)
    dim = window.shape.get_dim_by_name('history')
    distance = dim.size - 1 - mtf.range(context.mesh, dim, tf.int32)
    weights = mtf.exp(math.log(self.base()) * mtf.cast(distance, x.dtype))
    return mtf.einsum([window, weights], output_shape=x.shape), state

  def base(self):
    return 0.5


class Leaking(Decay):
  """Sees other packed examples, and padding."""

  def readable(self, context, memory):
    position = mtf.range(context.mesh, context.length_dim, tf.int32)
    other = mtf.rename_dimension(position, 'length', memory.name)
    if not context.model.autoregressive:
      return mtf.ones(context.mesh, mtf.Shape([context.length_dim, memory]))
    return mtf.cast(mtf.greater_equal(position, other), tf.float32)


class ByPositionInRow(Decay):
  """Sees nothing of another example, but where in the row it is itself."""

  def mix(self, context, x):
    position = mtf.range(context.mesh, context.length_dim, tf.int32)
    return super().mix(context, x * mtf.cast(position, x.dtype))


class NotCausal(Decay):
  """Reads one position of the future in the decoder."""

  def mix(self, context, x):
    return super().mix(context, x) + mtf.shift(
        x, -1, context.length_dim, wrap=False)


class AnotherStep(Decay):
  """Its step weighs the past in another way."""

  def base(self):
    return 0.6


class ForgetsPrefixes(Decay):
  """Its first step does not know what stood before it."""

  def initial_state(self, context, x):
    return mtf.zeros_like(super().initial_state(context, x))


class AnotherFirstPart(Decay):
  """Computes something else in first_part."""

  def mix(self, context, x):
    y = super().mix(context, x)
    return y * 2 if context.mode == 'first_part' else y


class KnowsNoBeams(Decay):
  """Its step takes x to be [batch, heads, d_kv]."""

  def mix_step(self, context, x, state):
    batch_dim, *_ = x.shape.dims
    x = mtf.reshape(x, [batch_dim, *self.inner_dims])
    return super().mix_step(context, x, state)


class SplitsWrong(Decay):
  """Adds up the heads of each processor, and not of all."""

  def mix(self, context, x):
    return self.sum_of_heads(super().mix(context, x))

  def sum_of_heads(self, x):
    return mtf.slicewise(
        lambda heads: heads + tf.reduce_sum(heads, -2, keepdims=True), [x],
        x.shape, x.dtype, splittable_dims=x.shape.dims,
        grad_function=lambda op, dy: [self.sum_of_heads(dy)])


class OnlyFloat32(Decay):
  """Does not take bfloat16."""

  def weights(self, context, memory):
    return mtf.cast(super().weights(context, memory), tf.float32)


class WrongGradient(Decay):
  """Half of it has no gradient."""

  def mix(self, context, x):
    return (super().mix(context, x) + mtf.stop_gradient(x)) * 0.5


class AverageOfNothing(Decay):
  """Divides by the number of positions to read, which is 0 in padding."""

  def mix(self, context, x):
    memory = mtf.Dimension('memory_length', context.length_dim.size)
    count = mtf.reduce_sum(self.readable(context, memory), reduced_dim=memory)
    return super().mix(context, x) / count


class NoDecoding(transformer.TransformerLayer):
  """A layer of its own kind, of which nobody thought that it has to decode."""

  def call(self, context, x, losses=None):
    return mtf.layers.dense(
        x * mtf.cast(mtf.range(context.mesh, context.length_dim, tf.int32),
                     x.dtype) / x.shape.get_dim_by_name('length').size,
        x.shape.dims[-1:], variable_dtype=context.variable_dtype, name='dense')


@pytest.mark.parametrize('layer, property_names, fails', [
    (Leaking, 'causality packing padding', 'packing'),
    # T5 sets padding to 0 before each layer: it takes a bias to be read.
    (lambda: Leaking(4, 4, use_bias=True), 'packing padding',
     'packing padding'),
    (ByPositionInRow, 'causality packing padding', 'packing'),
    (NotCausal, 'causality gradients', 'causality'),
    (AnotherStep, 'first_part incremental prefixes', 'incremental prefixes'),
    (ForgetsPrefixes, 'first_part incremental prefixes', 'prefixes'),
    (AnotherFirstPart, 'first_part incremental causality', 'first_part'),
    (KnowsNoBeams, 'incremental beams', 'beams'),
    (SplitsWrong, 'causality splits gradients', 'splits'),
    (OnlyFloat32, 'causality bfloat16', 'bfloat16'),
    (WrongGradient, 'packing gradients', 'gradients'),
    (AverageOfNothing, 'causality padding', 'padding')])
def test_a_broken_mixer_fails_by_name(layer, property_names, fails):
  results = testing.check_mixer(layer, SMALL, property_names.split())
  failed = _failed(results)
  assert [*failed] == fails.split()
  for name, result in failed.items():
    if result.difference is not None:
      assert result.detail == testing.PROPERTIES[name].fails


def test_the_mixer_that_is_broken_in_many_ways_is_right():
  assert not _failed(testing.check_mixer(Decay, SMALL))


def test_a_layer_without_decoding_fails_where_it_decodes():
  results = testing.check_mixer(
      NoDecoding, SMALL, ['causality', 'incremental', 'prefixes', 'beams'])
  failed = _failed(results)
  assert [*failed] == ['incremental', 'prefixes', 'beams']
  assert all(result.detail for result in failed.values())


def test_the_block_of_mesh_tensorflow_fails_where_it_is_known_to():
  """See released.py: what our block does otherwise, on purpose."""
  def make():
    return transformer_layers.LocalConvAttnBlock(
        -2, 0, 16, attention_type='lightweight_conv')
  results = testing.check_mixer(
      make, SMALL, ['causality', 'packing', 'incremental', 'gradients'])
  assert [*_failed(results)] == ['packing', 'incremental']


# Wrong input: one line, and nothing is computed.


class NoStep(mixer.GatedMixer):
  def mix(self, context, x):
    return x


class NoMix(mixer.GatedMixer):
  def mix_step(self, context, x, state):
    return x, state


@pytest.mark.parametrize('subject, message', [
    (NoStep, "NoStep has no method 'mix_step': a mixer needs 'mix' for "
     "training and 'mix_step' for decoding"),
    (NoMix, "NoMix has no method 'mix': a mixer needs"),
    (dict, 'dict is no layer: a mixer must be a mesh_tensorflow '
     'transformer.TransformerLayer'),
    (3, 'mixer (=3) must be a model, a class of layers or a function that '
     'returns a layer'),
    ('lightconf.tiny', "unknown model 'lightconf.tiny': mtf_conv list models "
     "names them all; did you mean 'lightconv.tiny'?"),
    (lambda: layers.LightConv(4, 4, num_filters=3),
     'num_heads (=4) must be a multiple of num_filters (=3)'),
    (lambda: released.LocalConvAttnBlock(-2, 1, 16),
     'max_relative_pos (=1) must be 0 in a decoder')])
def test_what_cannot_be_built_is_told_in_one_line(subject, message):
  with pytest.raises(errors.UserError) as error:
    testing.check_mixer(subject)
  assert str(error.value).startswith(message)
  assert '\n' not in str(error.value)


def test_an_unknown_property_is_told():
  with pytest.raises(errors.UserError) as error:
    testing.check_mixer('lightconv', properties=['causal'])
  assert "unknown property 'causal'" in str(error.value)
  assert str(error.value).endswith("; did you mean 'causality'?")


@gin.configurable(module='testing_test')
class Gin(Decay):
  pass


@gin.configurable(module='testing_test')
class NoLayer:
  pass


HEADS = ['testing_test.Gin.num_heads = %num_heads',
         'testing_test.Gin.d_kv = %d_kv']


@pytest.mark.parametrize('lines, message', [
    (['mixer = @testing_test.Gin', HEADS[1]],
     'No gin file binds num_heads of Gin: expected a line such as '
     'Gin.num_heads = %num_heads'),
    (['mixer = @testing_test.NoLayer'], 'NoLayer is no layer: expected a '
     "subclass of mesh_tensorflow's transformer.TransformerLayer, for a mixer "
     'one of mtf_conv.mixer.GatedMixer'),
    (['mixer = 3'], 'int is no layer: expected a subclass'),
    (['mixer = @testing_test.Gim'],
     "Unknown gin configurable 'testing_test.Gim' (MODEL:4); did you mean "
     "'testing_test.Gin'?"),
    (['import no_such_module'],
     "Unknown module 'no_such_module' (MODEL:4): it must be installed, or its "
     'folder in PYTHONPATH'),
    ([], 'No gin file binds the macro mixer: expected a line mixer = ...')])
def test_wrong_gin_is_told_in_one_line(lines, message, tmp_path):
  path = tmp_path / 'my.gin'
  path.write_text('\n'.join([
      "include 'models/transformer.tiny.gin'", "include 'models/mixer.gin'", '',
      *lines]) + '\n')
  with pytest.raises(errors.UserError) as error:
    testing.check_mixer(str(path))
  found = str(error.value).replace(str(path), 'MODEL')
  assert found.startswith(message)
  assert '\n' not in found


def test_a_folder_that_gin_takes_for_a_package_is_told(tmp_path, monkeypatch):
  (tmp_path / 'models').mkdir()
  monkeypatch.syspath_prepend(tmp_path)
  with pytest.raises(errors.UserError) as error:
    testing.check_mixer('lightconv.tiny')
  assert str(error.value) == (
      f'gin takes {tmp_path}/models for a Python package: a folder of gin '
      'files must not be in PYTHONPATH')


# The verb.


@gin.configurable(module='testing_test')
class GinNotCausal(NotCausal):
  pass


def _check(folder, layer):
  """Runs the verb on a gin file, which is in a temporary folder."""
  path = folder / 'my.gin'
  path.write_text('\n'.join([
      "include 'models/transformer.tiny.gin'", "include 'models/mixer.gin'",
      f'mixer = @testing_test.{layer}',
      f'testing_test.{layer}.num_heads = %num_heads',
      f'testing_test.{layer}.d_kv = %d_kv']) + '\n')
  return cli.main([
      'mtf_conv', 'check', str(path), '--module_import=testing_test',
      '--gin_param=num_layers = 1'])


@pytest.mark.slow  # extend_test has it print that all is right.
def test_the_verb_prints_a_line_for_each_property(tmp_path, capsys):
  assert _check(tmp_path, 'Gin') == 0
  head, *lines, last = capsys.readouterr().out.splitlines()
  assert head.split()[:3] == ['property', 'result', 'difference']
  assert [line.split()[:2] for line in lines] == [
      [name, 'ok'] for name in testing.PROPERTIES]
  assert last == f'{tmp_path}/my.gin has all {len(lines)} properties.'


def test_the_verb_fails_by_name(tmp_path, capsys):
  assert _check(tmp_path, 'GinNotCausal') == 1
  out = capsys.readouterr().out
  assert re.search(r'^causality +FAILED +\S+ +1e-05  a position of the decoder '
                   'reads the future$', out, re.M)
  assert re.search(r'^splits +ok ', out, re.M)
  assert re.search(r'my.gin fails causality, .*\.$', out)


def test_the_verb_names_a_module_that_is_not_there(capsys):
  assert cli.main(
      ['mtf_conv', 'check', 'lightconv', '--module_import=longconf']) == 1
  assert capsys.readouterr().err == (
      "mtf_conv check: --module_import: no module 'longconf': "
      'put its folder into PYTHONPATH\n')
