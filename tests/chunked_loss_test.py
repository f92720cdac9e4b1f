"""The loss of a chunk at a time, against sums written out in NumPy and T5's."""

import mesh_tensorflow as mtf
import mtf_harness as harness
import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from mtf_conv import chunked_loss

MESHES = [
    ('', ''),
    ('batch:2', 'batch:batch'),
    ('model:4', 'vocab:model'),
    ('model:2', 'd_model:model'),
    ('batch:2;model:2', 'batch:batch,vocab:model'),
    ('batch:2;model:2', 'length:batch,d_model:model'),
    ('batch:2;model:2', 'batch:batch,length:model'),
]
LOSSES = [(0.0, 0.0), (0.0, 1e-4), (0.1, 0.0), (0.1, 1e-2)]


def dims(**sizes):
  return [mtf.Dimension(*size) for size in sizes.items()]


def arrays(batch=4, length=6, d_model=8, vocab=24, vocab_first=True, seed=0,
           scale=1.0, first=-3):
  """Hidden states, a softmax, targets of which some are outside, weights."""
  rng = np.random.RandomState(seed)
  rows = dims(batch=batch, length=length)
  model, ids = dims(d_model=d_model, vocab=vocab)
  weights_dims = [ids, model] if vocab_first else [model, ids]

  def normal(dims):
    return (scale * rng.randn(*(d.size for d in dims))).astype('float32'), dims

  return [normal([*rows, model]), normal(weights_dims),
          (rng.randint(first, vocab - first, (batch, length)).astype('int32'),
           rows),
          # In tenths: run_op asks for the gradients of all floats.
          (rng.randint(0, 11, (batch, length)).astype('int32'), rows)]


def plain(hidden, weights, targets, numbers, smoothing, z_loss):
  """The loss and its gradients for hidden and weights, [vocab, d_model]."""
  hidden, weights, numbers = (
      a.astype('float64') for a in (hidden, weights, numbers))
  x = hidden @ weights.T
  vocabulary = x.shape[-1]
  q = (1 - smoothing) * (targets[..., None] == np.arange(vocabulary))
  q = q + smoothing / vocabulary
  maxima = x.max(-1, keepdims=True)
  log_z = maxima + np.log(np.exp(x - maxima).sum(-1, keepdims=True))
  losses = (q * (log_z - x)).sum(-1) + z_loss * log_z[..., 0]**2
  dx = numbers[..., None] * (
      (q.sum(-1, keepdims=True) + 2 * z_loss * log_z) * np.exp(x - log_z) - q)
  return ((numbers * losses).sum(), dx @ weights,
          np.einsum('blv,bld->vd', dx, hidden))


def compare(inputs, smoothing=0.0, z_loss=0.0, mesh_shape='', layout='',
            dtype=tf.float32, train=True, logits=40, **tolerance):
  """Compares value and gradients with the plain ones."""
  (hidden, hidden_dims), (weights, weights_dims), targets, numbers = inputs
  vocab_dim, = set(weights_dims) - set(hidden_dims)
  vocab_first = weights_dims[0] == vocab_dim

  def fn(hidden, weights, targets, numbers):
    return chunked_loss.ChunkedCrossEntropy(
        mtf.cast(hidden, dtype), mtf.cast(weights, dtype), targets,
        mtf.to_float(numbers) / 10, vocab_dim, smoothing, z_loss, train,
        logits).outputs[0]

  found, gradients, lowering = harness.run_op(
      fn, inputs[:3] + [numbers], mesh_shape, layout)
  expected = plain(hidden, weights if vocab_first else weights.T, targets[0],
                   numbers[0] / 10, smoothing, z_loss)
  dweights = gradients[1] if vocab_first else gradients[1].T
  for a, b in zip((found, gradients[0], dweights), expected):
    np.testing.assert_allclose(a, b, **(
        tolerance or {'rtol': 1e-5, 'atol': 1e-5}))
  return lowering


