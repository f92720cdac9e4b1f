"""Learning curves as a picture."""

from mtf_conv.base.drawing import plt
from mtf_conv.model_dir import events

_LINES = {'raw': '--', 'pretrained': '-'}
_LABELS = {'raw': 'raw', 'pretrained': 'pre-trained'}


def plot(path, models, model_dirs, task):
  """Draws score and loss of fine-tuning, and the loss of pre-training.

  Args:
    path: where the PNG goes.
    models: the names of the models.
    model_dirs: as for `table.compare`.
    task: the name of the fine-tuning task.
  """
  figure, (score, loss, pretraining) = plt.subplots(
      1, 3, figsize=(12, 4), layout='constrained')
  for number, model in enumerate(models):
    color = f'C{number}'
    for init, line in _LINES.items():
      model_dir = model_dirs(model, init)
      style = {'linestyle': line, 'color': color,
               'label': f'{model}, {_LABELS[init]}'}
      _draw(score, events.scores(model_dir, task), marker='o', markersize=3,
            **style)
      _draw(loss, events.losses(model_dir), **style)
    _draw(pretraining, events.losses(model_dirs(model, 'pretrain')),
          color=color, label=model)
  _name(score, f'{task}: validation accuracy', '%')
  score.set_ylim(0, 100)
  _name(loss, f'{task}: training loss', 'nats per target position')
  _name(pretraining, 'pre-training: loss', 'nats per target position')
  for axes in (loss, pretraining):
    axes.set_ylim(bottom=0)
  score.legend(loc='best', fontsize='small')
  pretraining.legend(loc='best', fontsize='small')
  figure.savefig(path, dpi=120)
  plt.close(figure)


def _draw(axes, curve, **style):
  axes.plot(curve.index, curve.values, **style)


def _name(axes, title, unit):
  axes.set_title(title, fontsize='medium')
  axes.set_xlabel('step')
  axes.set_ylabel(unit)
  axes.grid(alpha=0.3)
