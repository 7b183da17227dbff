"""A run that is killed at moments that nobody chose, again and again, ends as if it had not been."""

import json
import subprocess
import sys
from pathlib import Path

from pplr_audit import pipeline as audit
from pplr_audit import scenario
from tests.conftest import comparable

KILLS = 3
PROGRAM = """
import json, os, random, signal, sys, time
from pathlib import Path
from pplr_audit import pipeline as audit, scenario
from pplr_audit.errors import InputError
from pplr_audit.runs.store import Store

file, run, longest, kills = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
chosen = scenario.load(str(file))
lives = []
for _ in range(kills):
    # Forked from a process that has imported everything and computed nothing: a life is work from its start.
    child = os.fork()
    if not child:
        audit.run(chosen, run)
        os._exit(0)
    lives.append(random.uniform(0, longest))
    time.sleep(lives[-1])
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    try:
        with Store.load(run) as store:
            for path in store.paths():
                store.read_bytes(path)
            files = len(store.paths())
    except InputError as error:
        if not any(said in str(error) for said in ("no such directory", "killed as it began", "it has no")):
            raise
        files = 0
    print(json.dumps({"life": lives[-1], "killed": os.WIFSIGNALED(status), "files": files}), flush=True)
audit.run(chosen, run)
"""


def test_killed_three_times_at_random_moments_a_run_ends_with_the_same_findings(
    small_scenario: scenario.Scenario, finished: audit.AuditResult, tmp_path: Path
) -> None:
    file, run = tmp_path / "scenario.yaml", tmp_path / "run"
    file.write_text(scenario.dump(small_scenario))
    seconds = sum(json.loads((finished.directory / "manifest.json").read_text())["seconds"].values())
    command = [sys.executable, "-c", PROGRAM, str(file), str(run), str(seconds / (KILLS + 2)), str(KILLS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout, done.stderr)
    lives = [json.loads(line) for line in done.stdout.splitlines()]
    assert [life["killed"] for life in lives] == [True] * KILLS, lives
    assert comparable(json.loads((run / "findings.json").read_text())) == comparable(finished.document), lives
