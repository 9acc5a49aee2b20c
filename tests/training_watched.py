"""The parent of one of several training processes: SCRIPT WORKDIR FIELDS_JSON, as training_runs starts it.

A parent does not need what its child does: without this every run of several processes would import jax twice as often.
"""

import json
import os
import runpy
import sys

from worldmodels.training import processes, supervisor

if __name__ == '__main__':
    supervisor.watch(processes.Place(*json.loads(os.environ['TRAINING_PLACE'])), sys.argv[2])
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name='__main__')
