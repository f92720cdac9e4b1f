"""The quick start, end to end at a few steps, and around faked jobs."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import tiny_scale

from mtf_conv.commands import quickstart
from mtf_conv.replicate import grid, jobs

COMMAND = [sys.executable, '-m', 'mtf_conv.commands.quickstart']
PRETRAIN = 'lightconv.seed0.pretrain'
FINETUNE = 'lightconv.seed0.demo_finetune.pretrained_lr0.001'


def wait_for(process, condition, seconds=600):
  """Waits until the condition holds; the process does not outlive a failure."""
  deadline = time.monotonic() + seconds
  while not condition():
    if process.poll() is not None or time.monotonic() > deadline:
      process.kill()
      pytest.fail(f'{process.args} ended with {process.wait()}')
    time.sleep(0.05)


def exit_code(root, name):
  """Returns the exit code that is on record, None if it has not ended."""
  try:
    return json.loads(
        (root / 'jobs' / f'{name}.json').read_text()).get('exit_code')
  except FileNotFoundError:
    return None


def test_end_to_end_with_a_kill(tmp_path):
  root = tmp_path / 'a root'
  command = [*COMMAND, '--models=lightconv', f'--root={root}',
             f'--scale={tiny_scale.write(tmp_path, steps=4)}']
  killed = subprocess.Popen(command, stdout=subprocess.DEVNULL)
  wait_for(killed, lambda: exit_code(root, PRETRAIN) == 0)
  killed.kill()
  killed.wait()
  first = (root / 'jobs' / f'{PRETRAIN}.json').read_text()
  ended = subprocess.run(command, capture_output=True, text=True)
  assert ended.returncode == 0, ended.stdout + ended.stderr
  assert not ended.stderr
  assert 'done already: about' in ended.stdout
  assert f'{PRETRAIN}: started' not in ended.stdout
  assert (root / 'jobs' / f'{PRETRAIN}.json').read_text() == first
  written = (root / 'table.md').read_text()
  assert written in ended.stdout
  row, = pd.read_csv(root / 'table.csv').to_dict('records')
  assert row['model'] == 'lightconv'
  assert {row['raw_step'], row['pretrained_step']} <= {0, 2, 4}
  assert 0 <= row['raw'] <= 100
  assert row['parameters'] > 100_000 and row['steps_per_second'] > 0
  assert (root / 'curves.png').stat().st_size > 10_000
  # The pre-trained model did start from the pre-trained checkpoint.
  folder = root / 'lightconv' / 'seed0'
  finetune = folder / 'demo_finetune' / 'pretrained_lr0.001'
  log = (finetune / 'log.txt').read_text()
  assert f'Initializing variables from {folder}/pretrain' in log


def fake_main(argv):
  """Does what a job is believed to do, but for one that fails."""
  folder = pathlib.Path(argv[1].split('=', 1)[1])
  if folder.name.startswith('pretrained'):
    print('the reason')
    sys.exit(1)
  (folder / 'validation_eval').mkdir(parents=True, exist_ok=True)
  for step in (200, 1500):
    (folder / f'model.ckpt-{step}.index').touch()
  (folder / 'validation_eval' / 'demo_finetune_200_predictions').touch()


def test_a_failed_job_is_told_at_the_end(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(quickstart, '_train', lambda all_jobs, at_once, root, _: (
      jobs.run(root, all_jobs, fake_main, at_once)))
  args = ['--models=lightconv', f'--root={tmp_path}']
  assert quickstart.main(args) == 1
  out, err = capsys.readouterr()
  assert re.search(r'^\| lightconv +\| +- \|', out, re.M)
  assert f'{FINETUNE} failed: exit code 1\n  the reason\n' in err
  assert f'evaluate failed: needs {FINETUNE}' in err
  assert quickstart.main(args) == 1
  assert '2 jobs to run' in capsys.readouterr().out


def test_interrupted(tmp_path):
  program = f'''
import sys, time
from mtf_conv.commands import quickstart
from mtf_conv.replicate import jobs
quickstart._train = lambda all_jobs, at_once, root, _: jobs.run(
    root, all_jobs, lambda argv: time.sleep(60), at_once)
sys.exit(quickstart.main(['--root={tmp_path}']))
'''
  # A test run in the background ignores SIGINT, and so would its children.
  process = subprocess.Popen(
      [sys.executable, '-c', program], stdout=subprocess.PIPE,
      stderr=subprocess.PIPE, text=True,
      preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
  wait_for(process,
           (tmp_path / 'jobs' / f'{PRETRAIN}.json').exists)
  second = subprocess.run([*COMMAND, f'--root={tmp_path}'],
                          capture_output=True, text=True)
  assert second.returncode == 2
  assert 'in use by another run' in second.stderr
  assert second.stderr.count('\n') == 1
  process.send_signal(signal.SIGINT)
  _, err = process.communicate(timeout=30)
  assert process.returncode == 130
  assert err.strip() == 'Stopped. The same command goes on where it was.'
  with jobs.lock(str(tmp_path), patience=0):  # The jobs are gone as well.
    pass


def test_the_plan(capsys, tmp_path):
  assert quickstart.main(
      ['--plan', '--models=all', f'--root={tmp_path}/root']) == 0
  names = capsys.readouterr().out.split('\n')[::2][:-1]
  assert len(names) == 4 * 5
  assert not os.listdir(tmp_path)


@pytest.mark.parametrize('args, named', [
    (['--models=lightconf'], "did you mean 'lightconv'?"),
    (['--model=all'], "did you mean '--models'?"),
    (['--jobs=0'], '--jobs (=0) must be at least 1'),
    (['--jobs=x'], 'invalid int value'),
])
def test_wrong_input_is_told_in_one_line(capsys, args, named):
  try:
    code = quickstart.main(args)
  except SystemExit as error:
    code = error.code
  err = capsys.readouterr().err
  assert code == 2
  assert named in err and err.count('\n') == 1


def test_pretraining_comes_before_what_needs_it():
  runs = quickstart.make_runs(
      ['lightconv', 'transformer'], '/root', grid.load_scale('demo'))
  assert [run.stage for run in runs[:3]] == ['pretrain', 'pretrain', 'finetune']
  all_jobs = [run.job for run in runs]
  names = {job.name for job in all_jobs}
  assert len(names) == len(all_jobs) == 10
  assert all(names.issuperset(job.needs) for job in all_jobs)
