"""The paper's research questions, answered from the scores of a grid."""

import numpy as np

from mtf_conv.replicate import paper


def answer(cells, speeds=None):
  """Answers RQ1 to RQ5 of section 1.

  Args:
    cells: as scores.cells returns them.
    speeds: steps of pre-training per second by model, from one machine.

  Returns:
    A list of (question, answer); an answer says when the numbers are missing.
  """
  scores = {tuple(key): ours for *key, ours in cells[
      ['init', 'model', 'task', 'metric', 'ours']].itertuples(index=False)
            if not np.isnan(ours)}
  return [
      ('RQ1: Do convolutions gain from pre-training as Transformers do?',
       _gains(scores)),
      ('RQ2: Are convolutions competitive with the Transformer?',
       _wins(scores)),
      ('RQ3: Are they faster?', _speeds(speeds or {})),
      ('RQ4: Where should one not use them?', _losses(scores)),
      ('RQ5: Which convolution is best?', _best(scores))]


_MISSING = 'No numbers yet.'


def _models(scores):
  return paper.in_order(model for _, model, *_ in scores)


def _convolutions(scores):
  """All that is compared with the Transformer, the user's own included."""
  return [model for model in _models(scores) if model != 'transformer']


def _gains(scores):
  lines = []
  for model in _models(scores):
    gains = [paper.gain(score, scores[('pretrained', model, *place)])
             for (init, m, *place), score in scores.items()
             if init == 'raw' and m == model
             and ('pretrained', model, *place) in scores]
    if gains:
      lines.append(
          f'{model} gains in {sum(g > 0 for g in gains)} of {len(gains)} '
          f'columns, {np.mean(gains):+.1f} % on average')
  return '; '.join(lines) + '.' if lines else _MISSING


def _compare(scores, init):
  """(task, metric, convolution, difference) for the best convolution."""
  for (i, model, *place), score in scores.items():
    ours = {m: scores[(init, m, *place)] for m in _convolutions(scores)
            if (init, m, *place) in scores}
    if i == init and model == 'transformer' and ours:
      best = max(ours, key=ours.get)
      yield (*place, best, ours[best] - score)


def _wins(scores):
  lines = []
  for init, words in (('raw', 'without pre-training'),
                      ('pretrained', 'with it')):
    found = list(_compare(scores, init))
    if found:
      ahead = sum(difference > 0 for *_, difference in found)
      lines.append(f'{words}, the best convolution is ahead of the Transformer '
                   f'in {ahead} of {len(found)} columns')
  text = '; '.join(lines)
  return text[:1].upper() + text[1:] + '.' if lines else _MISSING


def _speeds(speeds):
  base = speeds.get('transformer')
  lines = [f'{model} {speed / base:.2f} times' for model, speed in
           speeds.items() if base and model != 'transformer']
  return ('Steps of pre-training per second against the Transformer, whatever '
          f'ran beside them: {", ".join(lines)}. mtf_conv bench measures them '
          'in turn.' if lines else _MISSING)


def _losses(scores):
  found = [(task, metric, -difference)
           for task, metric, _, difference in _compare(scores, 'pretrained')]
  behind = [f'{task} {metric} (by {difference:.2f})'
            for task, metric, difference in found if difference > 0]
  if not found:
    return _MISSING
  return ('Pre-trained, even the best of them is behind the Transformer on '
          + ', '.join(behind) + '.' if behind else
          'In no column measured here is the best of them behind the '
          'pre-trained Transformer.')


def _best(scores):
  places = {tuple(place) for init, _, *place in scores if init == 'pretrained'}
  wins = dict.fromkeys(_convolutions(scores), 0)
  for place in places:
    ours = {m: scores[('pretrained', m, *place)] for m in _convolutions(scores)
            if ('pretrained', m, *place) in scores}
    if len(ours) > 1:
      wins[max(ours, key=ours.get)] += 1
  if places and len(wins) == 1:
    return f'Pre-trained, {next(iter(wins))} is the only one measured here.'
  if not sum(wins.values()):
    return _MISSING
  return 'Pre-trained, the best convolution is ' + ', '.join(
      f'{model} in {count}' for model, count in wins.items()) + (
          f' of {sum(wins.values())} columns.')
