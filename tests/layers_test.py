"""The layers: one logit however it is computed, no leaks, exact splits."""

import conv_reference as reference
import mesh_tensorflow as mtf
import ml_dtypes
import mtf_harness as harness
import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from mesh_tensorflow.transformer import transformer
from tensorflow.python.compiler.xla import xla

from mtf_conv import layers

MODELS = ['lightconv', 'dynamicconv', 'dilatedconv']
CLASSES = dict(zip(MODELS, ['LightConv', 'DynamicConv', 'DilatedConv']))
BATCH, LENGTH = 3, 9
BASE = ['d_model = 768', 'd_ff = 3072', 'num_heads = 12', 'd_kv = 64']


def _bindings(model, num_layers=2, filter_size=4, dilation_rate=1, **options):
  """gin bindings of a tiny model whose layers all have the same filters."""
  name = f'mtf_conv.layers.{CLASSES[model]}'
  bindings = [f'num_layers = {num_layers}']
  if model == 'dilatedconv':
    bindings += [f'filter_sizes = {[filter_size] * num_layers}',
                 f'{name}.dilation_rates = {[dilation_rate] * num_layers}']
  else:
    bindings += [f'{name}.filter_size = {filter_size}',
                 f'{name}.dilation_rate = {dilation_rate}']
  return bindings + [f'{name}.{k} = {v!r}' for k, v in options.items()]


def _model(model, mesh_shape='', layout=harness.LAYOUT, variable_dtype=None,
           **options):
  return harness.Model(
      [f'models/{model}.tiny.gin'], _bindings(model, **options), mesh_shape,
      layout, variable_dtype)


def _token_ids(seed=0, length=LENGTH):
  return np.random.RandomState(seed).randint(
      2, harness.VOCABULARY, (BATCH, length))


# The block against plain NumPy.