@pytest.mark.parametrize('mesh_shape, layout', MESHES)
@pytest.mark.parametrize('smoothing, z_loss', LOSSES)
def test_every_split(mesh_shape, layout, smoothing, z_loss):
  compare(arrays(), smoothing, z_loss, mesh_shape, layout)


@pytest.mark.parametrize('mesh_shape, layout', MESHES[:5])
def test_weights_of_an_untied_softmax(mesh_shape, layout):
  compare(arrays(vocab_first=False), 0.1, 1e-2, mesh_shape, layout)


@pytest.mark.parametrize('seed', range(6))
def test_random_shapes_and_chunks(seed):
  rng = np.random.RandomState(seed)
  sizes = [int(size) for size in rng.randint(1, 9, 3)]
  compare(arrays(*sizes, rng.randint(1, 300), seed=seed),
          *LOSSES[seed % 4], logits=rng.randint(1, 5000), train=seed % 2 == 0)


@pytest.mark.parametrize('mesh_shape', ['', 'model:4'])
@pytest.mark.parametrize('scale', [1e-3, 12.0])
def test_small_and_large_logits(scale, mesh_shape):
  compare(arrays(scale=scale), mesh_shape=mesh_shape, layout='vocab:model',
          rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('mesh_shape, layout', [
    ('', ''), ('model:2', 'vocab:model')])
def test_bfloat16(mesh_shape, layout):
  compare(arrays(), 0.1, 1e-2, mesh_shape, layout, tf.bfloat16, rtol=2e-2,
          atol=0.15)


def test_no_tensor_of_all_logits():
  lowering = compare(arrays(), logits=48)
  large = [t for op in lowering.graph.operations for t in op.outputs
           if t.shape.size >= 4 * 6 * 24]
  assert not large
  sizes = [t.shape.num_elements()
           for op in lowering.tensors[lowering.graph.operations[0].outputs[0]]
           .tensor_list[0].graph.get_operations() for t in op.outputs
           if t.shape.rank == 2 and t.shape[-1] == 24]
  assert 2 * 24 in sizes and max(sizes) < 4 * 6 * 24


def test_counts_what_is_reduced():
  counted = harness.counters(compare(
      arrays(), mesh_shape='batch:2;model:2', layout='batch:batch,vocab:model'))
  # A maximum and three sums of each target on two parts of the vocabulary.
  assert counted['allreduce/[1]/chunked_cross_entropy'] >= 2 * 4 * 4 * 6


def test_finds_the_product():
  batch, model, ids = dims(batch=2, d_model=3, vocab=4)
  mesh = mtf.Mesh(mtf.Graph(), 'mesh')
  with tf.Graph().as_default():
    hidden = mtf.zeros(mesh, mtf.Shape([batch, model]))
    weights = mtf.zeros(mesh, mtf.Shape([ids, model]))
    logits = mtf.einsum([hidden, weights], reduced_dims=[model])
    assert chunked_loss.projection(logits, ids) == (hidden, weights)
    assert chunked_loss.projection(logits + 1.0, ids) is None


def test_wrong_arguments():
  batch, model, ids, other = dims(batch=2, d_model=3, vocab=4, length=5)
  with tf.Graph().as_default():
    mesh = mtf.Mesh(mtf.Graph(), 'mesh')

    def zeros(*shape, dtype=tf.float32):
      return mtf.zeros(mesh, mtf.Shape(shape), dtype)

    right = [zeros(batch, model), zeros(ids, model),
             zeros(batch, dtype=tf.int32), zeros(batch)]
    for place, wrong, message in (
        (1, zeros(ids, other), 'weights .* must have the dimensions'),
        (2, zeros(other, dtype=tf.int32), 'targets .* of hidden'),
        (2, zeros(batch), 'must be integers'),
        (3, zeros(other), 'target_weights .* of hidden')):
      arguments = [*right]
      arguments[place] = wrong
      with pytest.raises(ValueError, match=message):
        chunked_loss.ChunkedCrossEntropy(*arguments, ids)
