"""The lookup against T5's product with a one-hot tensor."""

import mesh_tensorflow as mtf
import mtf_harness as harness
import numpy as np
import pytest
import stock_t5
import tensorflow.compat.v1 as tf
from mesh_tensorflow.transformer import transformer

from mtf_conv import embedding

MESHES = [
    ('', ''),
    ('batch:2', 'batch:batch'),
    ('model:4', 'vocab:model'),
    ('model:2', 'd_model:model'),
    ('batch:2;model:4', 'batch:batch,vocab:model'),
    ('batch:2;model:2', 'length:batch,d_model:model'),
    ('batch:2;model:2', 'batch:batch,length:model'),
    ('batch:2;model:2', 'ensemble:model,batch:batch'),
    ('batch:2;model:2', 'ensemble:batch,vocab:model'),
]


def dims(shape):
  return [mtf.Dimension(name, size) for name, size in shape.items()]


def compare(ids_shape, mesh_shape='', layout='', dtype=tf.float32,
            vocabulary=24, models=(), d_model=6, seed=0, first=-3, atol=1e-5):
  """Compares values and gradients with those of mtf.gather on one device.

  Args:
    ids_shape: a dict from the names of the dimensions of ids to sizes.
    mesh_shape: such as 'batch:2;model:2'.
    layout: layout rules.
    dtype: of weights, as the lookup gets them.
    vocabulary: how many ids there are.
    models: (name, size) of dimensions of weights before the vocabulary.
    d_model: size of an embedding.
    seed: of ids and weights.
    first: the least of ids; as many are too great.
    atol: how much values may differ.
  """
  rng = np.random.RandomState(seed)
  weights_dims = dims({**dict(models), 'vocab': vocabulary, 'd_model': d_model})
  ids = rng.randint(first, vocabulary - first, [*ids_shape.values()])
  arrays = [
      (rng.randn(*(d.size for d in weights_dims)).astype('float32'),
       weights_dims),
      (ids.astype('int32'), dims(ids_shape))]
  vocab_dim = weights_dims[-2]
  y, (dweights,), lowering = harness.run_op(
      lambda w, i: embedding.lookup(mtf.cast(w, dtype), i, vocab_dim),
      arrays, mesh_shape, layout)
  expected, (expected_dweights,), _ = harness.run_op(
      lambda w, i: mtf.gather(w, i, vocab_dim), arrays)
  np.testing.assert_allclose(y, expected, atol=atol)
  np.testing.assert_allclose(dweights, expected_dweights, atol=atol)
  outside = (ids < 0) | (ids >= vocabulary)
  assert outside.any() == (first < 0)
  assert not y[outside].any() and y[~outside].all()
  return lowering


@pytest.mark.parametrize('mesh_shape, layout', MESHES)
def test_every_split(mesh_shape, layout):
  compare({'ensemble': 2, 'batch': 4, 'length': 10}, mesh_shape, layout,
          models=[('ensemble', 2)] * ('ensemble' in layout))


@pytest.mark.parametrize('seed', range(8))
def test_random_shapes(seed):
  rng = np.random.RandomState(seed)
  names = ['batch', 'beam', 'length'][:rng.randint(0, 4)]
  ids_shape = {name: rng.randint(2, 9) for name in rng.permutation(names)}
  # A single id has no others of which some lie outside.
  compare(ids_shape, vocabulary=rng.randint(1, 40),
          d_model=rng.randint(1, 9), seed=seed,
          first=-40 if len(names) > 1 else 0)


@pytest.mark.parametrize('ids_shape', [
    {'batch': 8}, {'batch': 4, 'beam': 4}, {'batch': 4, 'length': 6}])
def test_steps_of_decoding(ids_shape):
  compare(ids_shape, 'batch:2;model:2', harness.LAYOUT, seed=3)


def test_models_of_an_ensemble_may_come_after_the_batch():
  compare({'batch': 4, 'ensemble': 3, 'length': 6}, 'batch:2',
          'batch:batch', models=[('ensemble', 3)])


@pytest.mark.parametrize('mesh_shape, layout', [
    ('', ''), ('model:2', 'vocab:model')])
def test_bfloat16(mesh_shape, layout):
  compare({'batch': 4, 'length': 6}, mesh_shape, layout, tf.bfloat16,
          atol=2e-2)


def test_many_of_one_id_in_bfloat16():
  ids_dims, weights_dims = dims({'length': 4096}), dims(
      {'vocab': 4, 'd_model': 2})

  def sum_of(w, ids):
    y = embedding.lookup(mtf.cast(w, tf.bfloat16), ids, weights_dims[0])
    # Gradients of 1: bfloat16 stops at 256 where it adds them one by one.
    return mtf.reduce_sum(mtf.cast(y, tf.float32), reduced_dim=ids_dims[0])

  _, (dweights,), _ = harness.run_op(
      sum_of, [(np.ones([4, 2], 'float32'), weights_dims),
               (np.full([4096], 1, 'int32'), ids_dims)])
  expected = np.zeros([4, 2])
  expected[1] = 4096 * harness.output_weights([2])
  np.testing.assert_allclose(dweights, expected, rtol=1e-2)


