"""Answers of a trained folder are those of the plain model, in any batch."""

import functools
import json

import mesh_tensorflow as mtf
import mtf_harness as harness
import numpy as np
import pytest
import tensorflow.compat.v1 as tf
import tiny_vocabulary
import trained_folder

from mtf_conv.answer import decoding, loop, output, records, trained, verbs
from mtf_conv.answer import engine as engines
from mtf_conv.measure import graph, models

LINES = [' '.join(tiny_vocabulary.words(1 + seed % 9, seed))
         for seed in range(12)]


@pytest.fixture(scope='module', params=['lightconv', 'transformer'])
def plain(request, tmp_path_factory):
  """A folder, and its model computed plainly: one example, no padding."""
  return _Plain(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope='module')
def light(tmp_path_factory):
  return _Plain(tmp_path_factory.mktemp('light'), 'lightconv')


class _Plain:

  def __init__(self, folder, model):
    self.folder, self.model = folder, model
    self.weights = trained_folder.write(folder, model)
    self._engine = None

  def engine(self):
    """The folder's model, loaded; its graphs are kept for the next test."""
    found = trained.load(str(self.folder))
    self._engine = self._engine or engines.Engine(found)
    return found, self._engine

  def answer(self, cls, lines, fields=('inputs',), batch_size=8, **options):
    """The verb's output in JSON, for lines of JSON or text."""
    found, engine = self.engine()
    (self.folder / 'in.jsonl').write_text(''.join(
        json.dumps(dict(zip(fields, line if isinstance(line, tuple)
                            else (line,)))) + '\n' for line in lines))
    path = self.folder / 'out'
    verb = cls(found, engine, 'jsonl', fields=fields, **options)
    loop.run(verb, engine, records.read(
        str(self.folder / 'in.jsonl'), 'jsonl', verb.fields), output.Output(
            str(path), {}, True, verb.header), batch_size)
    return [json.loads(line) for line in path.read_text().splitlines()]

  def ids(self, text):
    return [*self.engine()[0].vocabulary.encode(text), 1]

  def compute(self, build, *arrays):
    """Runs what a function makes of the model and arrays."""
    self.engine()
    with graph.Builder() as builder:
      tensors = [builder.tensor(np.array(array, np.int32), [
          mtf.Dimension('batch', len(array)),
          mtf.Dimension('length', len(array[0]))]) for array in arrays]
      y = mtf.anonymize(build(models.make(trained_folder.VOCABULARY), *tensors))
      lowering = builder.lower()
      y = lowering.export_to_tf_tensor(y)
      with builder.session(lowering, self.weights) as session:
        return session.run(y)

  def log_probs(self, inputs, targets):
    """log softmax of all ids at each position: [batch, length, vocab]."""
    logits = self.compute(lambda model, *ids: model.call_simple(
        *ids, compute_loss=False, mode='eval')[0], inputs, targets)
    logits = logits.astype(np.float64)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def _padded(rows):
  return engines.pad([np.array(row) for row in rows], max(map(len, rows)))


def test_predict_is_t5_s_decoding_in_any_batch(plain):
  inputs = _padded([plain.ids(line) for line in LINES])
  expected = plain.compute(lambda model, ids: model.decode(
      ids, max_decode_length=trained_folder.LENGTHS['targets']), inputs)
  vocabulary = plain.engine()[0].vocabulary
  expected = [vocabulary.decode(row.tolist()) for row in expected]
  assert len(set(expected)) > 5
  for batch_size in (1, 8) if plain.model == 'lightconv' else (8,):
    answers = plain.answer(verbs.Predict, LINES, batch_size=batch_size)
    assert [answer['prediction'] for answer in answers] == expected
    assert [answer['inputs'] for answer in answers] == LINES


def test_scores_of_predictions_are_log_likelihoods(light):
  inputs = _padded([light.ids(line) for line in LINES[:8]])
  build = functools.partial(decoding.sample, length=12, scores=True)
  ids, scores = light.engine()[1].function(build, [inputs])([inputs])
  log_probs = light.log_probs(inputs, ids)
  known = [harness.length_with_eos(row) for row in ids]
  assert len(set(known)) > 2 and max(known) == 12
  for row, length in enumerate(known):
    assert not ids[row, length:].any()
    assert scores[row] == pytest.approx(
        log_probs[row, np.arange(length), ids[row, :length]].sum(), abs=1e-4)


def test_beams_and_their_scores(light):
  line = LINES[4]
  alpha, length = 0.6, 12
  answers, = light.answer(
      verbs.Predict, [line], beam_size=3, num_return=3, alpha=alpha,
      decode_length=length)
  best, = light.answer(verbs.Predict, [line], beam_size=3, alpha=alpha,
                       decode_length=length)
  ids = light.compute(lambda model, ids: model.decode(
      ids, beam_size=3, alpha=alpha, max_decode_length=length,
      decode_length_constant=length), [light.ids(line)])
  text = light.engine()[0].vocabulary.decode(ids[0].tolist())
  assert text == best['prediction'] == answers['predictions'][0]
  assert answers['scores'] == sorted(answers['scores'], reverse=True)
  assert len(answers['scores']) == len(answers['predictions']) == 3
  known = harness.length_with_eos(ids[0])
  log_probs = light.log_probs([light.ids(line)], ids)[0]
  expected = log_probs[np.arange(known), ids[0][:known]].sum()
  assert answers['scores'][0] == pytest.approx(
      expected / ((5 + known) / 6)**alpha, abs=1e-4)


