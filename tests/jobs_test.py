"""The runner of jobs, with cheap jobs: nothing here trains."""

import json
import multiprocessing
import os
import random
import signal
import sys
import time

import pytest

from mtf_conv.base import errors
from mtf_conv.replicate import jobs


def main(argv):
  """What the jobs of these tests do: a line in a journal, then the output."""
  _, verb, journal, output = argv[:4]
  with open(journal, 'a') as f:
    f.write(f'{verb} {output}\n')
  if verb == 'fail':
    for i in range(30):
      print('line', i)
    sys.exit(3)
  if verb == 'sleep':
    time.sleep(float(argv[4]))
  if verb == 'kill':
    os.kill(os.getpid(), signal.SIGKILL)
  if verb != 'forget':
    with open(output, 'w') as f:
      f.write(os.environ.get('MTF_CONV_TEST', ''))


def make_job(tmp_path, name, verb='write', needs=(), **kwargs):
  output = str(tmp_path / name)
  return jobs.Job(
      name=name, argv=('work', verb, str(tmp_path / 'journal'), output,
                       *kwargs.pop('more', ())),
      outputs=(output,), needs=needs, **kwargs)


def journal(tmp_path):
  try:
    return (tmp_path / 'journal').read_text().splitlines()
  except FileNotFoundError:
    return []


def test_needs_come_first_and_nothing_is_repeated(tmp_path, capfd):
  chain = [make_job(tmp_path, 'c', needs=('b',)),
           make_job(tmp_path, 'b', needs=('a',)),
           make_job(tmp_path, 'a')]
  root = str(tmp_path / 'root')
  assert jobs.run(root, chain, main, 2) == []
  ran = journal(tmp_path)
  assert [line[-1] for line in ran] == ['a', 'b', 'c']
  assert 'c: done' in capfd.readouterr().out
  assert jobs.run(root, chain, main) == []
  assert journal(tmp_path) == ran
  os.remove(tmp_path / 'b')  # Whose output is gone is run again, alone.
  assert jobs.run(root, chain, main) == []
  assert [line[-1] for line in journal(tmp_path)[3:]] == ['b']


def test_two_at_a_time(tmp_path, capfd):
  both = [make_job(tmp_path, name, 'sleep', more=('1',)) for name in 'ab']
  assert jobs.run(str(tmp_path / 'root'), both, main, 2) == []
  out = capfd.readouterr().out
  first_end = min(out.index('a: done'), out.index('b: done'))
  assert max(out.index('a: started'), out.index('b: started')) < first_end


@pytest.mark.parametrize('verb, reason', [
    ('fail', 'exit code 3'), ('kill', 'ended by SIGKILL'),
    ('forget', 'it ended well without')])
def test_a_failure_stops_nothing_else(tmp_path, verb, reason):
  root = str(tmp_path / 'root')
  three = [make_job(tmp_path, 'bad', verb),
           make_job(tmp_path, 'after', needs=('bad',)),
           make_job(tmp_path, 'other')]
  failed = jobs.run(root, three, main)
  assert [job.name for job, _ in failed] == ['bad', 'after']
  assert failed[0][1].startswith(reason)
  assert failed[1][1] == 'needs bad, which failed'
  assert (tmp_path / 'other').exists()
  text = jobs.describe_failure(root, *failed[0])
  assert text.startswith('bad failed: ' + reason)
  if verb == 'fail':
    assert 'line 29' in text and 'line 5' not in text
    assert text.endswith(os.path.join(root, 'jobs', 'bad.log'))
  # It is tried again; what was done is not.
  jobs.run(root, three, main)
  assert len(journal(tmp_path)) == 3


def test_another_command_is_not_mixed_in(tmp_path):
  root = str(tmp_path / 'root')
  jobs.run(root, [make_job(tmp_path, 'a')], main)
  with pytest.raises(errors.UserError, match='a.json is of another command'):
    jobs.run(root, [make_job(tmp_path, 'a', 'other')], main)


def test_progress_is_shown(tmp_path):
  path = tmp_path / 'progress.json'
  path.write_text(json.dumps({'step': 3, 'total': 4, 'loss': 0.123456}))
  job = make_job(tmp_path, 'a', progress=str(path), seconds=9)
  display = jobs._Lines([job, make_job(tmp_path, 'b')], set())
  display.started(job)
  display.progressed(job, json.loads(path.read_text()))
  assert display._work() == pytest.approx(0.675)
  assert jobs._describe(json.loads(path.read_text())) == 'loss 0.123'


def hold(root, got):
  with jobs.lock(root):
    got.set()
    time.sleep(60)


def test_one_runner_per_root(tmp_path):
  context = multiprocessing.get_context('fork')
  got = context.Event()
  holder = context.Process(target=hold, args=(str(tmp_path), got))
  holder.start()
  assert got.wait(10)
  with pytest.raises(errors.UserError, match='in use by another run'):
    with jobs.lock(str(tmp_path), patience=0.2):
      pass
  holder.kill()
  holder.join()
  with jobs.lock(str(tmp_path)):
    pass


def run_locked(root, all_jobs):
  with jobs.lock(root):
    jobs.run(root, all_jobs, main, 2)


def test_killed_at_any_moment_it_goes_on(tmp_path):
  """Whatever the moment of a kill -9, each job ends well exactly once."""
  root = str(tmp_path / 'root')
  names = [f'job{i}' for i in range(8)]
  all_jobs = [make_job(tmp_path, name, 'sleep', more=('0.15',),
                       needs=tuple(names[max(0, i - 2):max(0, i - 1)]))
              for i, name in enumerate(names)]
  rng = random.Random(0)
  records = jobs.Records(root)
  kills = 0
  while not all(records.is_done(job) for job in all_jobs):
    done = {job.name for job in all_jobs if records.is_done(job)}
    started = len(journal(tmp_path))
    process = multiprocessing.get_context('fork').Process(
        target=run_locked, args=(root, all_jobs))
    process.start()
    process.join(rng.uniform(0.02, 0.3))
    process.kill()
    process.join()
    kills += process.exitcode == -signal.SIGKILL
    with jobs.lock(root):  # The killed runner's jobs are gone as well.
      again = {os.path.basename(line.split()[1])
               for line in journal(tmp_path)[started:]}
    assert not again & done
  assert kills >= 3


def test_jobs_end_with_their_runner(tmp_path):
  root = str(tmp_path / 'root')
  job = make_job(tmp_path, 'a', 'sleep', more=('2',))
  process = multiprocessing.get_context('fork').Process(
      target=run_locked, args=(root, [job]))
  process.start()
  while not journal(tmp_path):
    time.sleep(0.05)
  process.kill()
  process.join()
  with jobs.lock(root, patience=1):
    pass
  time.sleep(2.1)
  assert not (tmp_path / 'a').exists()