@pytest.mark.parametrize('model', ['lightconv', 'dynamicconv'])
@pytest.mark.parametrize('num_filters', [1, 2, 4])
@pytest.mark.parametrize('autoregressive', [False, True])
def test_block_is_section_3_2_1(model, num_filters, autoregressive):
  filter_size = 4
  x = np.random.RandomState(1).randn(BATCH, LENGTH, 16).astype('float32')
  with _model(model, filter_size=filter_size, num_filters=num_filters) as m:
    stack = m.decoder if autoregressive else m.encoder
    context = transformer.Context(
        model=stack, mesh=m.mesh, batch_dims=[mtf.Dimension('batch', BATCH)],
        length_dim=mtf.Dimension('length', LENGTH), mode='eval',
        variable_dtype=m.variable_dtype, losses=None)
    y, = m.run([stack.layer_stack.layers[0].call(
        context, m.tensor(x, 'batch', 'length', 'd_model'))])
    w = m.weights
  x1 = (x @ w['wi']) * reference.sigmoid(x @ w['ws'])
  x1 = x1.reshape(BATCH, LENGTH, 4, 4)
  if model == 'lightconv':
    filters = w['filters']
  else:
    filters = (x1.reshape(BATCH, LENGTH, 16) @ w['wq']).reshape(
        BATCH, LENGTH, num_filters, filter_size)
  # Equation 2: channel c of d takes filter c * H / d.
  filters = np.repeat(reference.softmax(filters), 4 // num_filters, axis=-2)
  x2 = reference.local_conv(
      x1, filters, reference.offsets(filter_size, 1, autoregressive))
  np.testing.assert_allclose(
      y, x2.reshape(BATCH, LENGTH, 16) @ w['wo'], atol=1e-5)


def test_plain_depthwise_is_equation_1():
  x = np.random.RandomState(1).randn(BATCH, LENGTH, 16).astype('float32')
  with _model('lightconv', filter_size=5, num_filters=None, softmax=False,
              gated=False) as m:
    context = transformer.Context(
        model=m.encoder, mesh=m.mesh,
        batch_dims=[mtf.Dimension('batch', BATCH)],
        length_dim=mtf.Dimension('length', LENGTH), mode='eval',
        variable_dtype=m.variable_dtype)
    y, = m.run([m.encoder.layer_stack.layers[0].call(
        context, m.tensor(x, 'batch', 'length', 'd_model'))])
    w = m.weights
  assert sorted(w) == ['filters', 'wi', 'wo']
  x1 = (x @ w['wi'])[..., None]
  x2 = reference.local_conv(
      x1, w['filters'].reshape(16, 5), reference.offsets(5))
  np.testing.assert_allclose(y, x2[..., 0] @ w['wo'], atol=1e-5)


# One logit, however it is computed.


# Decode length 9 is longer than filters of 4, equal to 9, shorter than 31. The
# first input is 0 in T5, but for steps with a bos_id of their own.
@pytest.mark.parametrize('model', MODELS)
@pytest.mark.parametrize('filter_size, dilation_rate, num_layers', [
    (1, 1, 1), (2, 1, 3), (4, 1, 2), (9, 1, 2), (31, 1, 1), (3, 2, 2),
    (4, 4, 1)])
def test_training_and_decoding_agree(
    model, filter_size, dilation_rate, num_layers):
  ids = _token_ids(LENGTH)
  with _model(model, num_layers=num_layers, filter_size=filter_size,
              dilation_rate=dilation_rate) as m:
    harness.check_three_ways(
        m, np.tile(ids, (2, 1)), [0] * 2 * BATCH, [0] * BATCH + [5] * BATCH)


@pytest.mark.parametrize('model', MODELS)
@pytest.mark.parametrize('filter_size, dilation_rate', [(4, 1), (3, 3)])
def test_prefixes_of_every_length_agree(model, filter_size, dilation_rate):
  prefix_lengths = [*range(1, LENGTH), LENGTH - 1]
  with _model(model, filter_size=filter_size,
              dilation_rate=dilation_rate) as m:
    harness.check_three_ways(
        m, np.tile(_token_ids(LENGTH), (3, 1)), prefix_lengths)


@pytest.mark.parametrize('options', [
    dict(pointwise=True, use_bias=True), dict(gated=False),
    dict(softmax=False), dict(num_filters=4)])
@pytest.mark.parametrize('model', ['lightconv', 'dynamicconv'])
def test_options_agree_in_decoding(model, options):
  with _model(model, **options) as m:
    harness.check_three_ways(m, _token_ids(LENGTH), [0, 1, 4])


# Decode lengths shorter than, equal to and longer than the filter of 7.
@pytest.mark.parametrize('model', MODELS)
@pytest.mark.parametrize('decode_length, num_layers, options', [
    (5, 1, {}), (7, 2, {}), (12, 1, {}),
    (7, 1, dict(temperature=1.0, sampling_keep_top_k=1))])
def test_decoding_takes_the_best_token_of_the_training_pass(
    model, decode_length, num_layers, options):
  harness.check_greedy(
      lambda: _model(model, filter_size=7, num_layers=num_layers),
      _token_ids(3, 6), decode_length, **options)


def _decoding_step(model, length, **bindings):
  """What one step of the first layer of a base-size decoder takes.

  Returns:
    (multiply-adds per sequence, shapes of the state without its batch).
  """
  multiply_adds = []
  for num_steps in (0, 1):
    with harness.Model([f'models/{model}.base.gin'], [
        *BASE, *(f'mtf_conv.layers.{CLASSES[model]}.{name} = {value}'
                 for name, value in bindings.items())]) as m:
      layer = m.decoder.layer_stack.layers[0]
      length_dim = mtf.Dimension('length', length)
      positions = mtf.range(m.mesh, length_dim, tf.int32)
      start = m.tensor(np.full(BATCH, length - 1, np.int32), 'batch')
      context = harness.decoder_context(
          m, BATCH, 'first_part', positions, length_dim=length_dim,
          initial_position=start, read_priority=positions)
      x = np.zeros((BATCH, length, 768), 'float32')
      layer.call(context, m.tensor(x, 'batch', 'length', 'd_model'))
      states = context.new_states
      if num_steps:
        context = harness.decoder_context(
            m, BATCH, 'incremental', start, length_dim=length_dim,
            states=states, constant_states=context.constant_states,
            read_priority=start)
        with tf.variable_scope('', reuse=True):
          layer.call(context, m.tensor(x[:, 0], 'batch', 'd_model'))
      counters = harness.counters(harness.lower(m.graph, m.mesh))
      multiply_adds.append(counters['einsum'] / BATCH)
  return (multiply_adds[1] - multiply_adds[0],
          [s.shape.to_integer_list[1:] for s in states])


# Decoders shorter and longer than the widest window.
@pytest.mark.parametrize('length', [1, 16, 512])
def test_a_decoding_step_works_on_one_position(length):
  attention, _ = _decoding_step('transformer', length)
  for model, options, window in (
      ('lightconv', {}, 6), ('dynamicconv', {}, 6),
      ('lightconv', dict(filter_size=31, dilation_rate=2), 60),
      ('dynamicconv', dict(filter_size=31), 30), ('dilatedconv', {}, 3)):
    step, states = _decoding_step(model, length, **options)
    assert states == [[window, 12, 64]]
    assert 3 * 768**2 < step <= attention


# Packing and padding.


def _loss_gradients(m, batches, segments, weight):
  """Logits, and the gradient of sum(weight * logits) for the embeddings.

  Args:
    m: a Model.
    batches: pairs of source and targets, of the same segments.
    segments: of both.
    weight: of the logits at each position.

  Returns:
    For each batch [logits, gradient].
  """
  (source, targets), placeholders = zip(*[
      m.placeholder(segments.shape, 'batch', 'length') for _ in range(2)])
  logits, _ = m.bitransformer.call_simple(
      source, targets, compute_loss=False, mode='eval',
      encoder_sequence_id=m.ids(segments), decoder_sequence_id=m.ids(segments))
  loss = mtf.reduce_sum(
      logits * m.tensor(weight.astype('float32'), 'batch', 'length'))
  embedding, = [v for v in m.graph.trainable_variables
                if v.name == 'shared/embedding']
  grad, = mtf.gradients([loss], [embedding.outputs[0]])
  with m.evaluating([logits, grad]) as evaluate:
    return [evaluate(dict(zip(placeholders, batch))) for batch in batches]


@pytest.mark.parametrize('model', MODELS)
def test_packed_examples_do_not_see_each_other(model):
  segments = np.array([[1] * 5 + [2] * 4] * BATCH)
  source, targets = _token_ids(1), _token_ids(2)
  other_source, other_targets = source.copy(), targets.copy()
  # The last id of A reaches B through mtf's own shift of the targets; it is
  # eos in practice, and the same here.
  other_source[:, :5] = _token_ids(3)[:, :5]
  other_targets[:, :4] = _token_ids(4)[:, :4]
  with _model(model, filter_size=5) as m:
    (logits, grad), (other_logits, other_grad) = _loss_gradients(
        m, [(source, targets), (other_source, other_targets)], segments,
        segments == 2)
  np.testing.assert_array_equal(logits[:, 5:], other_logits[:, 5:])
  assert np.abs(logits[:, :5] - other_logits[:, :5]).max() > 1e-3
  # B's loss has no gradient for a word that only A has. The output layer
  # shares the embedding, so look at what comes from inputs.
  only_a = np.setdiff1d(
      np.r_[source[:, :5].ravel(), targets[:, :4].ravel()],
      np.r_[source[:, 5:].ravel(), targets[:, 4:].ravel(), [0]])
  assert only_a.size
  np.testing.assert_array_equal(grad[only_a], other_grad[only_a])


def test_sub_targets_do_not_see_each_other():
  ones = np.ones((BATCH, LENGTH), int)
  subsequence = np.array([[1] * 5 + [2] * 4] * BATCH)
  source, targets = _token_ids(1), _token_ids(2)
  other = targets.copy()
  other[:, :4] = _token_ids(4)[:, :4]
  logits = []
  for t in (targets, other):
    with _model('lightconv', filter_size=5) as m:
      y, _ = m.bitransformer.call_simple(
          m.ids(source), m.ids(t), compute_loss=False, mode='eval',
          encoder_sequence_id=m.ids(ones), decoder_sequence_id=m.ids(ones),
          decoder_subsequence_id=m.ids(subsequence))
      logits += m.run([y])
  np.testing.assert_array_equal(logits[0][:, 5:], logits[1][:, 5:])


# Splits.


def _logits_and_gradients(model, mesh_shape, layout):
  source, targets = _token_ids(1, 8)[:2], _token_ids(2, 8)[:2]
  with _model(model, mesh_shape, layout, num_layers=1, filter_size=5) as m:
    logits, loss = m.bitransformer.call_simple(
        m.ids(source), m.ids(targets), compute_loss=True, mode='eval')
    variables = m.graph.trainable_variables
    grads = mtf.gradients([loss], [v.outputs[0] for v in variables])
    return m.run([logits, *grads])


# Of whole models; testing_test has the mixers alone, on more meshes.
@pytest.mark.parametrize('model', [
    'dynamicconv', *(pytest.param(model, marks=pytest.mark.slow)
                     for model in ('lightconv', 'dilatedconv'))])
def test_split_meshes_give_the_same(model):
  expected, *split = (
      _logits_and_gradients(model, mesh_shape, layout)
      for mesh_shape, layout in (
          ('', harness.LAYOUT), ('batch:2;model:2', harness.LAYOUT),
          ('model:2', 'length:model')))
  for found in split:
    for e, f in zip(expected, found):
      np.testing.assert_allclose(f, e, atol=1e-5)


@pytest.mark.parametrize('model', MODELS)
def test_a_model_split_computes_nothing_twice(model):
  x = np.zeros((BATCH, LENGTH, 16), 'float32')
  with _model(model, 'model:2', filter_size=5) as m:
    context = transformer.Context(
        model=m.encoder, mesh=m.mesh,
        batch_dims=[mtf.Dimension('batch', BATCH)],
        length_dim=mtf.Dimension('length', LENGTH), mode='eval',
        variable_dtype=m.variable_dtype)
    m.run([m.encoder.layer_stack.layers[0].call(
        context, m.tensor(x, 'batch', 'length', 'd_model'))])
    counters = harness.counters(m.lowering)
  assert counters['einsum'] == counters['einsum_unique']


# Precision.


def test_filters_are_normalised_in_float32():
  dtype = mtf.VariableDType(tf.float32, tf.float32, tf.bfloat16)
  with _model('lightconv', filter_size=31, variable_dtype=dtype) as m:
    context = transformer.Context(
        model=m.encoder, mesh=m.mesh, mode='eval', variable_dtype=dtype,
        batch_dims=[], length_dim=mtf.Dimension('length', LENGTH))
    layer = m.encoder.layer_stack.layers[0]
    filters, = m.run([layer.filters(context, None)])
    logits, = m.weights.values()
  def rounded(x):
    return x.astype(ml_dtypes.bfloat16).astype('float32')
  np.testing.assert_array_equal(
      filters, rounded(reference.softmax(rounded(logits))))


# XLA, the nearest thing to a TPU that a CPU has.


def _train_losses(model, compiled, steps=3):
  """The losses of some steps of training from the same weights."""
  source, targets = _token_ids(1), _token_ids(2)
  harness.parse_gin([f'models/{model}.tiny.gin'], [
      *harness.TINY, 'num_layers = 1',
      *(['filter_sizes = [7]'] if model == 'dilatedconv' else [])])
  with tf.Graph().as_default(), tf.variable_scope('', use_resource=True):
    tf.train.get_or_create_global_step()

    def train_step(source, targets):
      graph = mtf.Graph()
      mesh = mtf.Mesh(graph, 'mesh')
      bitransformer = transformer.make_bitransformer(
          harness.VOCABULARY, harness.VOCABULARY)
      shape = mtf.Shape([mtf.Dimension('batch', BATCH),
                         mtf.Dimension('length', LENGTH)])
      _, loss = bitransformer.call_simple(
          mtf.import_tf_tensor(mesh, source, shape),
          mtf.import_tf_tensor(mesh, targets, shape), compute_loss=True,
          mode='eval')
      variables = graph.trainable_variables
      grads = mtf.gradients([loss], [v.outputs[0] for v in variables])
      updates = mtf.optimize.AdafactorOptimizer(
          learning_rate=0.1).apply_grads(grads, variables)
      lowering = harness.lower(graph, mesh)
      lowerings.append(lowering)
      loss = lowering.export_to_tf_tensor(loss)
      with tf.control_dependencies(
          [loss] + [lowering.lowered_operation(op) for op in updates]):
        return tf.identity(loss)
    lowerings = []
    inputs = [tf.constant(source, tf.int32), tf.constant(targets, tf.int32)]
    if compiled:
      loss, = xla.compile(train_step, inputs)
    else:
      loss = train_step(*inputs)
    with harness.session() as sess:
      sess.run(tf.global_variables_initializer())
      for variable in tf.global_variables():
        name = variable.op.name
        if '_slot_' not in name and name != 'global_step':
          variable.load(harness.initial_weight(
              name, variable.shape.as_list()), sess)
      sess.run(lowerings[0].copy_masters_to_slices())
      return np.array([sess.run(loss) for _ in range(steps)])


@pytest.mark.parametrize('model', [
    'lightconv', 'dynamicconv', *(pytest.param(model, marks=pytest.mark.slow)
                                  for model in ('transformer', 'dilatedconv'))])
def test_xla_compiles_the_whole_train_step(model):
  expected = _train_losses(model, compiled=False)
  assert expected[-1] < expected[0], 'it trains'
  np.testing.assert_allclose(
      _train_losses(model, compiled=True), expected, rtol=1e-5)


# Options and wrong input.


@pytest.mark.parametrize('model', MODELS)
def test_one_attention_layer_in_the_encoder(model):
  files = [f'models/{model}.tiny.gin', 'models/encoder_attention.gin']
  with harness.Model(files, _bindings(model)) as m:
    logits, = m.run([harness.teacher_logits(m, _token_ids(1), _token_ids(2))])
    attention = {v.name.rsplit('/', 1)[0] for v in m.graph.trainable_variables
                 if '/SelfAttention/' in v.name}
  assert attention == {'encoder/block_001/layer_000_attention/SelfAttention'}
  assert np.isfinite(logits).all()


def _names_with_attention(layer_names, **options):
  """The layers of an AttentionLayerStack, of whatever class they are."""
  harness.parse_gin(['models/transformer.tiny.gin'])
  given = []
  for name in layer_names:
    given.append(transformer.TransformerLayer())
    given[-1].set_name(name)
  return [layer.name for layer in layers.AttentionLayerStack(
      given, **options).layers]


BLOCKS = ['block_000/layer_000', 'block_000/layer_001', 'block_001/layer_000',
          'block_001/layer_001']


@pytest.mark.parametrize('block, position', [(0, 1), (1, 3), (-1, 3), (-2, 1)])
def test_attention_follows_the_mixer_of_a_block(block, position):
  expected = [*BLOCKS]
  expected.insert(position, f'{BLOCKS[position - 1]}_attention')
  assert _names_with_attention(BLOCKS, block=block) == expected


@pytest.mark.parametrize('names, block, message', [
    (BLOCKS, 2, r'block \(=2\) must be one of the 2 blocks'),
    (BLOCKS, -3, r'block \(=-3\) must be one of the 2 blocks'),
    (['layer_000', 'layer_001'], -1,
     'needs make_layer_stack.block_scope = True')])
def test_attention_in_no_block_is_refused(names, block, message):
  with pytest.raises(ValueError, match=message):
    _names_with_attention(names, block=block)


def test_paper_norm_comes_after_the_layer():
  files = ['models/lightconv.tiny.gin', 'models/paper_norm.gin']
  with harness.Model(files, _bindings('lightconv')) as m:
    harness.check_three_ways(m, _token_ids(LENGTH), [0, 0, 0])
    sublayers = m.encoder.layer_stack._sublayers_per_layer
  assert [s.__name__ for s in sublayers] == [
      'sublayer_call_layer', 'rms_norm', 'sublayer_dropout',
      'sublayer_residual']


def test_filter_dropout_is_for_training_only():
  source, targets = _token_ids(1), _token_ids(2)
  logits = {}
  for mode in ('eval', 'train'):
    for rate in (0.0, 0.5):
      with _model('lightconv', filter_dropout_rate=rate) as m:
        y, _ = m.bitransformer.call_simple(
            m.ids(source), m.ids(targets), compute_loss=False, mode=mode)
        logits[mode, rate], = m.run([y])
  np.testing.assert_array_equal(logits['eval', 0.0], logits['eval', 0.5])
  assert np.abs(logits['train', 0.0] - logits['train', 0.5]).max() > 1e-3


def test_encoder_and_decoder_sizes_are_set_apart():
  bindings = ['num_layers = 1',
              'encoder/mtf_conv.layers.LightConv.filter_size = 3',
              'decoder/mtf_conv.layers.LightConv.filter_size = 6']
  with harness.Model(['models/lightconv.tiny.gin'], bindings) as m:
    harness.teacher_logits(m, _token_ids(1), _token_ids(2))
    sizes = {v.name.split('/')[0]: v.shape.dims[-1].size
             for v in m.graph.trainable_variables if 'filters' in v.name}
  assert sizes == {'encoder': 3, 'decoder': 6}


@pytest.mark.parametrize('make, message', [
    (lambda: layers.LightConv(12, 64, num_filters=5),
     r'num_heads \(=12\) must be a multiple of num_filters \(=5\)'),
    (lambda: layers.LightConv(4, 16, filter_size=0),
     r'filter_size \(=0\) must be an integer >= 1'),
    (lambda: layers.DynamicConv(4, 16, dilation_rate=0),
     r'dilation_rate \(=0\) must be an integer >= 1'),
    (lambda: layers.LightConv(4, 16, num_filters=0),
     r'num_filters \(=0\) must be an integer >= 1'),
    (lambda: layers.LightConv(4, 16, filter_dropout_rate=1.0),
     r'filter_dropout_rate \(=1.0\) must be in \[0, 1\)'),
    (lambda: layers.DilatedConv(4, 16, filter_sizes=[3, 0]),
     r'filter_sizes \(=0\) must be an integer >= 1'),
    (lambda: layers.DilatedConv(
        4, 16, filter_sizes=[3, 5], dilation_rates=[1]),
     r'dilation_rates \(=\[1\]\) must be as many as filter_sizes \(=\[3, 5\]'),
    (lambda: layers.LightConv(4, 16, lowering='bands'),
     r"lowering \(='bands'\) must be None or one of .* did you mean 'band'"),
    (lambda: layers.DynamicConv(4, 16, lowering='depthwise'),
     r"lowering \(='depthwise'\) cannot do DynamicConv"),
    (lambda: layers.DynamicConv(4, 16, num_filters=None),
     r'num_filters \(=None\) must be an integer >= 1'),
])
def test_wrong_options_are_named(make, message):
  with pytest.raises(ValueError, match=message):
    make()


def test_wrong_number_of_filter_sizes():
  bindings = ['num_layers = 2', 'filter_sizes = [3, 5, 7]']
  with harness.Model(['models/dilatedconv.tiny.gin'], bindings) as m:
    with pytest.raises(ValueError, match=(
        r'filter_sizes \(=\[3, 5, 7\]\) must have one number for each of the 2 '
        'DilatedConv layers of the encoder')):
      harness.teacher_logits(m, _token_ids(1), _token_ids(2))


def test_prefix_language_model_is_refused():
  harness.parse_gin(['models/lightconv.tiny.gin'])
  with tf.Graph().as_default():
    mesh = mtf.Mesh(mtf.Graph(), 'mesh')
    model = transformer.Unitransformer(
        transformer.LayerStack([layers.LightConv(4, 4)]), d_model=16,
        input_vocab_size=50, output_vocab_size=50, autoregressive=True,
        max_length=16, positional_embedding=False, input_full_attention=True)
    ids = mtf.ones(mesh, mtf.Shape([
        mtf.Dimension('batch', 1), mtf.Dimension('length', 8)]), tf.int32)
    with pytest.raises(ValueError, match='input_full_attention=True'):
      model.call_simple(ids, ids, compute_loss=False)