def test_score_is_the_log_softmax_of_each_token(plain):
  pairs = list(zip(LINES[:6], LINES[3:9]))
  answers = plain.answer(verbs.Score, pairs, fields=('inputs', 'targets'),
                         batch_size=4)
  inputs, targets = (_padded([plain.ids(pair[i]) for pair in pairs])
                     for i in (0, 1))
  log_probs = plain.log_probs(inputs, targets)
  for row, (answer, (_, target)) in enumerate(zip(answers, pairs)):
    ids = plain.ids(target)
    expected = log_probs[row, np.arange(len(ids)), ids]
    np.testing.assert_allclose(answer['token_scores'], expected, atol=1e-4)
    assert answer['score'] == pytest.approx(expected.sum(), abs=1e-4)
    assert ''.join(answer['tokens']).replace('▁', ' ') == f' {target}</s>'


def test_classes_are_ranked_with_probabilities(light):
  classes = ['ba', 'ko li', 'zezeze']
  answers = light.answer(verbs.Score, LINES[:3], classes=classes)
  pairs = [(line, name) for line in LINES[:3] for name in classes]
  scored = light.answer(verbs.Score, pairs, fields=('inputs', 'targets'))
  for i, answer in enumerate(answers):
    scores = [each['score'] for each in scored[3 * i:3 * i + 3]]
    assert list(answer['scores'].values()) == pytest.approx(scores, abs=1e-4)
    expected = np.exp(scores) / np.exp(scores).sum()
    assert list(answer['probabilities'].values()) == pytest.approx(
        expected, abs=1e-4)
    assert sum(answer['probabilities'].values()) == pytest.approx(1)
    assert answer['prediction'] == classes[int(np.argmax(scores))]


def test_embed_is_the_mean_state(plain, tmp_path):
  found, engine = plain.engine()
  (tmp_path / 'in').write_text('\n'.join(LINES[:5]))
  verb = verbs.Embed(found, engine, 'npy', ('inputs',))
  loop.run(verb, engine, records.read(str(tmp_path / 'in'), 'text', ['inputs']),
           output.Output(str(tmp_path / 'x.npy'), {}, header=verb.header), 4)
  vectors = np.load(tmp_path / 'x.npy')
  assert vectors.shape == (5, 16) and vectors.dtype == np.float32
  for i in (0, 4):  # Alone and without padding.
    states = plain.compute(lambda model, ids: model.encoder.call_simple(
        ids, None, compute_loss=False, mode='eval', sequence_id=mtf.minimum(
            ids, 1), shared_params=model._shared_params(
                ids.mesh, mtf.VariableDType(tf.float32)))[0],
                           [plain.ids(LINES[i])])
    np.testing.assert_allclose(vectors[i], states[0].mean(0), atol=1e-5)


def test_drawn_answers_repeat_in_any_batch(light):
  options = dict(temperature=1.0, top_p=0.9, num_return=2)
  drawn = [[answer['predictions'] for answer in light.answer(
      verbs.Predict, LINES[:3], batch_size=batch_size, seed=seed, **options)]
           for batch_size, seed in ((8, 0), (3, 0), (8, 1))]
  assert drawn[0] == drawn[1] != drawn[2]
  assert all(one != other for one, other in drawn[0])


@pytest.mark.parametrize('temperature, top_k, top_p', [
    (1.0, 0, 1.0), (0.7, 0, 1.0), (1.0, 3, 1.0), (1.0, 0, 0.6), (2.0, 4, 0.7)])
def test_ids_are_drawn_by_their_probabilities(temperature, top_k, top_p):
  logits = np.random.RandomState(0).randn(7).astype('float32') * 2
  draws = 4000
  noise = (np.arange(draws, dtype='float32') + 0.5) / draws
  with tf.Graph().as_default(), tf.Session() as session:
    ids = session.run(decoding.draw(
        tf.constant(np.tile(logits, [draws, 1])), tf.constant(noise),
        temperature, top_k, top_p))
  probabilities = np.exp(logits / temperature)
  order = np.argsort(-probabilities)
  if top_k:
    probabilities[order[top_k:]] = 0
  probabilities /= probabilities.sum()
  kept = 1 + np.flatnonzero(np.cumsum(probabilities[order]) >= top_p - 1e-6)[0]
  probabilities[order[kept:]] = 0
  probabilities /= probabilities.sum()
  found = np.bincount(ids, minlength=7) / draws
  np.testing.assert_allclose(found, probabilities, atol=2 / draws)
