"""Hours of training as steps, found before it begins."""

import gin
import pytest

from mtf_conv import training  # noqa: F401, for gin
from mtf_conv.base import errors
from mtf_conv.model_dir import before_run, budget


@pytest.fixture
def measured(monkeypatch):
  """Takes 5 steps a second; returns how often they were measured."""
  calls = []
  monkeypatch.setattr(
      budget, '_steps_per_second', lambda: calls.append(None) or 5.0)
  return calls


def test_steps_are_found_once(measured, tmp_path, capfd):
  model_dir = str(tmp_path / 'new')
  assert budget.steps(model_dir, 0.5) == 9000
  assert capfd.readouterr().err == (
      '5 steps a second: 9,000 steps in 0.5 hours.\n')
  assert budget.steps(model_dir, 0.5) == 9000 and len(measured) == 1
  with pytest.raises(errors.UserError, match='begun with hours = 0.5, .* now '
                     'it is 2: give the same, or another --model_dir'):
    budget.steps(model_dir, 2)
  with pytest.raises(errors.UserError, match=r'hours \(=0.005\) is too little: '
                     'at 5 steps a second it is 90 steps'):
    budget.steps(str(tmp_path / 'other'), 0.005)


@pytest.mark.parametrize('mode, steps', [('train', 9000), ('eval', 7)])
def test_a_training_has_that_many(mode, steps, measured, tmp_path, monkeypatch):
  monkeypatch.setattr(before_run, 'check', lambda model_dir: None)
  gin.clear_config()
  gin.config._FINALIZE_HOOKS, kept = [], gin.config._FINALIZE_HOOKS
  try:
    before_run.check_on_finalize(str(tmp_path))
    gin.parse_config(
        ['utils.run.train_steps = 7', f"utils.run.mode = '{mode}'",
         'mtf_conv.training.train_model.hours = 0.5'])
    gin.finalize()
    assert gin.query_parameter('utils.run.train_steps') == steps
  finally:
    gin.config._FINALIZE_HOOKS = kept
    gin.clear_config()