def test_counts_no_products_and_what_is_summed():
  lowering = compare({'batch': 4, 'length': 6}, 'batch:2;model:2',
                     'batch:batch,vocab:model')
  counted = harness.counters(lowering)
  assert counted['allreduce/[1]/lookup'] == 2 * 4 * 6 * 6  # Two parts of ids.
  assert counted['allreduce/[0]/lookup'] == 2 * 24 * 6  # Two of the batch.


def test_wrong_arguments():
  names = dims({'batch': 2, 'ensemble': 3, 'vocab': 4, 'd_model': 5})
  batch, ensemble, vocab, d_model = names
  with tf.Graph().as_default():
    mesh = mtf.Mesh(mtf.Graph(), 'mesh')
    weights = mtf.zeros(mesh, mtf.Shape([vocab, d_model]))
    ids = mtf.zeros(mesh, mtf.Shape([batch]), tf.int32)
    for args, message in (
        ((weights, ids, d_model), 'last but one'),
        ((weights, mtf.to_float(ids), vocab), 'must be integers'),
        ((mtf.zeros(mesh, mtf.Shape([ensemble, vocab, d_model])), ids, vocab),
         r'must have the dimensions \[.*ensemble')):
      with pytest.raises(ValueError, match=message):
        embedding.lookup(*args)


def test_a_layout_that_t5_refuses_is_refused():
  with pytest.raises(ValueError, match='same Mesh Dimension'):
    compare({'batch': 4}, 'model:2', 'batch:model,vocab:model')


# The layer.


def operations(in_xla):
  """The classes of the operations of a layer, and what its graph holds."""
  found = []

  def build():
    graph = mtf.Graph()
    mesh = mtf.Mesh(graph, 'mesh')
    batch, vocab, d_model = dims({'batch': 2, 'vocab': 4, 'd_model': 5})
    layer = embedding.LookupEmbedding(
        mesh, vocab, d_model, mtf.VariableDType(tf.float32), 'embedding', None)
    layer.ids_to_embedding(mtf.zeros(mesh, mtf.Shape([batch]), tf.int32), None)
    found.extend(type(op) for op in graph.operations)
    return tf.zeros([])

  with tf.Graph().as_default():
    if in_xla:
      tf.xla.experimental.compile(build)
    else:
      build()
  return found


def test_xla_keeps_the_product():
  assert embedding.LookupOperation in operations(in_xla=False)
  assert mtf.ops.OneHotOperation not in operations(in_xla=False)
  assert embedding.LookupOperation not in operations(in_xla=True)
  assert mtf.ops.OneHotOperation in operations(in_xla=True)


@pytest.mark.parametrize('scaled', [False, True])
@pytest.mark.parametrize('ensemble', [False, True])
def test_layer_is_that_of_t5(scaled, ensemble):
  model_dims = dims({'ensemble': 2} if ensemble else {})
  vocab, d_model = dims({'vocab': 12, 'd_model': 4})
  ids_dims = [*model_dims, *dims({'batch': 3, 'length': 5})]
  ids = np.random.RandomState(0).randint(
      0, 12, [d.size for d in ids_dims]).astype('int32')

  def results(cls):
    with tf.Graph().as_default():
      tf.set_random_seed(1)
      graph = mtf.Graph()
      mesh = mtf.Mesh(graph, 'mesh')
      layer = cls(mesh, vocab, d_model, mtf.VariableDType(tf.float32),
                  'embedding', model_dims[0] if ensemble else None,
                  scale_variable_like_classifier_weights=scaled)
      hidden = layer.ids_to_embedding(
          mtf.import_tf_tensor(mesh, ids, mtf.Shape(ids_dims)), None)
      logits = layer.hidden_to_logits(hidden, None)
      lowering = harness.lower(graph, mesh)
      fetched = [lowering.export_to_tf_tensor(t) for t in (hidden, logits)]
      with harness.session() as sess:
        variable, = tf.global_variables()
        # A fixed seed: the same initializer gives the same values.
        sess.run(variable.initializer)
        sess.run(lowering.copy_masters_to_slices())
        return variable.op.name, sess.run([variable, *fetched])

  name, found = results(embedding.LookupEmbedding)
  expected_name, expected = results(transformer.VocabEmbedding)
  assert name == expected_name
  for f, e in zip(found, expected):
    np.testing.assert_allclose(f, e, atol=1e-5)


# Whole models.


@pytest.mark.parametrize('model', ['transformer', 'lightconv'])
@pytest.mark.parametrize('options', [
    {'beam_size': 1, 'temperature': 0.0}, {'beam_size': 3}])
def test_decoding_agrees_with_t5(model, options):
  path = f'models/{model}.tiny.gin'
  np.testing.assert_array_equal(
      stock_t5.decode(path, **options),
      stock_t5.decode(path, stock_t5.STOCK, **options))
